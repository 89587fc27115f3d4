"""Scoring: the cross-entropy of a text under a model, in total and token by token.

Tokenizers and engines are used through their protocols. This module does NOT know how an
engine computes, or where a text or a model comes from.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from textgen.arrays import Float32Array, Float64Array, FloatArray, IntArray, TokenIds
from textgen.config import UnknownPolicy
from textgen.corpora import scoring_windows
from textgen.corpora.windows import MAX_SCORING_LANES, require_tokens
from textgen.engines.base import Engine
from textgen.errors import CorpusError
from textgen.metrics import TextScore
from textgen.sampling import log_softmax
from textgen.tokenizers.base import Tokenizer

# Length of the windows of `score_windows`: the context of nanoGPT's character model.
WINDOW_LENGTH = 256

# Logits of one engine call: at most 32 MB, whatever the vocabulary.
_MAX_LOGITS = 2**23
# Logits whose softmax is computed at once: 512 KB in float64, which stay in the cache.
_MAX_SOFTMAX_VALUES = 2**16
_MAX_BATCH = 32
_MAX_SEQ_LEN = 128

# Called from time to time with the fraction of the text that has been scored, in (0, 1].
OnProgress = Callable[[float], None]


@dataclass(frozen=True, kw_only=True, eq=False)
class EncodedText:
    """A text as token ids, with its length in characters and bytes.

    Attributes:
        token_ids: `[time]`, at least one.
        characters: Number of Unicode code points that the tokens encode.
        bytes: Number of UTF-8 bytes that the tokens encode.
    """

    token_ids: TokenIds
    characters: int
    bytes: int

    def score_from_nats(self, total_nats: float) -> TextScore:
        """Return the score of the text, given its negative log-likelihood in nats."""
        return TextScore(
            total_nats=total_nats,
            tokens=len(self.token_ids),
            characters=self.characters,
            bytes=self.bytes,
        )


def encode_text(tokenizer: Tokenizer, text: str, unknown: UnknownPolicy = "error") -> EncodedText:
    """Encode a text for scoring.

    Args:
        tokenizer: The tokenizer that the model was trained with.
        text: At least one character.
        unknown: What to do with a character outside the vocabulary; with `"skip"` it
            counts neither as a token nor as a character.

    Returns:
        The token ids, and the characters and bytes that a score is divided by.

    Raises:
        CorpusError: No token is left to score.
        TokenizerError: A character is unknown, and `unknown` is `"error"`.
    """
    token_ids = _encode(tokenizer, text, unknown)
    scored = tokenizer.decode(token_ids) if unknown == "skip" else text
    size = len(scored.encode("utf-8", "replace"))
    return EncodedText(token_ids=token_ids, characters=len(scored), bytes=size)


def score_carried(
    engine: Engine, text: EncodedText, start_id: int, on_progress: OnProgress | None = None
) -> TextScore:
    """Score a text in one pass with carried state.

    Args:
        engine: The model.
        text: At least one token.
        start_id: The token from which the first one is predicted.
        on_progress: Called after each window.

    Returns:
        The score. A text of 4,096 tokens or more is read in up to 32 parallel lanes; each but
        the first begins with 256 warmup tokens whose predictions do not count.

    Raises:
        CorpusError: There is no token.
    """
    seq_len = _seq_len(engine.vocab_size, MAX_SCORING_LANES)
    windows = scoring_windows(text.token_ids, start_id, seq_len=seq_len)
    state = engine.initial_state(windows.num_lanes)
    total = 0.0
    for done, (inputs, targets, weights) in enumerate(
        zip(windows.token_ids, windows.targets, windows.weights, strict=True), 1
    ):
        logits, state = engine.forward(inputs, state)
        total += _weighted_nats(logits, targets, weights)
        _report(on_progress, done / len(windows.targets))
    return text.score_from_nats(total)


def score_windows(
    engine: Engine, text: EncodedText, start_id: int, on_progress: OnProgress | None = None
) -> TextScore:
    """Score a text with a context of at most 256 tokens.

    Let the stream be `start_id` followed by the text. Window `k` begins with the initial state,
    reads the tokens `[256 k, 256 k + 256)` of the stream, and predicts the token after each of
    them; the last window may be shorter. So each token of the text is predicted once, from 1 to
    256 tokens. A Transformer with a context of 256 tokens is evaluated in the same way.

    Args:
        engine: The model.
        text: At least one token.
        start_id: The token from which the first one is predicted.
        on_progress: Called after each batch of windows.

    Returns:
        The score.

    Raises:
        CorpusError: There is no token.
    """
    token_ids = text.token_ids
    require_tokens(token_ids)
    stream = np.concatenate([[start_id], token_ids]).astype(np.int32)
    whole = len(token_ids) // WINDOW_LENGTH * WINDOW_LENGTH
    inputs = stream[:whole].reshape(-1, WINDOW_LENGTH)
    targets = stream[1 : whole + 1].reshape(-1, WINDOW_LENGTH)
    batches = [
        (inputs[first : first + _MAX_BATCH], targets[first : first + _MAX_BATCH])
        for first in range(0, len(inputs), _MAX_BATCH)
    ]
    if whole < len(token_ids):
        batches.append((stream[None, whole:-1], stream[None, whole + 1 :]))
    nats = []
    for batch in batches:
        nats.append(_nats_from_initial_state(engine, *batch))
        _report(on_progress, len(nats) / len(batches))
    return text.score_from_nats(math.fsum(nats))


def join_scores(scores: Iterable[TextScore]) -> TextScore:
    """Return the score of several texts as one: the sums of their nats, tokens and lengths."""
    parts = list(scores)
    return TextScore(
        total_nats=math.fsum(part.total_nats for part in parts),
        tokens=sum(part.tokens for part in parts),
        characters=sum(part.characters for part in parts),
        bytes=sum(part.bytes for part in parts),
    )


def surprise(
    engine: Engine, tokenizer: Tokenizer, text: str, unknown: UnknownPolicy = "error"
) -> list[tuple[str, float]]:
    """Return the bits of each piece of a text, in one exact pass with carried state.

    Args:
        engine: The model.
        tokenizer: The tokenizer that the model was trained with.
        text: At least one character.
        unknown: What to do with a character outside the vocabulary.

    Returns:
        Pairs of text and `-log2 p`, in bits: one pair per token, or per group of tokens that
        form a character together. The texts join to the decoded text, and the bits sum to its
        total.

    Raises:
        CorpusError: No token is left to score.
        TokenizerError: A character is unknown, and `unknown` is `"error"`.
    """
    token_ids = _encode(tokenizer, text, unknown)
    decoder = tokenizer.decoder()
    pieces: list[tuple[str, float]] = []
    bits = 0.0
    for token_id, nats in zip(
        token_ids.tolist(), _nats_in_order(engine, token_ids, tokenizer.start_id), strict=True
    ):
        bits += nats / math.log(2)
        if piece := decoder.feed(token_id):
            pieces.append((piece, bits))
            bits = 0.0
    if rest := decoder.flush():
        pieces.append((rest, bits))
    return pieces


def token_nats(logits: FloatArray, targets: IntArray) -> Float64Array:
    """Return `-log softmax(logits)[target]` of each token.

    Args:
        logits: `[time, vocab_size]`, nats.
        targets: `[time]` token ids.

    Returns:
        `[time]`, nats, at least 0.
    """
    step = max(1, _MAX_SOFTMAX_VALUES // logits.shape[-1])
    chosen = [
        np.take_along_axis(
            log_softmax(logits[start : start + step]), targets[start : start + step, None], axis=-1
        )
        for start in range(0, len(logits), step)
    ]
    # 0.0 - x instead of -x, so that a token of probability 1 has 0 nats and not -0.
    return 0.0 - np.concatenate(chosen)[:, 0]


def _weighted_nats(logits: Float32Array, targets: IntArray, weights: Float32Array) -> float:
    """Return the weighted sum of nats over predictions.

    `logits` are `[batch, time, vocab_size]`, `targets` and `weights` `[batch, time]`.
    """
    rows = zip(logits, targets, weights, strict=True)
    return sum(float(token_nats(row, target) @ weight) for row, target, weight in rows)


def _nats_from_initial_state(engine: Engine, inputs: IntArray, targets: IntArray) -> float:
    """Return the sum of nats over rows `[batch, time]`, each from the initial state."""
    seq_len = _seq_len(engine.vocab_size, len(inputs))
    state, total = engine.initial_state(len(inputs)), 0.0
    for start in range(0, inputs.shape[1], seq_len):
        stop = start + seq_len
        logits, state = engine.forward(inputs[:, start:stop], state)
        total += _weighted_nats(logits, targets[:, start:stop], np.ones_like(logits[..., 0]))
    return total


def _nats_in_order(engine: Engine, token_ids: TokenIds, start_id: int) -> Iterator[float]:
    """Yield the nats of each token, `[time]`, in one pass with carried state."""
    inputs = np.concatenate([[start_id], token_ids[:-1]]).astype(np.int32)
    seq_len = _seq_len(engine.vocab_size, 1)
    state = engine.initial_state(1)
    for start in range(0, len(inputs), seq_len):
        stop = start + seq_len
        logits, state = engine.forward(inputs[None, start:stop], state)
        yield from token_nats(logits[0], token_ids[start:stop]).tolist()


def _seq_len(vocab_size: int, batch_size: int) -> int:
    """Return the number of steps per engine call that keeps the logits small."""
    return max(1, min(_MAX_SEQ_LEN, _MAX_LOGITS // (batch_size * vocab_size)))


def _report(on_progress: OnProgress | None, fraction: float) -> None:
    if on_progress is not None:
        on_progress(fraction)


def _encode(tokenizer: Tokenizer, text: str, unknown: UnknownPolicy) -> TokenIds:
    token_ids = tokenizer.encode(text, unknown)
    if len(token_ids) == 0:
        raise CorpusError(
            f"A text to score must have at least 1 token. Received: {len(text)} characters, "
            "0 tokens. Provide a text with characters of the model's vocabulary."
        )
    return token_ids
