"""Penalties against repetition: earlier tokens lower the logits of the next one.

Every function takes `[batch, vocab_size]` logits and a `[batch, window]` history: the latest
tokens of each row, prompt included, right-aligned, -1 before the first. It returns
`[batch, vocab_size]`, does not modify its arguments, and treats a logit of -inf as a token of
probability 0.
"""

import math
from collections.abc import Sequence

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from textgen.arrays import Float64Array, FloatArray, Int32Array, Int64Array
from textgen.sampling.checks import check_sampling

# Pads a history before the first token.
NO_TOKEN = -1
# A token whose logit is this far below the others has no probability left, and a logit this low
# stays within float32 when it is divided by the lowest temperature.
MAX_PENALTY = 1e6


def penalize_repetition(logits: FloatArray, history: Int32Array, penalty: float) -> FloatArray:
    """Divide the positive logits of tokens in `history` by `penalty`, multiply the others.

    Each token is penalized once, however often it occurs.

    Args:
        logits: `[batch, vocab_size]` float, nats.
        history: `[batch, window]` ids in `[0, vocab_size)`, or -1 for none.
        penalty: Greater than 0; above 1 discourages, below 1 encourages. Clipped to
            `[1e-6, 1e6]`.

    Returns:
        `[batch, vocab_size]`, the dtype of `logits`.

    Raises:
        ConfigError: `penalty` is not a number greater than 0.

    Source: Keskar et al. 2019, "CTRL: A Conditional Transformer Language Model for Controllable
    Generation".
    """
    check_sampling("repetition_penalty", penalty)
    factor = min(max(penalty, 1 / MAX_PENALTY), MAX_PENALTY)
    rows, token_ids = _occurrences(history)
    seen = logits[rows, token_ids]
    penalized = logits.copy()
    penalized[rows, token_ids] = np.where(seen < 0, seen * factor, seen / factor)
    return penalized


def penalize_presence(logits: FloatArray, history: Int32Array, alpha: float) -> FloatArray:
    """Subtract `alpha` once from the logit of each token in `history`.

    Args:
        logits: `[batch, vocab_size]` float, nats.
        history: `[batch, window]` ids in `[0, vocab_size)`, or -1 for none.
        alpha: Nats; below 0 encourages. OpenAI allows `[-2, 2]`.

    Returns:
        `[batch, vocab_size]`, the dtype of `logits`.

    Raises:
        ConfigError: `alpha` is not a finite number.

    Source: OpenAI API reference, `presence_penalty`.
    """
    check_sampling("presence_penalty", alpha)
    rows, token_ids = _occurrences(history)
    penalized = logits.copy()
    penalized[rows, token_ids] = logits[rows, token_ids] - _clipped(alpha)
    return penalized


def penalize_frequency(logits: FloatArray, history: Int32Array, alpha: float) -> FloatArray:
    """Subtract `alpha` from the logit of a token once per occurrence in `history`.

    Args:
        logits: `[batch, vocab_size]` float, nats.
        history: `[batch, window]` ids in `[0, vocab_size)`, or -1 for none.
        alpha: Nats; below 0 encourages. OpenAI allows `[-2, 2]`.

    Returns:
        `[batch, vocab_size]`, the dtype of `logits`.

    Raises:
        ConfigError: `alpha` is not a finite number.

    Source: OpenAI API reference, `frequency_penalty`.
    """
    check_sampling("frequency_penalty", alpha)
    rows, token_ids = _occurrences(history)
    places = rows * logits.shape[-1] + token_ids
    counts = np.bincount(places, minlength=logits.size).reshape(logits.shape)
    return logits - _clipped(alpha * counts).astype(logits.dtype)


def forbid_repeated_ngrams(logits: FloatArray, history: Int32Array, n: int) -> FloatArray:
    """Set the logit of each token that would repeat an n-gram of `history` to -inf.

    Args:
        logits: `[batch, vocab_size]` float, nats.
        history: `[batch, window]` ids in `[0, vocab_size)`, or -1 for none.
        n: Length of the n-gram, at least 1; 1 forbids every token in `history`. Nothing is
            forbidden in a row with fewer than `n` tokens.

    Returns:
        `[batch, vocab_size]`, the dtype of `logits`. A row is unchanged if no token would be
        left.

    Raises:
        ConfigError: `n` is less than 1.

    Source: Paulus et al. 2017, "A Deep Reinforced Model for Abstractive Summarization".
    """
    check_sampling("no_repeat_ngram", n)
    window = history.shape[-1]
    if window < n:
        return logits
    ngrams = sliding_window_view(history, n, axis=-1)
    prefix = history[:, None, window - n + 1 :]
    repeats = (ngrams[..., :-1] == prefix).all(axis=-1) & (ngrams != NO_TOKEN).all(axis=-1)
    rows, places = repeats.nonzero()
    forbidden = logits.copy()
    forbidden[rows, ngrams[rows, places, -1]] = -np.inf
    possible = np.isfinite(forbidden).any(axis=-1, keepdims=True)
    return np.where(possible, forbidden, logits)


def penalize_dry(
    logits: FloatArray,
    history: Int32Array,
    multiplier: float,
    base: float,
    allowed_length: int,
    breakers: Sequence[int] = (),
) -> FloatArray:
    """Penalize the tokens that would extend a repetition, more the longer it is (DRY).

    If the last `length` tokens of `history` also occur earlier in it, and
    `length >= allowed_length`, `multiplier * base ** (length - allowed_length)` is subtracted from
    the logit of the token that followed them there. If a token followed several such matches, the
    longest counts.

    Args:
        logits: `[batch, vocab_size]` float, nats.
        history: `[batch, window]` ids in `[0, vocab_size)`, or -1 for none.
        multiplier: Penalty of the shortest match, nats, greater than 0; 0.8 in the source.
        base: Growth per token of the match, greater than 0; 1.75 in the source.
        allowed_length: Tokens of the shortest match, at least 1; 2 in the source.
        breakers: Ids that end a match, and are never penalized themselves.

    Returns:
        `[batch, vocab_size]`, the dtype of `logits`.

    Raises:
        ConfigError: `multiplier`, `base` or `allowed_length` is out of range.

    A penalty is at most 1e6, so nothing overflows; in the source, a match has at most 50 tokens.

    Source: p-e-w 2024, "DRY: A modern repetition penalty that reliably prevents looping",
    oobabooga/text-generation-webui, pull request 5677.
    """
    check_sampling("dry_multiplier", multiplier)
    check_sampling("dry_base", base)
    check_sampling("dry_allowed_length", allowed_length)
    max_length = allowed_length + _max_excess(multiplier, base, history.shape[-1])
    lengths = _match_lengths(history, max_length, breakers)
    rows, token_ids, excess = _extensions(history, lengths, allowed_length, logits.shape)
    penalized = logits.copy()
    penalized[rows, token_ids] -= _dry_penalties(excess, multiplier, base)
    return penalized


def _max_excess(multiplier: float, base: float, window: int) -> int:
    """Return the number of tokens above the allowed length at which the penalty stops growing."""
    if base < 1:
        return window
    if base == 1:
        return 0
    return min(window, math.ceil(_max_log_growth(multiplier) / math.log(base)))


def _dry_penalties(excess: Int64Array, multiplier: float, base: float) -> Float64Array:
    log_growth = np.minimum(excess * math.log(base), _max_log_growth(multiplier))
    return _clipped(multiplier * np.exp(log_growth))


def _max_log_growth(multiplier: float) -> float:
    """Return the logarithm of the growth at which a penalty reaches its maximum."""
    return max(0.0, math.log(MAX_PENALTY) - math.log(multiplier))


def _match_lengths(history: Int32Array, max_length: int, breakers: Sequence[int]) -> Int64Array:
    """Return how many tokens up to each place match the end of `history`.

    `[batch, window - 1]`; 0 where a breaker is next. All matches grow by one token at a time, and
    drop out at the first difference, so the loop runs once per token of the longest match, at
    most `max_length` times.
    """
    window = history.shape[-1]
    is_breaker = np.isin(history, (NO_TOKEN, *breakers))
    lengths = np.zeros((len(history), max(window - 1, 0)), dtype=np.int64)
    rows, places = (~is_breaker[:, 1:]).nonzero()
    for back in range(min(max_length, window - 1)):
        inside = places >= back
        rows, places = rows[inside], places[inside]
        last = window - 1 - back
        same = (history[rows, places - back] == history[rows, last]) & ~is_breaker[rows, last]
        rows, places = rows[same], places[same]
        if not len(rows):
            break
        lengths[rows, places] = back + 1
    return lengths


def _extensions(
    history: Int32Array, lengths: Int64Array, allowed_length: int, shape: tuple[int, ...]
) -> tuple[NDArray[np.intp], Int32Array, Int64Array]:
    """Return row and id of each token after a match, and the match's length above the allowed."""
    rows, places = (lengths >= allowed_length).nonzero()
    token_ids = history[rows, places + 1]
    longest = np.zeros(shape, dtype=np.int64)
    np.maximum.at(longest, (rows, token_ids), lengths[rows, places])
    return rows, token_ids, longest[rows, token_ids] - allowed_length


def _clipped(penalties: FloatArray | float) -> Float64Array:
    """Return penalties clipped to `MAX_PENALTY` in both directions."""
    return np.clip(np.asarray(penalties, np.float64), -MAX_PENALTY, MAX_PENALTY)


def _occurrences(history: Int32Array) -> tuple[NDArray[np.intp], Int32Array]:
    """Return row and id of every token in `history`."""
    rows, places = (history != NO_TOKEN).nonzero()
    return rows, history[rows, places]
