"""Which tokens come: prompts are read, then tokens drawn, for many rows side by side.

Rows of different settings and prompts share the engine's steps and nothing else. An
engine that can draw for itself writes many tokens in one call where all of a row's
settings allow it; else each token is drawn here. It knows token ids and logits. It
does NOT know text, or when to stop: whoever takes the tokens says so by `Row.done`.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from textgen.arrays import State
from textgen.config import SamplingConfig
from textgen.engines import Engine, LoopEngine
from textgen.errors import ConfigError
from textgen.sampling import (
    ProcessorStep,
    StepContext,
    build_processors,
    next_mu,
)
from textgen.sampling.draw import pick, pick_greedy, row_uniforms

# Steps of the first call, so that a stream begins at once; each further call takes twice as many.
_FIRST_CALL = 16
_LONGEST_CALL = 512
# Decisions other than the draw have uniforms of their own, so that they shift no other.
_OTHER_UNIFORMS = 2**63


class Restraint(Protocol):
    """Something that forbids or favours tokens by what one row has written so far."""

    def allow(self, logits: NDArray[np.floating]) -> NDArray[np.floating]:
        """Return the logits `[1, vocab_size]` with what must not come at -inf."""

    def advance(self, token_id: int) -> None:
        """Take note of the token that was drawn."""


@dataclass(kw_only=True, eq=False)
class Row:
    """One sequence of tokens in the making.

    Attributes:
        prompt_ids: `[time]`, at least one token.
        sampling: How to draw.
        bias: `[vocab_size]`, added to the logits; None: nothing.
        sample_index: Decides with the seed what is drawn.
        restraints: Consulted before each draw.
        wants_logits: Whether whoever takes the tokens reads the model's logits as well.
        done: Set from outside: the row draws no more.
    """

    prompt_ids: NDArray[np.int32]
    sampling: SamplingConfig
    bias: NDArray[np.float32] | None = None
    sample_index: int = 0
    restraints: Sequence[Restraint] = ()
    wants_logits: bool = False
    done: bool = False
    history: NDArray[np.int32] = field(init=False)
    max_surprise: float = field(init=False)
    uniforms: Iterator[float] = field(init=False)
    other_uniforms: Iterator[float] = field(init=False)

    def __post_init__(self) -> None:
        if len(self.prompt_ids) == 0:
            raise ConfigError(
                "`prompt_ids` must hold at least 1 token. Received: 0. "
                "Begin with the tokenizer's start_id."
            )
        window = self.sampling.penalty_window
        latest = self.prompt_ids[-window:]
        self.history = np.full(window, -1, np.int32)
        self.history[window - len(latest) :] = latest
        self.max_surprise = 2.0 * (self.sampling.mirostat or 0.0)
        self.uniforms = row_uniforms(self.sampling.seed, self.sample_index)
        self.other_uniforms = row_uniforms(self.sampling.seed, self.sample_index + _OTHER_UNIFORMS)

    def advance(self, token_id: int) -> None:
        """Take note of the token that was drawn."""
        self.history[:-1] = self.history[1:]
        self.history[-1] = token_id
        for restraint in self.restraints:
            restraint.advance(token_id)


@dataclass(frozen=True, eq=False)
class DrawnTokens:
    """What was drawn in some steps.

    Attributes:
        rows: The rows that took part.
        token_ids: int32 `[steps, len(rows)]`. A row that was done before the last of
            several steps has tokens behind its end that nobody should read.
        logits: The model's own, `[len(rows), vocab_size]`, where a row wants them.
    """

    rows: Sequence[Row]
    token_ids: NDArray[np.int32]
    logits: NDArray[np.floating] | None = None


def generate_tokens(engine: Engine, rows: Sequence[Row]) -> Iterator[DrawnTokens]:
    """Draw tokens for every row until it is `done` or has `max_new_tokens`.

    Args:
        engine: The model.
        rows: Fresh rows; each prompt is read once, at the first step.

    Yields:
        Tokens, of one step or of several.
    """
    rows = [row for row in rows if row.sampling.max_new_tokens]
    if isinstance(engine, LoopEngine) and all(map(_is_plain, rows)):
        for _, same in _groups(rows):
            yield from _draw_in_calls(engine, [rows[i] for i in same])
    else:
        yield from _draw_stepwise(engine, rows)


def fits_in_calls(sampling: SamplingConfig) -> bool:
    """Return whether an engine that draws for itself knows all of these settings."""
    looked_at = (sampling.regex, sampling.max_copy, sampling.final_temperature)
    known = replace(
        SamplingConfig(temperature=sampling.temperature),
        top_k=sampling.top_k,
        top_p=sampling.top_p,
        min_p=sampling.min_p,
    )
    steps = len(build_processors(sampling)), len(build_processors(known))
    return looked_at == (None, None, None) and steps[0] == steps[1]


def _is_plain(row: Row) -> bool:
    return fits_in_calls(row.sampling) and not row.restraints and not row.wants_logits


def _draw_in_calls(engine: LoopEngine, rows: list[Row]) -> Iterator[DrawnTokens]:
    """Draw for rows of equal settings, many steps a call."""
    sampling, bias = rows[0].sampling, rows[0].bias
    state, token_ids = _read_all_but_last(engine, rows)
    left, steps = sampling.max_new_tokens, _FIRST_CALL
    while rows and left:
        steps = min(steps, left)
        uniforms = [np.fromiter(islice(row.uniforms, steps), np.float64) for row in rows]
        drawn, state = engine.run_loop(
            token_ids, state, np.stack(uniforms, axis=1), sampling, bias
        )
        yield DrawnTokens(rows, drawn)
        keep = [i for i, row in enumerate(rows) if not row.done]
        rows, token_ids, state = [rows[i] for i in keep], drawn[-1, keep], state[:, keep]
        left -= steps
        steps = min(2 * steps, _LONGEST_CALL)


def _draw_stepwise(engine: Engine, rows: list[Row]) -> Iterator[DrawnTokens]:
    logits, state = _read_prompts(engine, rows)
    groups = [(_Group.of(rows[same[0]]), same) for _, same in _groups(rows)]
    step = 0
    while rows:
        token_ids = np.empty(len(rows), np.int32)
        for group, same in groups:
            token_ids[same] = group.draw(logits[same], [rows[i] for i in same], step)
        wanted = any(row.wants_logits for row in rows)
        yield DrawnTokens(rows, token_ids[None, :], logits if wanted else None)
        step += 1
        keep = [i for i, r in enumerate(rows) if not r.done and step < r.sampling.max_new_tokens]
        if len(keep) < len(rows):
            rows, token_ids, state = [rows[i] for i in keep], token_ids[keep], state[:, keep]
            groups = [(_Group.of(rows[same[0]]), same) for _, same in _groups(rows)]
        if rows:
            logits, state = engine.decode_step(token_ids, state)


def _groups(rows: Sequence[Row]) -> list[tuple[SamplingConfig, list[int]]]:
    """Return which rows have equal settings."""
    groups: dict[SamplingConfig, list[int]] = {}
    for index, row in enumerate(rows):
        groups.setdefault(row.sampling, []).append(index)
    return list(groups.items())


@dataclass(frozen=True, eq=False)
class _Group:
    """How rows of equal settings draw."""

    sampling: SamplingConfig
    steps: tuple[ProcessorStep, ...]

    @classmethod
    def of(cls, row: Row) -> "_Group":
        return cls(row.sampling, build_processors(row.sampling, row.bias))

    def draw(
        self, logits: NDArray[np.floating], rows: Sequence[Row], step: int
    ) -> NDArray[np.int32]:
        """Return a token for each row, `[len(rows)]`, and let the rows take note of it."""
        if any(row.restraints for row in rows):
            allowed = (_restrained(row, logits[i : i + 1]) for i, row in enumerate(rows))
            logits = np.concatenate(list(allowed))
        temperature = self._temperature(step)
        context = StepContext(
            history=np.stack([row.history for row in rows]),
            temperature=temperature,
            uniforms=np.array([next(row.other_uniforms) for row in rows]),
            max_surprise=np.array([row.max_surprise for row in rows]),
        )
        for process in self.steps:
            before, logits = logits, process(logits, context)
        uniforms = np.array([next(row.uniforms) for row in rows])
        token_ids = pick(logits, uniforms) if temperature else pick_greedy(logits)
        if temperature and self.sampling.mirostat is not None:
            self._adapt(rows, before, token_ids)
        for row, token_id in zip(rows, token_ids.tolist(), strict=True):
            row.advance(token_id)
        return token_ids

    def _temperature(self, step: int) -> float:
        first, last = float(self.sampling.temperature), self.sampling.final_temperature
        if last is None:
            return first
        return first + (last - first) * step / max(1, self.sampling.max_new_tokens - 1)

    def _adapt(self, rows, logits, token_ids) -> None:
        """Move mirostat's bounds by how surprising the drawn tokens were."""
        shifted = logits - logits.max(axis=-1, keepdims=True)
        chosen = np.take_along_axis(shifted, token_ids[:, None], axis=-1)[:, 0]
        surprise = (np.log(np.exp(shifted).sum(axis=-1)) - chosen) / np.log(2)
        bounds = np.array([row.max_surprise for row in rows])
        target = self.sampling.mirostat or 0.0
        adapted = next_mu(bounds, surprise, target, self.sampling.mirostat_rate)
        for row, bound in zip(rows, adapted.tolist(), strict=True):
            row.max_surprise = bound


def _restrained(row: Row, logits: NDArray[np.floating]) -> NDArray[np.floating]:
    for restraint in row.restraints:
        logits = restraint.allow(logits)
    return logits


def _read_prompts(engine: Engine, rows: Sequence[Row]) -> tuple[NDArray[np.float32], State]:
    """Read every prompt, equal ones once; return the logits after each, and the states."""
    return _read(engine, [row.prompt_ids for row in rows])


def _read_all_but_last(engine: Engine, rows: Sequence[Row]) -> tuple[State, NDArray[np.int32]]:
    """Read every prompt but for its last token; return the states and the last tokens."""
    _, state = _read(engine, [row.prompt_ids[:-1] for row in rows])
    return state, np.array([row.prompt_ids[-1] for row in rows], np.int32)


def _read(
    engine: Engine, prompts: Sequence[NDArray[np.int32]]
) -> tuple[NDArray[np.float32], State]:
    """Read prompts of different lengths side by side: each takes part as far as it goes."""
    texts = [prompt.tobytes() for prompt in prompts]
    distinct = dict(zip(texts, prompts, strict=True))
    arrays = list(distinct.values())
    state = engine.initial_state(len(arrays))
    logits = np.zeros((len(arrays), engine.vocab_size), np.float32)
    begin = 0
    for end in sorted({len(array) for array in arrays} - {0}):
        active = [i for i, array in enumerate(arrays) if len(array) >= end]
        token_ids = np.stack([arrays[i][begin:end] for i in active])
        logits[active], state[:, active] = engine.prefill(token_ids, state[:, active])
        begin = end
    order = {text: i for i, text in enumerate(distinct)}
    which = [order[text] for text in texts]
    return logits[which], state[:, which]
