"""The token loop: reads prompts, then draws tokens for many rows in parallel.

Rows share the engine's steps and nothing else; settings and prompts may differ. A row runs in
the engine's own loop, many tokens per call, if the engine has one that applies all of the row's
settings; otherwise each token is drawn here. This module knows token ids and logits. It does NOT
know text, or when it ends: each row's `on_tokens` decides that.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice

import numpy as np

from textgen.arrays import Float32Array, FloatArray, Int32Array, State
from textgen.config import SamplingConfig
from textgen.engines import Engine, LoopEngine
from textgen.errors import ConfigError
from textgen.generation.restraints.base import Restraint
from textgen.sampling import (
    ProcessorStep,
    StepContext,
    build_processors,
    log_softmax,
    next_mu,
    pick,
    pick_greedy,
    row_uniforms,
)
from textgen.sampling.draw import OTHER_STREAMS
from textgen.sampling.penalties import NO_TOKEN

# Takes the newest tokens of a row and, if the row needs them, the model's logits for the last one,
# `[vocab_size]`. Returns whether the row continues.
OnTokens = Callable[[Sequence[int], FloatArray | None], bool]

# Steps of the first call, so that a stream starts at once; every further call takes twice as many.
_FIRST_CALL_STEPS = 16
_MAX_CALL_STEPS = 512


@dataclass(kw_only=True, eq=False)
class Row:
    """A sequence of tokens that is being generated.

    Attributes:
        prompt_ids: `[time]`, at least one token.
        sampling: How tokens are drawn, at most `max_new_tokens` of them.
        on_tokens: Called with the tokens as they are drawn; returns whether the row continues.
        bias: `[vocab_size]`, added to the logits; None: no bias.
        sample_index: Determines the draws, together with the seed.
        restraints: Applied before each draw.
        needs_logits: Whether `on_tokens` gets the model's logits.
        history: int32 `[penalty_window]`, the latest tokens, -1 before the first.
        max_surprise: Mirostat's bound in bits.
        uniforms: One for each draw.
        other_uniforms: One per step, for decisions other than the draw.

    Raises:
        ConfigError: `prompt_ids` is empty.
    """

    prompt_ids: Int32Array
    sampling: SamplingConfig
    on_tokens: OnTokens
    bias: Float32Array | None = None
    sample_index: int = 0
    restraints: Sequence[Restraint] = ()
    needs_logits: bool = False
    history: Int32Array = field(init=False)
    max_surprise: float = field(init=False)
    uniforms: Iterator[float] = field(init=False)
    other_uniforms: Iterator[float] = field(init=False)

    def __post_init__(self) -> None:
        if len(self.prompt_ids) == 0:
            raise ConfigError(
                "`prompt_ids` must have at least 1 token. Received: 0. "
                "Use the tokenizer's start_id for an empty prompt."
            )
        window = self.sampling.penalty_window
        latest = self.prompt_ids[-window:]
        self.history = np.full(window, NO_TOKEN, np.int32)
        self.history[window - len(latest) :] = latest
        self.max_surprise = 2.0 * (self.sampling.mirostat or 0.0)
        self.uniforms = row_uniforms(self.sampling.seed, self.sample_index)
        self.other_uniforms = row_uniforms(self.sampling.seed, self.sample_index + OTHER_STREAMS)

    def advance(self, token_id: int) -> None:
        """Record the token that was drawn."""
        self.history[:-1] = self.history[1:]
        self.history[-1] = token_id
        for restraint in self.restraints:
            restraint.advance(token_id)


def generate_tokens(engine: Engine, rows: Sequence[Row]) -> Iterator[None]:
    """Draw tokens for every row until its `on_tokens` ends it, or `max_new_tokens` are drawn.

    Args:
        engine: The model.
        rows: New rows; each prompt is read once, before the first token.

    Yields:
        None, whenever rows have received tokens: after a step, or after a call of several steps.
    """
    rows = [row for row in rows if row.sampling.max_new_tokens]
    stepwise: list[int] = []
    for indices in _groups(rows):
        group = [rows[i] for i in indices]
        if isinstance(engine, LoopEngine) and _fits_loop(engine, group):
            yield from _run_loop(engine, group)
        else:
            stepwise += indices
    if stepwise:
        yield from _run_steps(engine, [rows[i] for i in sorted(stepwise)])


def _fits_loop(engine: LoopEngine, rows: Sequence[Row]) -> bool:
    """Return whether the engine's loop can generate rows of equal settings."""
    needs_steps = any(row.restraints or row.needs_logits for row in rows)
    return not (needs_steps or engine.unsupported(rows[0].sampling))


def _run_loop(engine: LoopEngine, rows: Sequence[Row]) -> Iterator[None]:
    """Generate rows of equal settings in the engine's loop, many steps per call."""
    sampling, bias = rows[0].sampling, rows[0].bias
    _, state = _read_prompts(engine, [row.prompt_ids[:-1] for row in rows])
    token_ids = np.array([row.prompt_ids[-1] for row in rows], np.int32)
    remaining, steps = sampling.max_new_tokens, _FIRST_CALL_STEPS
    while rows and remaining:
        steps = min(steps, remaining)
        uniforms = [np.fromiter(islice(row.uniforms, steps), np.float64) for row in rows]
        drawn, state = engine.run_loop(token_ids, state, np.stack(uniforms, axis=1), sampling, bias)
        keep = [i for i, row in enumerate(rows) if row.on_tokens(drawn[:, i].tolist(), None)]
        yield
        rows, token_ids, state = [rows[i] for i in keep], drawn[-1, keep], state[:, keep]
        remaining -= steps
        steps = min(2 * steps, _MAX_CALL_STEPS)


def _run_steps(engine: Engine, rows: Sequence[Row]) -> Iterator[None]:
    """Generate rows of any settings, one token per step."""
    logits, state = _read_prompts(engine, [row.prompt_ids for row in rows])
    groups = _Group.of(rows)
    for step in range(max(row.sampling.max_new_tokens for row in rows)):
        token_ids = np.empty(len(rows), np.int32)
        for group in groups:
            token_ids[group.indices] = group.draw(logits[group.indices], step)
        keep = [
            i
            for i, (row, token_id) in enumerate(zip(rows, token_ids.tolist(), strict=True))
            if row.on_tokens([token_id], logits[i] if row.needs_logits else None)
            and step + 1 < row.sampling.max_new_tokens
        ]
        yield
        if not keep:
            return
        if len(keep) < len(rows):
            rows, token_ids, state = [rows[i] for i in keep], token_ids[keep], state[:, keep]
            groups = _Group.of(rows)
        logits, state = engine.decode_step(token_ids, state)


def _groups(rows: Sequence[Row]) -> list[list[int]]:
    """Return the indices of the rows, grouped by equal settings."""
    groups: dict[SamplingConfig, list[int]] = {}
    for index, row in enumerate(rows):
        groups.setdefault(row.sampling, []).append(index)
    return list(groups.values())


@dataclass(frozen=True, eq=False)
class _Group:
    """Rows of equal settings, which are drawn together.

    Attributes:
        sampling: Their settings.
        rows: The rows.
        indices: Their indices among all rows.
        processors: The processing steps of their settings.
    """

    sampling: SamplingConfig
    rows: Sequence[Row]
    indices: Sequence[int]
    processors: tuple[ProcessorStep, ...]

    @classmethod
    def of(cls, rows: Sequence[Row]) -> list["_Group"]:
        """Return the groups of `rows`."""
        return [
            cls(
                sampling=rows[indices[0]].sampling,
                rows=[rows[i] for i in indices],
                indices=indices,
                processors=build_processors(rows[indices[0]].sampling, rows[indices[0]].bias),
            )
            for indices in _groups(rows)
        ]

    def draw(self, logits: FloatArray, step: int) -> Int32Array:
        """Draw a token for each row.

        Args:
            logits: `[len(rows), vocab_size]`, the model's.
            step: Number of tokens drawn before.

        Returns:
            `[len(rows)]`; the rows have recorded them.
        """
        if any(row.restraints for row in self.rows):
            allowed = (_restrain(row, logits[i : i + 1]) for i, row in enumerate(self.rows))
            logits = np.concatenate(list(allowed))
        temperature = self._temperature(step)
        context = StepContext(
            history=np.stack([row.history for row in self.rows]),
            temperature=temperature,
            uniforms=np.array([next(row.other_uniforms) for row in self.rows]),
            max_surprise=np.array([row.max_surprise for row in self.rows]),
        )
        before = logits
        for process in self.processors:
            before, logits = logits, process(logits, context)
        uniforms = np.array([next(row.uniforms) for row in self.rows])
        token_ids = pick(logits, uniforms) if temperature else pick_greedy(logits)
        if temperature and self.sampling.mirostat is not None:
            self._move_bounds(before, token_ids, context, self.sampling.mirostat)
        for row, token_id in zip(self.rows, token_ids.tolist(), strict=True):
            row.advance(token_id)
        return token_ids

    def _temperature(self, step: int) -> float:
        first, final = float(self.sampling.temperature), self.sampling.final_temperature
        if final is None:
            return first
        return first + (final - first) * step / max(1, self.sampling.max_new_tokens - 1)

    def _move_bounds(
        self, logits: FloatArray, token_ids: Int32Array, context: StepContext, target: float
    ) -> None:
        """Move mirostat's bounds by the surprise of the drawn tokens under `logits`."""
        chosen = np.take_along_axis(log_softmax(logits), token_ids[:, None], axis=-1)[:, 0]
        rate = self.sampling.mirostat_rate
        bounds = next_mu(context.max_surprise, -chosen / np.log(2), target, rate)
        for row, bound in zip(self.rows, bounds.tolist(), strict=True):
            row.max_surprise = bound


def _restrain(row: Row, logits: FloatArray) -> FloatArray:
    for restraint in row.restraints:
        logits = restraint.allow(logits)
    return logits


def _read_prompts(engine: Engine, prompts: Sequence[Int32Array]) -> tuple[Float32Array, State]:
    """Read prompts of different lengths in parallel, equal ones once.

    Args:
        engine: The model.
        prompts: Token ids, each `[time]`; may be empty.

    Returns:
        Logits `[len(prompts), vocab_size]` after each prompt, and the state. The logits of an
        empty prompt are 0.
    """
    keys = [prompt.tobytes() for prompt in prompts]
    distinct = dict(zip(keys, prompts, strict=True))
    arrays = list(distinct.values())
    state = engine.initial_state(len(arrays))
    logits = np.zeros((len(arrays), engine.vocab_size), np.float32)
    begin = 0
    for end in sorted({len(array) for array in arrays} - {0}):
        active = [i for i, array in enumerate(arrays) if len(array) >= end]
        token_ids = np.stack([arrays[i][begin:end] for i in active])
        logits[active], state[:, active] = engine.prefill(token_ids, state[:, active])
        begin = end
    order = {key: i for i, key in enumerate(distinct)}
    indices = [order[key] for key in keys]
    return logits[indices], state[:, indices]
