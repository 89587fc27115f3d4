"""Mirostat 2: a bound on surprise that keeps the mean surprise of the tokens near a target.

The bound `mu` is the state of a row: an argument of one function and the result of the other.
It starts at twice the target.
"""

import numpy as np

from textgen.arrays import Float64Array, FloatArray
from textgen.errors import ConfigError
from textgen.sampling.checks import check_sampling
from textgen.sampling.filters import MASS_TOLERANCE, keep_where, log_softmax


def keep_surprise_below(logits: FloatArray, mu: Float64Array) -> FloatArray:
    """Keep the tokens whose surprise, -log2 of their probability, is at most `mu`.

    Other tokens get a logit of -inf. The most probable token always survives; ties go to the
    lower id.

    Args:
        logits: `[batch, vocab_size]` float, nats, after temperature.
        mu: `[batch]` bits, one bound per row; may be negative.

    Returns:
        `[batch, vocab_size]`, the dtype of `logits`.

    Raises:
        ConfigError: `mu` is not one number per row.

    A surprise of exactly `mu` is kept, with a tolerance of 1e-6 nats, the rounding of float32
    logits.

    Source: Basu et al. 2021, "Mirostat: A Neural Text Decoding Algorithm that Directly Controls
    Perplexity", algorithm 2.
    """
    if mu.shape != logits.shape[:1] or np.isnan(mu).any():
        raise ConfigError(
            f"`mu` must have one number for each of {len(logits)} rows. Received: {mu}. "
            "Start from twice the target surprise."
        )
    kept = log_softmax(logits) >= -np.log(2) * mu[:, None] - MASS_TOLERANCE
    kept[np.arange(len(logits)), logits.argmax(axis=-1)] = True
    return keep_where(logits, kept)


def next_mu(mu: Float64Array, surprise: Float64Array, tau: float, eta: float) -> Float64Array:
    """Return the bounds for the next token: lower after a surprise above `tau`, higher below.

    Args:
        mu: `[batch]` bits, the bounds that the tokens were drawn under.
        surprise: `[batch]` bits, -log2 of the probability of each drawn token.
        tau: Target surprise, bits per token, greater than 0.
        eta: Learning rate, greater than 0; 0.1 in the paper.

    Returns:
        `[batch]` bits, `mu - eta * (surprise - tau)`.

    Raises:
        ConfigError: `tau` or `eta` is out of range.

    Source: Basu et al. 2021, "Mirostat: A Neural Text Decoding Algorithm that Directly Controls
    Perplexity", algorithm 2.
    """
    check_sampling("mirostat", tau)
    check_sampling("mirostat_rate", eta)
    return mu - eta * (surprise - tau)
