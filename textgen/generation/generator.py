"""Generation of texts: prompts in, text out.

This module knows tokenizers, engines and stop conditions by their protocols. It does NOT know
where a model is stored, how an engine computes, or who reads the text. A token costs the same
time and memory however long the text before it is.
"""

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from textgen.arrays import Float32Array, FloatArray, TokenIds
from textgen.config import NumAlternatives, SamplingConfig, UnknownPolicy, check_argument
from textgen.corpora.passages import PassageIndex
from textgen.engines.base import Engine
from textgen.errors import ConfigError, RunError
from textgen.generation.requests import FinishReason, GeneratedText, Request, TokenChoice
from textgen.generation.restraints.base import Restraint, RestraintFactory
from textgen.generation.restraints.copy_guard import CopyGuard
from textgen.generation.restraints.regex import RegexConstraint
from textgen.generation.restraints.words import WordBias, static_bias
from textgen.generation.stopping import StopRule
from textgen.generation.token_loop import Row, generate_tokens
from textgen.sampling import log_softmax
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
    """Generate the texts of many requests in parallel.

    Args:
        engine: The model.
        tokenizer: The one it was trained with.
        requests: Prompts and settings of any kind. The result of a request does not depend on
            the others, except for float32 rounding in the engine.
        unknown: What to do with a character of a prompt outside the vocabulary.
        logprobs: Also return each token's log-probability and this many alternatives; None: do
            not, which allows an engine to draw many tokens per call.
        passages: The index of the training text, for `max_copy`.

    Returns:
        The texts, in the order of the requests.

    Raises:
        TokenizerError: A prompt has an unknown character, and `unknown` is `"error"`.
        ConfigError: A setting that this model cannot apply.
        RunError: Tokenizer and engine have vocabularies of different sizes.
    """
    if logprobs is not None:
        check_argument(logprobs, NumAlternatives, "logprobs")
    require_same_vocabulary(engine, tokenizer)
    plans: dict[SamplingConfig, _SamplingPlan] = {}
    texts, rows = [], []
    for request in requests:
        if request.sampling not in plans:
            plans[request.sampling] = _make_plan(tokenizer, request.sampling, passages)
        text, row = plans[request.sampling].start(request, unknown, logprobs)
        texts.append(text)
        rows.append(row)
    for _ in generate_tokens(engine, rows):
        pass
    return [text.result() for text in texts]


def stream_text(
    engine: Engine,
    tokenizer: Tokenizer,
    request: Request,
    *,
    unknown: UnknownPolicy = "error",
    passages: PassageIndex | None = None,
) -> Iterator[str]:
    """Generate one text piece by piece.

    Args:
        engine: The model.
        tokenizer: The one it was trained with.
        request: Prompt and settings.
        unknown: What to do with a character of the prompt outside the vocabulary.
        passages: The index of the training text, for `max_copy`.

    Returns:
        An iterator of non-empty pieces of whole characters; joined they are the text that
        `generate_texts` returns. Errors of the request are raised by the call, not by the first
        piece.

    Raises:
        TokenizerError: The prompt has an unknown character, and `unknown` is `"error"`.
        ConfigError: A setting that this model cannot apply.
        RunError: Tokenizer and engine have vocabularies of different sizes.
    """
    require_same_vocabulary(engine, tokenizer)
    plan = _make_plan(tokenizer, request.sampling, passages)
    text, row = plan.start(request, unknown, None)
    return _pieces(text, generate_tokens(engine, [row]))


def require_same_vocabulary(engine: Engine, tokenizer: Tokenizer) -> None:
    """Raise `RunError` unless engine and tokenizer have the same number of tokens."""
    if tokenizer.vocab_size != engine.vocab_size:
        raise RunError(
            f"The tokenizer must have the model's {engine.vocab_size} tokens. "
            f"Received: {tokenizer.vocab_size}. Use the tokenizer that it was trained with."
        )


def require_resolved(sampling: SamplingConfig) -> None:
    """Raise `ConfigError` if a setting has a value that only the run determines."""
    if sampling.temperature == "auto" or sampling.stop_at_document:
        name = "stop_at_document" if sampling.stop_at_document else "temperature"
        raise ConfigError(
            f"`{name}` must not depend on the run here. Received: {getattr(sampling, name)}. "
            "Generate with the bundle that textgen.load returns."
        )


def encode_prompt(tokenizer: Tokenizer, prompt: str, unknown: UnknownPolicy) -> TokenIds:
    """Return the tokens of a prompt, `[time]`; the start id for one without tokens.

    Args:
        tokenizer: Encodes the prompt.
        prompt: Any text.
        unknown: What to do with a character outside the vocabulary.
    """
    token_ids = tokenizer.encode(prompt, unknown)
    return token_ids if len(token_ids) else np.array([tokenizer.start_id], np.int32)


def _pieces(text: "_TextBuilder", steps: Iterator[None]) -> Iterator[str]:
    for _ in steps:
        if piece := text.take():
            yield piece


class _TextBuilder:
    """Builds the text of one row from its tokens, and decides when it ends.

    Args:
        tokenizer: Decodes the tokens.
        stop_rule: The conditions that end the text.
        restraints: Those of the row; a finished one ends the text.
        logprobs: Number of alternatives to record for each token; None: record nothing.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        stop_rule: StopRule,
        restraints: Sequence[Restraint],
        logprobs: int | None,
    ) -> None:
        self._max_tokens = stop_rule.sampling.max_new_tokens
        self._decoder = tokenizer.decoder()
        self._matcher = stop_rule.start()
        self._restraints = restraints
        self._recorder = None if logprobs is None else _ChoiceRecorder(tokenizer, logprobs)
        self._text = io.StringIO()
        self._num_tokens = 0
        self._reason: FinishReason | None = None
        # Then tokens need not be looked at one by one.
        self._ends_by_length = not (stop_rule.patterns or restraints or self._recorder)

    def add(self, token_ids: Sequence[int], logits: FloatArray | None) -> bool:
        """Take tokens until the text ends.

        Args:
            token_ids: The newest tokens.
            logits: `[vocab_size]`, the model's for the last of them; None if they are not recorded.

        Returns:
            Whether the text continues.
        """
        if self._ends_by_length:
            self._num_tokens += len(token_ids)
            self._text.write("".join(map(self._decoder.feed, token_ids)))
            if self._num_tokens == self._max_tokens:
                self._end("length")
        else:
            for token_id in token_ids:
                self._add_one(token_id, logits)
                if self._reason is not None:
                    break
        return self._reason is None

    def _add_one(self, token_id: int, logits: FloatArray | None) -> None:
        self._num_tokens += 1
        piece = self._decoder.feed(token_id)
        if self._recorder is not None and logits is not None:
            self._recorder.add(token_id, piece, logits)
        self._text.write(self._matcher.feed(piece, self._num_tokens))
        if self._matcher.reason is not None:
            self._reason = self._matcher.reason
        elif any(restraint.finished for restraint in self._restraints):
            self._end("constraint")
        elif self._num_tokens == self._max_tokens:
            self._end("length")

    def _end(self, reason: FinishReason) -> None:
        """End the text with the characters that were held back."""
        self._reason = reason
        self._text.write(self._matcher.feed(self._decoder.flush(), self._num_tokens))
        self._text.write(self._matcher.flush())

    def take(self) -> str:
        """Return the text since the last call, and forget it."""
        piece = self._text.getvalue()
        self._text.seek(0)
        self._text.truncate()
        return piece

    def result(self) -> GeneratedText:
        """Return the finished text."""
        return GeneratedText(
            text=self._text.getvalue(),
            num_tokens=self._num_tokens,
            finish_reason=self._reason or "length",
            choices=None if self._recorder is None else tuple(self._recorder.choices),
        )


class _ChoiceRecorder:
    """Records the model's prediction of each token.

    Args:
        tokenizer: Decodes the alternatives.
        num_alternatives: Number of alternatives per token.

    Attributes:
        choices: One per token.
    """

    def __init__(self, tokenizer: Tokenizer, num_alternatives: int) -> None:
        self._tokenizer, self._num_alternatives = tokenizer, num_alternatives
        self.choices: list[TokenChoice] = []

    def add(self, token_id: int, piece: str, logits: FloatArray) -> None:
        """Record a token, the characters it completed, and its logits `[vocab_size]`."""
        log_probs = log_softmax(logits)
        best = np.argsort(-log_probs, kind="stable")[: self._num_alternatives]
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


@dataclass(frozen=True, eq=False)
class _SamplingPlan:
    """The parts that rows of equal settings share.

    Attributes:
        tokenizer: The model's.
        sampling: The settings.
        stop_rule: The conditions that end a text.
        bias: `[vocab_size]`, added to the logits; None: no bias.
        factories: Makers of the restraints of a row, in the order they are applied.
    """

    tokenizer: Tokenizer
    sampling: SamplingConfig
    stop_rule: StopRule
    bias: Float32Array | None
    factories: tuple[RestraintFactory, ...]

    def start(
        self, request: Request, unknown: UnknownPolicy, logprobs: int | None
    ) -> tuple[_TextBuilder, Row]:
        """Return the empty text of a request, and the row that fills it."""
        restraints = [factory.start() for factory in self.factories]
        text = _TextBuilder(self.tokenizer, self.stop_rule, restraints, logprobs)
        row = Row(
            prompt_ids=encode_prompt(self.tokenizer, request.prompt, unknown),
            sampling=self.sampling,
            on_tokens=text.add,
            bias=self.bias,
            sample_index=request.sample_index,
            restraints=restraints,
            needs_logits=logprobs is not None,
        )
        return text, row


def _make_plan(
    tokenizer: Tokenizer, sampling: SamplingConfig, passages: PassageIndex | None
) -> _SamplingPlan:
    """Compile settings for a model; raises `ConfigError` for those that it cannot apply."""
    require_resolved(sampling)
    stop_rule = StopRule(sampling)
    pieces = tokenizer.pieces()
    bias = static_bias(sampling, pieces, tokenizer.banned_ids)
    factories: list[RestraintFactory] = []
    words = WordBias(sampling, pieces)
    if not words.is_empty:
        factories.append(words)
    if sampling.regex is not None:
        banned = [] if bias is None else np.flatnonzero(np.isneginf(bias)).tolist()
        limit = sampling.max_new_tokens
        factories.append(RegexConstraint.compile(sampling.regex, tokenizer, limit, banned))
    if sampling.max_copy is not None:
        factories.append(CopyGuard(_required(passages), tokenizer, sampling.max_copy))
    return _SamplingPlan(tokenizer, sampling, stop_rule, bias, tuple(factories))


def _required(passages: PassageIndex | None) -> PassageIndex:
    if passages is None:
        raise ConfigError(
            "`max_copy` needs the training text. Received: no index of it. "
            "Generate with the bundle that textgen.load returns."
        )
    return passages
