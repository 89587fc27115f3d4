"""Bias, temperature, and filters that keep a subset of the tokens.

Every function takes and returns `[batch, vocab_size]`, does not modify its arguments, and
treats a logit of -inf as a token of probability 0.
"""

import numpy as np
from numpy.typing import DTypeLike

from textgen.arrays import BoolArray, Float32Array, Float64Array, FloatArray, IntArray
from textgen.errors import ConfigError
from textgen.sampling.checks import check_bias, check_sampling

# float32 logits determine a mass to about 1e-7, so equality with `p` needs this tolerance.
MASS_TOLERANCE = 1e-6
# A logit of 1e6 divided by less than this would exceed the range of float32.
_MIN_TEMPERATURE = 1e-30


def add_bias(logits: FloatArray, bias: Float32Array) -> FloatArray:
    """Add `bias` to the logits of every row.

    Args:
        logits: `[batch, vocab_size]` float, nats.
        bias: `[vocab_size]`, nats; -inf bans a token.

    Returns:
        `[batch, vocab_size]`, the dtype of `logits`.

    Raises:
        ConfigError: `bias` has another shape, contains NaN or +inf, or bans every token.
    """
    check_bias(bias, logits.shape[-1])
    return logits + bias.astype(logits.dtype)


def scale_by_temperature(logits: FloatArray, temperature: float) -> FloatArray:
    """Divide the logits by `temperature`: below 1 sharpens the distribution, above 1 flattens it.

    Args:
        logits: `[batch, vocab_size]` float, nats.
        temperature: Greater than 0; see `clip_temperature`.

    Returns:
        `[batch, vocab_size]`, the dtype of `logits`.

    Raises:
        ConfigError: `temperature` is not a number greater than 0.
    """
    check_sampling("temperature", temperature)
    if temperature in (0, "auto"):
        raise ConfigError(
            f"`temperature` must be a number greater than 0. Received: {temperature}. "
            "Use pick_greedy for the most probable token."
        )
    return logits / clip_temperature(temperature, logits.dtype)


def clip_temperature(temperature: float, dtype: DTypeLike) -> float:
    """Return the nearest temperature by which logits can be divided.

    Args:
        temperature: Greater than 0.
        dtype: The float type of the logits.

    Returns:
        At least 1e-30, at which only the most probable token has any probability left; at most
        the largest number of the dtype.
    """
    return min(max(temperature, _MIN_TEMPERATURE), float(np.finfo(dtype).max))


def keep_top_k(logits: FloatArray, k: int) -> FloatArray:
    """Keep the `k` most probable tokens.

    Other tokens get a logit of -inf. Exactly `k` survive: ties at the boundary go to the lower
    id.

    Args:
        logits: `[batch, vocab_size]` float, nats.
        k: At least 1; `vocab_size` or more keeps all.

    Returns:
        `[batch, vocab_size]`, the dtype of `logits`.

    Raises:
        ConfigError: `k` is less than 1.

    Source: Fan et al. 2018, "Hierarchical Neural Story Generation".
    """
    check_sampling("top_k", k)
    cut = logits.shape[-1] - k
    if cut <= 0:
        return logits
    boundary = np.partition(logits, cut, axis=-1)[:, cut, None]
    return _keep_largest(logits, boundary, np.full((len(logits), 1), k))


def keep_top_p(logits: FloatArray, p: float) -> FloatArray:
    """Keep the smallest set of tokens whose probability mass reaches `p`.

    Other tokens get a logit of -inf. The most probable token always survives; ties at the
    boundary go to the lower id.

    Args:
        logits: `[batch, vocab_size]` float, nats, after temperature.
        p: Target mass, `0 < p <= 1`; 1 keeps all.

    Returns:
        `[batch, vocab_size]`, the dtype of `logits`.

    Raises:
        ConfigError: `p` is outside `(0, 1]`.

    A token is kept while the mass *before* it is below `p`: testing the mass that includes it
    keeps one too many when they are equal. Equality has a relative tolerance of 1e-6, the
    rounding of float32 logits.

    Source: Holtzman et al. 2020, "The Curious Case of Neural Text Degeneration".
    """
    check_sampling("top_p", p)
    if p == 1:
        return logits
    descending = np.sort(logits, axis=-1)[:, ::-1]
    probs = np.exp(descending - descending[:, :1])
    mass = probs.cumsum(axis=-1, dtype=np.float64)
    reached = mass - probs >= p * (1 - MASS_TOLERANCE) * mass[:, -1:]
    reached[:, 0] = False
    boundary = np.where(reached, np.inf, descending).min(axis=-1, keepdims=True)
    return _keep_largest(logits, boundary, (~reached).sum(axis=-1, keepdims=True))


def keep_min_p(logits: FloatArray, p: float) -> FloatArray:
    """Keep the tokens that are at least `p` times as probable as the most probable one.

    Other tokens get a logit of -inf. The most probable token always survives; equally probable
    tokens are kept or removed together.

    Args:
        logits: `[batch, vocab_size]` float, nats, after temperature.
        p: Smallest ratio to the most probable token, `0 < p <= 1`.

    Returns:
        `[batch, vocab_size]`, the dtype of `logits`.

    Raises:
        ConfigError: `p` is outside `(0, 1]`.

    A ratio of exactly `p` is kept, with a relative tolerance of 1e-6, the rounding of float32
    logits. No probabilities are computed: the logarithm of a ratio is a difference of logits.

    Source: Nguyen et al. 2024, "Turning Up the Heat: Min-p Sampling for Creative and Coherent
    LLM Outputs".
    """
    check_sampling("min_p", p)
    log_ratios = logits - logits.max(axis=-1, keepdims=True)
    return keep_where(logits, log_ratios >= np.log(p) - MASS_TOLERANCE)


def keep_typical(logits: FloatArray, p: float) -> FloatArray:
    """Keep the smallest set of typical tokens whose probability mass reaches `p`.

    A token is typical if its surprise is near the entropy of its row, so a very probable token
    may be removed. Other tokens get a logit of -inf. The most typical token always survives;
    ties at the boundary go to the lower id.

    Args:
        logits: `[batch, vocab_size]` float, nats, after temperature.
        p: Target mass, `0 < p <= 1`; 1 keeps all.

    Returns:
        `[batch, vocab_size]`, the dtype of `logits`.

    Raises:
        ConfigError: `p` is outside `(0, 1]`.

    As in `keep_top_p`, a token is kept while the mass of the more typical ones is below `p`,
    with the same tolerance.

    Source: Meister et al. 2023, "Locally Typical Sampling".
    """
    check_sampling("typical_p", p)
    if p == 1:
        return logits
    log_probs = log_softmax(logits)
    probs = np.exp(log_probs)
    # A token of probability 0 adds nothing to the entropy: 0 * -inf would be NaN.
    entropy = -(probs * np.where(probs > 0, log_probs, 0)).sum(axis=-1, keepdims=True)
    order = np.abs(log_probs + entropy).argsort(axis=-1, kind="stable")
    sorted_probs = np.take_along_axis(probs, order, axis=-1)
    mass_before = sorted_probs.cumsum(axis=-1) - sorted_probs
    mass_before[:, 0] = 0
    kept = np.empty(logits.shape, dtype=bool)
    np.put_along_axis(kept, order, mass_before < p * (1 - MASS_TOLERANCE), axis=-1)
    return keep_where(logits, kept)


def keep_top_n_sigma(logits: FloatArray, n: float) -> FloatArray:
    """Keep the tokens within `n` standard deviations of the largest logit.

    Other tokens get a logit of -inf. The most probable token always survives; tokens with equal
    logits are kept or removed together. The kept set does not depend on the temperature.

    Args:
        logits: `[batch, vocab_size]` float, nats.
        n: Greater than 0, in standard deviations; 1 in the paper.

    Returns:
        `[batch, vocab_size]`, the dtype of `logits`.

    Raises:
        ConfigError: `n` is not a number greater than 0.

    The standard deviation is the population standard deviation of the row's finite logits. A
    logit on the boundary is kept, with a relative tolerance of 1e-6.

    Source: Tang et al. 2024, "Top-nσ: Not All Logits Are You Need".
    """
    check_sampling("top_n_sigma", n)
    below_top = (logits.max(axis=-1, keepdims=True) - logits).astype(np.float64)
    sigma = below_top.std(axis=-1, keepdims=True, where=np.isfinite(below_top))
    return keep_where(logits, below_top <= n * sigma * (1 + MASS_TOLERANCE))


def exclude_top_choices(
    logits: FloatArray, uniforms: Float64Array, probability: float, threshold: float
) -> FloatArray:
    """Remove, at random steps, all probable tokens except the least probable of them (XTC).

    In a row whose uniform is below `probability`, the tokens with a probability of at least
    `threshold` get a logit of -inf, except the least probable of these; ties go to the lower
    id. A row with fewer than two such tokens does not change.

    Args:
        logits: `[batch, vocab_size]` float, nats.
        uniforms: `[batch]` in `[0, 1)`, other than those that draw the tokens.
        probability: Probability of changing a row, `0 < probability <= 1`.
        threshold: Probability from which a token is a top choice, `0 < threshold <= 1`; above
            0.5 there are never two, so nothing is removed.

    Returns:
        `[batch, vocab_size]`, the dtype of `logits`.

    Raises:
        ConfigError: `threshold` or `probability` is outside `(0, 1]`.

    Source: p-e-w 2024, "Exclude Top Choices (XTC)", oobabooga/text-generation-webui, pull
    request 6335.
    """
    check_sampling("xtc_threshold", threshold)
    check_sampling("xtc_probability", probability)
    top = log_softmax(logits) >= np.log(threshold) - MASS_TOLERANCE
    least = np.where(top, logits, np.inf).argmin(axis=-1)
    removed = top & (uniforms < probability)[:, None]
    removed[np.arange(len(logits)), least] = False
    return keep_where(logits, ~removed)


def log_softmax(logits: FloatArray) -> Float64Array:
    """Return log-probabilities in nats, computed in float64.

    Args:
        logits: `[..., vocab_size]` float, nats; each row has a finite maximum.

    Returns:
        `[..., vocab_size]` float64; -inf where the logit is -inf.
    """
    log_probs = logits.astype(np.float64)
    log_probs -= log_probs.max(axis=-1, keepdims=True)
    log_probs -= np.log(np.exp(log_probs).sum(axis=-1, keepdims=True))
    return log_probs


def keep_where(logits: FloatArray, kept: BoolArray) -> FloatArray:
    """Set the logits outside the mask `kept` to -inf; all `[batch, vocab_size]`."""
    return np.where(kept, logits, logits.dtype.type(-np.inf))


def _keep_largest(logits: FloatArray, boundary: FloatArray, counts: IntArray) -> FloatArray:
    """Keep `counts` tokens per row; `boundary` is the smallest logit that survives."""
    kept = logits >= boundary
    if np.count_nonzero(kept) > counts.sum():
        above = logits > boundary
        num_ties = counts - above.sum(axis=-1, keepdims=True)
        kept = above | (kept & ((kept & ~above).cumsum(axis=-1) <= num_ties))
    return keep_where(logits, kept)
