"""What a model pays for a text: in total, and token by token.

It knows tokenizers and engines by their protocols. It does NOT know how an engine
computes, nor where a text or a model comes from.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from textgen.config import UnknownPolicy
from textgen.corpora import scoring_windows
from textgen.corpora.windows import MAX_SCORING_LANES, require_tokens
from textgen.engines.base import Engine
from textgen.errors import CorpusError
from textgen.metrics import TextScore
from textgen.tokenizers.base import Tokenizer

# A window's logits hold at most this many values, 32 MB, whatever the vocabulary.
LOGITS_VALUES = 2**23
# What `score_windows` cuts a text into, as nanoGPT's recipes for characters do.
WINDOW = 256
_WINDOWS_AT_ONCE = 32


@dataclass(frozen=True, kw_only=True, eq=False)
class EncodedText:
    """A text as a model reads it, and how much text that is.

    Attributes:
        token_ids: `[time]`, at least one.
        characters: Number of code points that the tokens stand for.
        bytes: Number of UTF-8 bytes that they stand for.
    """

    token_ids: NDArray[np.int32]
    characters: int
    bytes: int

    def score_from_nats(self, total_nats: float) -> TextScore:
        """Return the score of the text if it costs so much."""
        return TextScore(
            total_nats=total_nats,
            tokens=len(self.token_ids),
            characters=self.characters,
            bytes=self.bytes,
        )


# is told the share of a text that is scored, 0 to 1, from time to time
OnProgress = Callable[[float], None]


def unwatched(_: float) -> None:
    """Take no notice of how far scoring is."""


def encode_text(tokenizer: Tokenizer, text: str, unknown: UnknownPolicy = "error") -> EncodedText:
    """Return a text as tokens that can be scored.

    Args:
        tokenizer: The one that the model was trained with.
        text: At least one character.
        unknown: What to do with a character outside the vocabulary; under `"skip"` it
            counts neither as a token nor as a character.

    Returns:
        The tokens, and what their cost is divided by.

    Raises:
        CorpusError: No token is left to score.
        TokenizerError: A character is unknown, and `unknown` is `"error"`.
    """
    token_ids = _encode(tokenizer, text, unknown)
    scored = tokenizer.decode(token_ids) if unknown == "skip" else text
    size = len(scored.encode("utf-8", "replace"))
    return EncodedText(token_ids=token_ids, characters=len(scored), bytes=size)


def score_carried(
    engine: Engine, text: EncodedText, start_id: int, on_progress: OnProgress = unwatched
) -> TextScore:
    """Return what the model pays for a text, read in one pass with carried state.

    Args:
        engine: The model.
        text: At least one token.
        start_id: What the first token is predicted from.
        on_progress: Told the share that is done, a window at a time.

    Returns:
        Total nats and what they are divided by. A long text is read in up to 32 lanes;
        each but the first begins with 256 tokens that warm the state up and do not count.

    Raises:
        CorpusError: There is no token.
    """
    windows = scoring_windows(
        text.token_ids, start_id, seq_len=_window_length(engine.vocab_size, MAX_SCORING_LANES)
    )
    state = engine.initial_state(windows.token_ids.shape[1])
    total = 0.0
    for done, (inputs, targets, weights) in enumerate(
        zip(windows.token_ids, windows.targets, windows.weights, strict=True), 1
    ):
        logits, state = engine.forward(inputs, state)
        total += _weighted_nats(logits, targets, weights)
        on_progress(done / len(windows.targets))
    return text.score_from_nats(total)


def score_windows(
    engine: Engine, text: EncodedText, start_id: int, on_progress: OnProgress = unwatched
) -> TextScore:
    """Return what the model pays for a text of which it sees at most 256 tokens at a time.

    `start_id` and the text behind it make one stream of tokens. Window `k` begins with the
    initial state, reads the tokens `[256 k, 256 k + 256)` of the stream, and predicts those
    one further on; the last is as short as the text leaves it. So each token of the text is
    predicted once, from 1 to 256 tokens, and the first from `start_id` alone. A Transformer
    with a context of 256 tokens is evaluated likewise.

    Args:
        engine: The model.
        text: At least one token.
        start_id: What the first token is predicted from.
        on_progress: Told the share that is done, a few windows at a time.

    Returns:
        Total nats and what they are divided by.

    Raises:
        CorpusError: There is no token.
    """
    token_ids = text.token_ids
    require_tokens(token_ids)
    stream = np.concatenate([[start_id], token_ids]).astype(np.int32)
    whole = len(token_ids) // WINDOW * WINDOW
    inputs, targets = stream[:whole].reshape(-1, WINDOW), stream[1 : whole + 1].reshape(-1, WINDOW)
    groups = [
        (inputs[first : first + _WINDOWS_AT_ONCE], targets[first : first + _WINDOWS_AT_ONCE])
        for first in range(0, len(inputs), _WINDOWS_AT_ONCE)
    ]
    if whole < len(token_ids):
        groups.append((stream[None, whole:-1], stream[None, whole + 1 :]))
    costs = []
    for group in groups:
        costs.append(_nats_from_the_start(engine, *group))
        on_progress(len(costs) / len(groups))
    return text.score_from_nats(math.fsum(costs))


def join_scores(scores: Iterable[TextScore]) -> TextScore:
    """Return the score of several texts together: sums, of which every figure is made."""
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
    """Return what each piece of `text` cost, in one exact pass from left to right.

    Args:
        engine: The model.
        tokenizer: The one it was trained with.
        text: At least one character.
        unknown: What to do with a character outside the vocabulary.

    Returns:
        Pairs of text and `-log2 p`, in bits: one a token, or one for the neighbouring
        tokens that a character is spread over. The texts join to the decoded text, the
        bits sum to its total.

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


def token_nats(logits: NDArray[np.floating], targets: NDArray[np.integer]) -> NDArray[np.float64]:
    """Return `-log softmax(logits)[target]`, computed in float64.

    Args:
        logits: `[..., vocab_size]`, nats.
        targets: `[...]` token ids.

    Returns:
        `[...]` nats, at least 0.
    """
    shifted = logits.astype(np.float64)
    shifted -= shifted.max(axis=-1, keepdims=True)
    chosen = np.take_along_axis(shifted, targets[..., None], axis=-1)[..., 0]
    return np.log(np.exp(shifted, out=shifted).sum(axis=-1)) - chosen


def _weighted_nats(
    logits: NDArray[np.float32], targets: NDArray[np.int32], weights: NDArray[np.float32]
) -> float:
    """Sum over a window lane by lane, so that float64 holds one lane's logits at a time."""
    lanes = zip(logits, targets, weights, strict=True)
    return sum(float(token_nats(lane, target) @ weight) for lane, target, weight in lanes)


def _nats_from_the_start(
    engine: Engine, inputs: NDArray[np.int32], targets: NDArray[np.int32]
) -> float:
    """Sum over rows `[batch, time]`, each of which begins with the initial state."""
    length = _window_length(engine.vocab_size, len(inputs))
    state, total = engine.initial_state(len(inputs)), 0.0
    for start in range(0, inputs.shape[1], length):
        stop = start + length
        logits, state = engine.forward(inputs[:, start:stop], state)
        total += _weighted_nats(logits, targets[:, start:stop], np.ones_like(logits[..., 0]))
    return total


def _nats_in_order(engine: Engine, token_ids: NDArray[np.int32], start_id: int) -> Iterator[float]:
    inputs = np.concatenate([[start_id], token_ids[:-1]]).astype(np.int32)
    length = _window_length(engine.vocab_size, 1)
    state = engine.initial_state(1)
    for start in range(0, len(inputs), length):
        stop = start + length
        logits, state = engine.forward(inputs[None, start:stop], state)
        yield from token_nats(logits[0], token_ids[start:stop]).tolist()


def _window_length(vocab_size: int, lanes: int) -> int:
    return max(1, min(128, LOGITS_VALUES // (lanes * vocab_size)))


def _encode(tokenizer: Tokenizer, text: str, unknown: UnknownPolicy) -> NDArray[np.int32]:
    token_ids = tokenizer.encode(text, unknown)
    if len(token_ids) == 0:
        raise CorpusError(
            f"A text to score must have at least 1 token. Received: {len(text)} characters, "
            "0 tokens. Give a text in the characters of the model's vocabulary."
        )
    return token_ids
