"""Temperature, bans, and the filters that keep only some tokens.

Every function takes and returns `[batch, vocab_size]`, leaves its argument as it was,
and treats a logit of -inf as a token that cannot come.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from textgen.errors import ConfigError

Logits = NDArray[np.floating]

# float32 logits know a mass to about 1e-7, so "the mass before equals p" needs this much room.
MASS_TOLERANCE = 1e-6
# A logit of 1e6 divided by less than this would leave the range of float32.
SMALLEST_TEMPERATURE = 1e-30


def ban_tokens(logits: Logits, token_ids: Sequence[int]) -> Logits:
    """Give the tokens `token_ids` a logit of -inf.

    Args:
        logits: `[batch, vocab_size]` float, nats.
        token_ids: Ids in `[0, vocab_size)`.

    Returns:
        `[batch, vocab_size]`, the dtype of `logits`.

    Raises:
        ConfigError: An id lies outside the vocabulary, or no token would be left.
    """
    vocab_size = logits.shape[-1]
    if len(token_ids) >= vocab_size and len(set(token_ids)) == vocab_size:
        raise ConfigError(
            f"At least 1 token must stay allowed. Received: all {vocab_size} ids as banned. "
            "Ban fewer."
        )
    kept = logits.copy()
    for token_id in token_ids:
        if not 0 <= token_id < vocab_size:
            raise ConfigError(
                f"A banned id must lie in [0, {vocab_size}). Received: {token_id}. "
                "Use the tokenizer that the model was trained with."
            )
        kept[:, token_id] = -np.inf
    return kept


def scale_by_temperature(logits: Logits, temperature: float) -> Logits:
    """Divide the logits by `temperature`: below 1 is bolder, above 1 is wilder.

    Args:
        logits: `[batch, vocab_size]` float, nats.
        temperature: Above 0. Below 1e-30 it counts as 1e-30, where only the most
            probable token has any probability left.

    Returns:
        `[batch, vocab_size]`, the dtype of `logits`.

    Raises:
        ConfigError: `temperature` is not a number above 0.
    """
    if not 0 < temperature < np.inf:
        raise ConfigError(
            f"`temperature` must be a number above 0. Received: {temperature}. "
            "For the most probable token take pick_greedy."
        )
    return logits / max(temperature, SMALLEST_TEMPERATURE)


def keep_top_k(logits: Logits, k: int) -> Logits:
    """Keep the `k` most probable tokens.

    The others get a logit of -inf. Exactly `k` survive: ties at the border go to the
    lower id.

    Args:
        logits: `[batch, vocab_size]` float, nats.
        k: At least 1; the size of the vocabulary or more keeps all.

    Returns:
        `[batch, vocab_size]`, the dtype of `logits`.

    Raises:
        ConfigError: `k` is below 1.

    Source: Fan et al. 2018, "Hierarchical Neural Story Generation".
    """
    if k < 1:
        raise ConfigError(f"`top_k` must be at least 1. Received: {k}. Pass --top-k.")
    cut = logits.shape[-1] - k
    if cut <= 0:
        return logits
    border = np.partition(logits, cut, axis=-1)[:, cut, None]
    return _keep_largest(logits, border, np.full((len(logits), 1), k))


def keep_top_p(logits: Logits, p: float) -> Logits:
    """Keep the smallest set of tokens whose probability mass reaches `p`.

    The others get a logit of -inf. The most probable token always survives; ties at
    the border go to the lower id.

    Args:
        logits: `[batch, vocab_size]` float, nats, after temperature.
        p: Target mass, `0 < p <= 1`; 1 keeps all.

    Returns:
        `[batch, vocab_size]`, the dtype of `logits`.

    Raises:
        ConfigError: `p` lies outside `(0, 1]`.

    A token is kept while the mass *before* it is below `p`: testing the mass that
    includes it keeps one too many when they are equal. "Equal" has a relative room of
    1e-6, the rounding of float32 logits.

    Source: Holtzman et al. 2020, "The Curious Case of Neural Text Degeneration".
    """
    if not 0 < p <= 1:
        raise ConfigError(f"`top_p` must lie in (0, 1]. Received: {p}. Pass --top-p.")
    if p == 1:
        return logits
    descending = np.sort(logits, axis=-1)[:, ::-1]
    probs = np.exp(descending - descending[:, :1])
    mass = probs.cumsum(axis=-1, dtype=np.float64)
    reached = mass - probs >= p * (1 - MASS_TOLERANCE) * mass[:, -1:]
    reached[:, 0] = False
    border = np.where(reached, np.inf, descending).min(axis=-1, keepdims=True)
    return _keep_largest(logits, border, (~reached).sum(axis=-1, keepdims=True))


def _keep_largest(
    logits: Logits, border: NDArray[np.floating], counts: NDArray[np.integer]
) -> Logits:
    """Keep `counts` tokens a row, `border` being the smallest logit that survives."""
    kept = logits >= border
    if np.count_nonzero(kept) > counts.sum():
        above = logits > border
        room = counts - above.sum(axis=-1, keepdims=True)
        kept = above | (kept & ((kept & ~above).cumsum(axis=-1) <= room))
    return np.where(kept, logits, logits.dtype.type(-np.inf))
