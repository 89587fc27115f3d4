"""From prompts to new texts.

It knows tokenizers, engines and stopping by their protocols. It does NOT know where a
model lies on disk, how an engine computes, or who reads the text. A token costs the
same time and memory whatever has been written before it.
"""

import io
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from textgen.config import SamplingConfig, UnknownPolicy
from textgen.corpora.passages import PassageIndex
from textgen.engines.base import Engine
from textgen.errors import ConfigError, RunError
from textgen.generation.requests import FinishReason, GeneratedText, Request, TokenChoice
from textgen.generation.restraints.copy_guard import CopyGuard
from textgen.generation.restraints.regex import RegexConstraint
from textgen.generation.restraints.words import Completions, static_bias
from textgen.generation.stopping import StopRule
from textgen.generation.token_loop import DrawnTokens, Restraint, Row, generate_tokens
from textgen.tokenizers.base import Tokenizer


def generate_texts(
    engine: Engine,
    tokenizer: Tokenizer,
    requests: Sequence[Request],
    *,
    unknown: UnknownPolicy = "error",
    logprobs: int | None = None,
    passages: PassageIndex | None = None,
) -> list[GeneratedText]:
    """Write the texts of many requests side by side.

    Args:
        engine: The model.
        tokenizer: The one it was trained with.
        requests: Prompts, settings and lengths of any kind; a request is answered the same
            whatever the others are, but for float32 rounding in the engine.
        unknown: What to do with a character of a prompt outside the vocabulary.
        logprobs: Also return what the model thought of each token, with so many
            alternatives; None: do not, which lets an engine draw many tokens a call.
        passages: The index of the training text, for `max_copy`.

    Returns:
        The texts, in the order of the requests.

    Raises:
        TokenizerError: A prompt has an unknown character, and `unknown` is `"error"`.
        ConfigError: Settings that this model cannot fulfil.
        RunError: Tokenizer and engine have vocabularies of different sizes.
    """
    texts = _begin(engine, tokenizer, requests, unknown, logprobs, passages)
    for drawn in generate_tokens(engine, [text.row for text in texts]):
        _feed(texts, drawn)
    return [text.written() for text in texts]


def stream_text(
    engine: Engine,
    tokenizer: Tokenizer,
    request: Request,
    *,
    unknown: UnknownPolicy = "error",
    passages: PassageIndex | None = None,
) -> Iterator[str]:
    """Write one text piece by piece, as it comes.

    Args:
        engine: The model.
        tokenizer: The one it was trained with.
        request: Prompt and settings.
        unknown: What to do with a character of the prompt outside the vocabulary.
        passages: The index of the training text, for `max_copy`.

    Returns:
        An iterator of non-empty pieces of whole characters; joined they are the text that
        `generate_texts` returns. What is wrong with the request is raised by the call, not by
        the first piece.

    Raises:
        TokenizerError: The prompt has an unknown character, and `unknown` is `"error"`.
        ConfigError: Settings that this model cannot fulfil.
        RunError: Tokenizer and engine have vocabularies of different sizes.
    """
    (text,) = _begin(engine, tokenizer, [request], unknown, None, passages)
    return _pieces(text, generate_tokens(engine, [text.row]))


def _pieces(text: "_Text", steps: Iterator[DrawnTokens]) -> Iterator[str]:
    for drawn in steps:
        _feed([text], drawn)
        if piece := text.take():
            yield piece


class _Text:
    """The text of one row, from its tokens."""

    def __init__(self, row: Row, tokenizer: Tokenizer, logprobs: int | None) -> None:
        self.row = row
        self._limit = row.sampling.max_new_tokens
        self._decoder = tokenizer.decoder()
        self._watch = _stop_rule(row.sampling).watch()
        self._text = io.StringIO()
        self._thoughts = None if logprobs is None else _Thoughts(tokenizer, logprobs)
        self._num_tokens = 0
        self._reason: FinishReason = "length"
        rule = _stop_rule(row.sampling)
        self._only_length_ends_it = not (rule.patterns or logprobs is not None or row.restraints)

    def feed(self, token_ids: Sequence[int], logits: NDArray[np.floating] | None) -> None:
        """Take tokens until the text ends; say so to the row."""
        if self._only_length_ends_it:
            self._feed_all(token_ids)
            return
        for token_id in token_ids:
            if self.row.done:
                return
            self._num_tokens += 1
            piece = self._decoder.feed(token_id)
            if self._thoughts is not None and logits is not None:
                self._thoughts.add(token_id, piece, logits)
            self._text.write(self._watch.feed(piece, self._num_tokens))
            self._end_if_due()

    def _feed_all(self, token_ids: Sequence[int]) -> None:
        """Take tokens at once: nothing has to be looked at in between."""
        token_ids = token_ids[: self._limit - self._num_tokens]
        self._num_tokens += len(token_ids)
        self._text.write("".join(map(self._decoder.feed, token_ids)))
        if self._num_tokens == self._limit:
            self._end("length")

    def _end_if_due(self) -> None:
        if self._watch.reason is not None:
            self._reason, self.row.done = self._watch.reason, True
        elif _is_finished(self.row.restraints):
            self._end("constraint")
        elif self._num_tokens == self._limit:
            self._end("length")

    def _end(self, reason: FinishReason) -> None:
        self._reason, self.row.done = reason, True
        self._text.write(self._watch.feed(self._decoder.flush(), self._num_tokens))
        self._text.write(self._watch.flush())

    def take(self) -> str:
        """Return what came since the last time, and forget it."""
        piece = self._text.getvalue()
        self._text.seek(0)
        self._text.truncate()
        return piece

    def written(self) -> GeneratedText:
        """Return the finished text."""
        choices = None if self._thoughts is None else tuple(self._thoughts.choices)
        return GeneratedText(
            text=self._text.getvalue(),
            num_tokens=self._num_tokens,
            finish_reason=self._reason,
            choices=choices,
        )


class _Thoughts:
    """Collects what the model thought of each token."""

    def __init__(self, tokenizer: Tokenizer, alternatives: int) -> None:
        self._tokenizer, self._alternatives = tokenizer, alternatives
        self.choices: list[TokenChoice] = []

    def add(self, token_id: int, piece: str, logits: NDArray[np.floating]) -> None:
        """Take note of a token and of the logits `[vocab_size]` that it was drawn from."""
        shifted = logits.astype(np.float64) - logits.max()
        log_probs = shifted - np.log(np.exp(shifted).sum())
        best = np.argsort(-log_probs, kind="stable")[: self._alternatives]
        self.choices.append(
            TokenChoice(
                token_id=token_id,
                text=piece,
                log_prob=float(log_probs[token_id]),
                rank=1 + int((log_probs > log_probs[token_id]).sum()),
                entropy=float(-(np.exp(log_probs) * log_probs).sum()),
                alternatives=tuple(
                    (self._tokenizer.decode([int(i)]), float(log_probs[i])) for i in best
                ),
            )
        )


def _begin(engine, tokenizer, requests, unknown, logprobs, passages) -> list[_Text]:
    """Return a text for each request; all that can be wrong with them is found here."""
    if tokenizer.vocab_size != engine.vocab_size:
        raise RunError(
            f"The tokenizer must have the model's {engine.vocab_size} tokens. "
            f"Received: {tokenizer.vocab_size}. Use the tokenizer it was trained with."
        )
    prepared: dict[SamplingConfig, _Prepared] = {}
    texts = []
    for request in requests:
        sampling = request.sampling
        if sampling not in prepared:
            prepared[sampling] = _Prepared(tokenizer, sampling, passages)
        token_ids = tokenizer.encode(request.prompt, unknown)
        row = Row(
            prompt_ids=token_ids if len(token_ids) else np.array([tokenizer.start_id], np.int32),
            sampling=sampling,
            bias=prepared[sampling].bias,
            sample_index=request.sample_index,
            restraints=prepared[sampling].restraints(),
            wants_logits=logprobs is not None,
        )
        texts.append(_Text(row, tokenizer, logprobs))
    return texts


class _Prepared:
    """What rows of equal settings share."""

    def __init__(
        self, tokenizer: Tokenizer, sampling: SamplingConfig, passages: PassageIndex | None
    ) -> None:
        if sampling.max_copy is not None and passages is None:
            raise ConfigError("`max_copy` needs the training text. Load the model from its run.")
        if sampling.temperature == "auto" or sampling.stop_at_document:
            raise ConfigError(
                "`temperature=auto` and `stop_at_document` ask the run. Write with `textgen.load`."
            )
        _stop_rule(sampling)
        self._sampling = sampling
        self._pieces = tokenizer.pieces()
        self.bias = static_bias(sampling, self._pieces, tokenizer.banned_ids)
        self._completions = not Completions(sampling, self._pieces).is_empty
        self._guard = None
        if passages is not None and sampling.max_copy is not None:
            self._guard = CopyGuard(passages, tokenizer, sampling.max_copy)
        self._constraint = None
        if sampling.regex is not None:
            banned = [] if self.bias is None else np.flatnonzero(np.isneginf(self.bias)).tolist()
            self._constraint = RegexConstraint.compile(
                sampling.regex, tokenizer, sampling.max_new_tokens, banned
            )

    def restraints(self) -> list[Restraint]:
        """Return fresh restraints for one row."""
        found: list[Restraint] = []
        if self._completions:
            found.append(Completions(self._sampling, self._pieces))
        if self._constraint is not None:
            found.append(self._constraint.start())
        if self._guard is not None:
            found.append(self._guard.start())
        return found


def _feed(texts: Sequence[_Text], drawn: DrawnTokens) -> None:
    by_row = {id(text.row): text for text in texts}
    for column, row in enumerate(drawn.rows):
        logits = None if drawn.logits is None else drawn.logits[column]
        by_row[id(row)].feed(drawn.token_ids[:, column].tolist(), logits)


def _stop_rule(sampling: SamplingConfig) -> StopRule:
    return StopRule(
        stop=sampling.stop,
        stop_regex=sampling.stop_regex,
        stop_at_sentence=sampling.stop_at_sentence,
        min_new_tokens=sampling.min_new_tokens,
        include_stop=sampling.include_stop,
    )


def _is_finished(restraints: Sequence[Restraint]) -> bool:
    return any(getattr(restraint, "finished", False) for restraint in restraints)
