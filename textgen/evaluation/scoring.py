"""What a model pays for a text: in total, and token by token.

It knows tokenizers and engines by their protocols. It does NOT know how an engine
computes, nor where a text or a model comes from.
"""

import math
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from textgen.config import UnknownPolicy
from textgen.corpora import scoring_windows
from textgen.corpora.windows import SCORING_LANES
from textgen.errors import CorpusError
from textgen.generation.engine import Engine
from textgen.metrics import TextScore
from textgen.tokenizers.base import Tokenizer

# A window's logits hold at most this many values, 32 MB, whatever the vocabulary.
LOGITS_VALUES = 2**23


def score_text(
    engine: Engine, tokenizer: Tokenizer, text: str, unknown: UnknownPolicy = "error"
) -> TextScore:
    """Return what the model pays for `text`, predicted from left to right.

    Args:
        engine: The model.
        tokenizer: The one it was trained with.
        text: At least one character.
        unknown: What to do with a character outside the vocabulary; under `"skip"` it
            counts neither as a token nor as a character.

    Returns:
        Total nats and what they are divided by.

    Raises:
        CorpusError: No token is left to score.
        TokenizerError: A character is unknown, and `unknown` is `"error"`.
    """
    token_ids = _encode(tokenizer, text, unknown)
    scored = tokenizer.decode(token_ids) if unknown == "skip" else text
    size = len(scored.encode("utf-8", "replace"))
    return score_tokens(engine, token_ids, tokenizer.start_id, len(scored), size)


def score_tokens(
    engine: Engine,
    token_ids: NDArray[np.integer],
    start_id: int,
    characters: int,
    bytes_: int,
) -> TextScore:
    """Return what the model pays for a text given as tokens.

    Args:
        engine: The model.
        token_ids: `[time]`, at least one.
        start_id: What the first token is predicted from.
        characters: Number of code points that the tokens stand for.
        bytes_: Number of UTF-8 bytes that they stand for.

    Returns:
        Total nats and what they are divided by. A long text is read in up to 32 lanes;
        each but the first begins with 256 tokens that warm the state up and do not count.

    Raises:
        CorpusError: `token_ids` is empty.
    """
    windows = scoring_windows(
        token_ids, start_id, seq_len=_window_length(engine.vocab_size, SCORING_LANES)
    )
    state = engine.initial_state(windows.token_ids.shape[1])
    total = 0.0
    for inputs, targets, weights in zip(
        windows.token_ids, windows.targets, windows.weights, strict=True
    ):
        logits, state = engine.forward(inputs, state)
        total += _weighted_nats(logits, targets, weights)
    return TextScore(total_nats=total, tokens=len(token_ids), characters=characters, bytes=bytes_)


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
