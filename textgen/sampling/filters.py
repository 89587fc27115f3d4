"""Temperature, bans, and the filters that keep only some tokens.

Every function takes and returns `[batch, vocab_size]`, leaves its argument as it was,
and treats a logit of -inf as a token that cannot come.
"""

import numpy as np
from numpy.typing import NDArray

from textgen.errors import ConfigError

Logits = NDArray[np.floating]

# float32 logits know a mass to about 1e-7, so "the mass before equals p" needs this much room.
MASS_TOLERANCE = 1e-6
# A logit of 1e6 divided by less than this would leave the range of float32.
SMALLEST_TEMPERATURE = 1e-30


def add_bias(logits: Logits, bias: NDArray[np.float32]) -> Logits:
    """Add `bias`; -inf bans a token.

    Args:
        logits: `[batch, vocab_size]` float, nats.
        bias: `[vocab_size]`, nats.

    Returns:
        `[batch, vocab_size]`, the dtype of `logits`.

    Raises:
        ConfigError: No token would be left, or the sizes differ.
    """
    if bias.shape != logits.shape[-1:]:
        raise ConfigError(
            f"`bias` must have {logits.shape[-1]} values. Received: {bias.shape}. "
            "Use the tokenizer that the model was trained with."
        )
    if np.isneginf(bias).all():
        raise ConfigError(
            f"At least 1 token must stay allowed. Received: all {len(bias)} as banned. Ban fewer."
        )
    return logits + bias.astype(logits.dtype)


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
    largest = float(np.finfo(logits.dtype).max)
    return logits / min(max(temperature, SMALLEST_TEMPERATURE), largest)


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


def keep_min_p(logits: Logits, p: float) -> Logits:
    """Keep the tokens at least `p` times as probable as the most probable one.

    The others get a logit of -inf. The most probable token always survives; tokens of
    one probability survive or go together.

    Args:
        logits: `[batch, vocab_size]` float, nats, after temperature.
        p: Smallest ratio to the most probable token, `0 < p <= 1`.

    Returns:
        `[batch, vocab_size]`, the dtype of `logits`.

    Raises:
        ConfigError: `p` lies outside `(0, 1]`.

    A ratio of exactly `p` is kept, with a relative room of 1e-6, the rounding of
    float32 logits. No probabilities are needed: their ratio is a difference of logits.

    Source: Nguyen et al. 2024, "Turning Up the Heat: Min-p Sampling for Creative and
    Coherent LLM Outputs".
    """
    if not 0 < p <= 1:
        raise ConfigError(f"`min_p` must lie in (0, 1]. Received: {p}. Pass --min-p.")
    log_ratios = logits - logits.max(axis=-1, keepdims=True)
    return _keep(logits, log_ratios >= np.log(p) - MASS_TOLERANCE)


def keep_typical(logits: Logits, p: float) -> Logits:
    """Keep the smallest set of typical tokens whose probability mass reaches `p`.

    A token is typical when its surprise is near the entropy of its row: a very probable
    token can go. The others get a logit of -inf. The most typical token always
    survives; among equally typical ones at the border the lower ids do.

    Args:
        logits: `[batch, vocab_size]` float, nats, after temperature.
        p: Target mass, `0 < p <= 1`; 1 keeps all.

    Returns:
        `[batch, vocab_size]`, the dtype of `logits`.

    Raises:
        ConfigError: `p` lies outside `(0, 1]`.

    As in `keep_top_p`, a token is kept while the mass of the more typical ones is below
    `p`, with the same room for rounding.

    Source: Meister et al. 2023, "Locally Typical Sampling".
    """
    if not 0 < p <= 1:
        raise ConfigError(f"`typical_p` must lie in (0, 1]. Received: {p}. Pass --typical-p.")
    if p == 1:
        return logits
    log_probs = log_softmax(logits)
    probs = np.exp(log_probs)
    # a token that cannot come has no part in the entropy: 0 * -inf would be nan
    entropy = -(probs * np.where(probs > 0, log_probs, 0)).sum(axis=-1, keepdims=True)
    order = np.abs(log_probs + entropy).argsort(axis=-1, kind="stable")
    sorted_probs = np.take_along_axis(probs, order, axis=-1)
    mass_before = sorted_probs.cumsum(axis=-1) - sorted_probs
    mass_before[:, 0] = 0
    kept = np.empty(logits.shape, dtype=bool)
    np.put_along_axis(kept, order, mass_before < p * (1 - MASS_TOLERANCE), axis=-1)
    return _keep(logits, kept)


def keep_top_n_sigma(logits: Logits, n: float) -> Logits:
    """Keep the tokens within `n` standard deviations of the largest logit.

    The others get a logit of -inf. The most probable token always survives; tokens of
    one logit survive or go together. Temperature does not change which ones survive.

    Args:
        logits: `[batch, vocab_size]` float, nats.
        n: Above 0, in standard deviations; the paper takes 1.

    Returns:
        `[batch, vocab_size]`, the dtype of `logits`.

    Raises:
        ConfigError: `n` is not a number above 0.

    The standard deviation is that of the row's finite logits as a whole population:
    divided by their number, not by one less. A logit on the border is kept, with a
    relative room of 1e-6.

    Source: Tang et al. 2024, "Top-nσ: Not All Logits Are You Need".
    """
    if not 0 < n < np.inf:
        raise ConfigError(
            f"`top_n_sigma` must be a number above 0. Received: {n}. Pass --top-n-sigma."
        )
    below_top = (logits.max(axis=-1, keepdims=True) - logits).astype(np.float64)
    sigma = below_top.std(axis=-1, keepdims=True, where=np.isfinite(below_top))
    return _keep(logits, below_top <= n * sigma * (1 + MASS_TOLERANCE))


def exclude_top_choices(
    logits: Logits, uniforms: NDArray[np.float64], probability: float, threshold: float
) -> Logits:
    """Now and then remove the likely tokens, all but the least likely of them (XTC).

    In a row whose uniform is below `probability`, the tokens with a probability of
    `threshold` or more get a logit of -inf, except the least probable of these; the
    lower id among equals stays. A row with fewer than two such tokens is left alone.

    Args:
        logits: `[batch, vocab_size]` float, nats.
        uniforms: `[batch]` in `[0, 1)`, drawn for this step and not used for the draw
            of the token itself.
        probability: How often a row is touched, `0 < probability <= 1`.
        threshold: What makes a token a top choice, `0 < threshold <= 1`; above 0.5
            there are never two, so nothing is removed.

    Returns:
        `[batch, vocab_size]`, the dtype of `logits`.

    Raises:
        ConfigError: `threshold` or `probability` lies outside its range.

    Source: p-e-w 2024, "Exclude Top Choices (XTC)", oobabooga/text-generation-webui,
    pull request 6335.
    """
    if not 0 < threshold <= 1:
        raise ConfigError(
            f"`xtc_threshold` must lie in (0, 1]. Received: {threshold}. Pass --xtc-threshold."
        )
    if not 0 < probability <= 1:
        raise ConfigError(
            f"`xtc_probability` must lie in (0, 1]. Received: {probability}. "
            "Pass --xtc-probability."
        )
    chosen = log_softmax(logits) >= np.log(threshold) - MASS_TOLERANCE
    least = np.where(chosen, logits, np.inf).argmin(axis=-1)
    removed = chosen & (uniforms < probability)[:, None]
    removed[np.arange(len(logits)), least] = False
    return _keep(logits, ~removed)


def log_softmax(logits: Logits) -> NDArray[np.float64]:
    """Return the log-probabilities, in nats, in float64.

    Args:
        logits: `[batch, vocab_size]` float, nats; each row has a finite maximum.

    Returns:
        `[batch, vocab_size]` float64; -inf where the logit is.
    """
    shifted = (logits - logits.max(axis=-1, keepdims=True)).astype(np.float64)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


def _keep(logits: Logits, kept: NDArray[np.bool_]) -> Logits:
    return np.where(kept, logits, logits.dtype.type(-np.inf))


def _keep_largest(
    logits: Logits, border: NDArray[np.floating], counts: NDArray[np.integer]
) -> Logits:
    """Keep `counts` tokens a row, `border` being the smallest logit that survives."""
    kept = logits >= border
    if np.count_nonzero(kept) > counts.sum():
        above = logits > border
        room = counts - above.sum(axis=-1, keepdims=True)
        kept = above | (kept & ((kept & ~above).cumsum(axis=-1) <= room))
    return _keep(logits, kept)
