"""Against repetition: what was written lowers the logits of what may come.

Every function takes `[batch, vocab_size]` logits and `[batch, window]` history, the
latest tokens of each row, prompt and written, right-aligned, -1 where there is none
yet. It returns `[batch, vocab_size]`, leaves its arguments as they were, and treats a
logit of -inf as a token that cannot come.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from textgen.errors import ConfigError
from textgen.sampling.filters import Logits

History = NDArray[np.int32]

# "None yet" in a history.
NO_TOKEN = -1
# A token this far below the others has no probability left, and a logit this far down,
# divided by the smallest temperature, stays within float32.
LARGEST_PENALTY = 1e6


def penalize_repetition(logits: Logits, history: History, penalty: float) -> Logits:
    """Divide the positive logits of tokens in `history` by `penalty`, multiply the others.

    Each token is treated once, however often it is there.

    Args:
        logits: `[batch, vocab_size]` float, nats.
        history: `[batch, window]` ids in `[0, vocab_size)`, or -1 for none.
        penalty: Above 0; above 1 discourages, below 1 encourages. Beyond 1e6 it counts
            as 1e6, below 1e-6 as 1e-6.

    Returns:
        `[batch, vocab_size]`, the dtype of `logits`.

    Raises:
        ConfigError: `penalty` is not a number above 0.

    Source: Keskar et al. 2019, "CTRL: A Conditional Transformer Language Model for
    Controllable Generation".
    """
    if not 0 < penalty < np.inf:
        raise ConfigError(
            f"`repetition_penalty` must be a number above 0. Received: {penalty}. "
            "Pass --repetition-penalty."
        )
    factor = min(max(penalty, 1 / LARGEST_PENALTY), LARGEST_PENALTY)
    rows, token_ids = _occurrences(history)
    seen = logits[rows, token_ids]
    penalized = logits.copy()
    penalized[rows, token_ids] = np.where(seen < 0, seen * factor, seen / factor)
    return penalized


def penalize_presence(logits: Logits, history: History, alpha: float) -> Logits:
    """Subtract `alpha` from the logit of each token in `history`, once.

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
    if not math.isfinite(alpha):
        raise ConfigError(
            f"`presence_penalty` must be a number. Received: {alpha}. Pass --presence-penalty."
        )
    rows, token_ids = _occurrences(history)
    penalized = logits.copy()
    penalized[rows, token_ids] = logits[rows, token_ids] - _bounded(alpha)
    return penalized


def penalize_frequency(logits: Logits, history: History, alpha: float) -> Logits:
    """Subtract `alpha` from the logit of a token for each time it is in `history`.

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
    if not math.isfinite(alpha):
        raise ConfigError(
            f"`frequency_penalty` must be a number. Received: {alpha}. Pass --frequency-penalty."
        )
    rows, token_ids = _occurrences(history)
    places = rows * logits.shape[-1] + token_ids
    counts = np.bincount(places, minlength=logits.size).reshape(logits.shape)
    return logits - _bounded(alpha * counts).astype(logits.dtype)


def forbid_repeated_ngrams(logits: Logits, history: History, n: int) -> Logits:
    """Give -inf to each token that would complete an n-gram already in `history`.

    Args:
        logits: `[batch, vocab_size]` float, nats.
        history: `[batch, window]` ids in `[0, vocab_size)`, or -1 for none.
        n: Length of the n-gram, at least 1; 1 forbids every token in `history`. While
            a row holds fewer than `n` tokens nothing is forbidden.

    Returns:
        `[batch, vocab_size]`, the dtype of `logits`. A row in which no token would be
        left stays as it was.

    Raises:
        ConfigError: `n` is below 1.

    Source: Paulus et al. 2017, "A Deep Reinforced Model for Abstractive Summarization".
    """
    if n < 1:
        raise ConfigError(
            f"`no_repeat_ngram` must be at least 1. Received: {n}. Pass --no-repeat-ngram."
        )
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
    logits: Logits,
    history: History,
    multiplier: float,
    base: float,
    allowed_length: int,
    breakers: Sequence[int] = (),
) -> Logits:
    """Penalize the tokens that would prolong a repetition, the more the longer it is (DRY).

    Where the end of `history` stands in it once more, `length` tokens long, the token
    that followed there loses `multiplier * base ** (length - allowed_length)`, if
    `length >= allowed_length`. Of several places before one token the longest counts.

    Args:
        logits: `[batch, vocab_size]` float, nats.
        history: `[batch, window]` ids in `[0, vocab_size)`, or -1 for none.
        multiplier: Penalty of the shortest match, nats, above 0; the author's is 0.8.
        base: Growth a token of the match, above 0; the author's is 1.75.
        allowed_length: Tokens of the shortest match, at least 1; the author's is 2.
        breakers: Ids that no match runs across and that are never penalized.

    Returns:
        `[batch, vocab_size]`, the dtype of `logits`.

    Raises:
        ConfigError: `multiplier`, `base` or `allowed_length` lies outside its range.

    Penalties end at 1e6, so nothing overflows; the author's end at 50 matched tokens.

    Source: p-e-w 2024, "DRY: A modern repetition penalty that reliably prevents
    looping", oobabooga/text-generation-webui, pull request 5677.
    """
    _check_dry(multiplier, base, allowed_length)
    longest = allowed_length + _growing_tokens(multiplier, base, history.shape[-1])
    lengths = _match_lengths(history, longest, breakers)
    rows, token_ids, excess = _prolongations(history, lengths, allowed_length, logits.shape)
    penalized = logits.copy()
    penalized[rows, token_ids] -= _dry_penalties(excess, multiplier, base)
    return penalized


def _check_dry(multiplier: float, base: float, allowed_length: int) -> None:
    for name, value, limit, inside in (
        ("multiplier", multiplier, "a number above 0", 0 < multiplier < np.inf),
        ("base", base, "a number above 0", 0 < base < np.inf),
        ("allowed_length", allowed_length, "at least 1", allowed_length >= 1),
    ):
        if not inside:
            raise ConfigError(
                f"`dry_{name}` must be {limit}. Received: {value}. "
                f"Pass --dry-{name.replace('_', '-')}."
            )


def _growing_tokens(multiplier: float, base: float, window: int) -> int:
    """How many tokens above the allowed length change the penalty."""
    if base < 1:
        return window
    if base == 1:
        return 0
    return min(window, math.ceil(_log_room(multiplier) / math.log(base)))


def _dry_penalties(
    excess: NDArray[np.int64], multiplier: float, base: float
) -> NDArray[np.float64]:
    log_growth = np.minimum(excess * math.log(base), _log_room(multiplier))
    return _bounded(multiplier * np.exp(log_growth))


def _log_room(multiplier: float) -> float:
    """The logarithm of the growth at which a penalty is as large as it may be."""
    return max(0.0, math.log(LARGEST_PENALTY) - math.log(multiplier))


def _match_lengths(history: History, longest: int, breakers: Sequence[int]) -> NDArray[np.int64]:
    """How many tokens up to each place equal those at the end of `history`.

    `[batch, window - 1]`; 0 where a breaker comes next. All places grow by one token at
    a time and drop out when they differ, so the loop runs once a token of the longest
    match, `longest` at most.
    """
    window = history.shape[-1]
    walls = np.isin(history, (NO_TOKEN, *breakers))
    lengths = np.zeros((len(history), max(window - 1, 0)), dtype=np.int64)
    rows, places = (~walls[:, 1:]).nonzero()
    for back in range(min(longest, window - 1)):
        inside = places >= back
        rows, places = rows[inside], places[inside]
        last = window - 1 - back
        same = (history[rows, places - back] == history[rows, last]) & ~walls[rows, last]
        rows, places = rows[same], places[same]
        if not len(rows):
            break
        lengths[rows, places] = back + 1
    return lengths


def _prolongations(
    history: History, lengths: NDArray[np.int64], allowed_length: int, shape: tuple[int, ...]
) -> tuple[NDArray[np.intp], History, NDArray[np.int64]]:
    """Row and id of each token after a match, and its longest match above the allowed."""
    rows, places = (lengths >= allowed_length).nonzero()
    token_ids = history[rows, places + 1]
    longest = np.zeros(shape, dtype=np.int64)
    np.maximum.at(longest, (rows, token_ids), lengths[rows, places])
    return rows, token_ids, longest[rows, token_ids] - allowed_length


def _bounded(penalties: Any) -> Any:
    """A number or an array, within what float32 logits can bear."""
    return np.clip(penalties, -LARGEST_PENALTY, LARGEST_PENALTY)


def _occurrences(history: History) -> tuple[NDArray[np.intp], History]:
    """The row and the id of every token in `history`."""
    rows, places = (history != NO_TOKEN).nonzero()
    return rows, history[rows, places]
