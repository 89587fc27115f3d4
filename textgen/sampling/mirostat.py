"""Mirostat 2: a limit on surprise, moved after every token towards a target.

The limit `mu` is the state of a row: an argument of one function, the result of the
other, 2 * tau at the start.
"""

import numpy as np
from numpy.typing import NDArray

from textgen.errors import ConfigError
from textgen.sampling.filters import MASS_TOLERANCE, Logits, log_softmax


def keep_surprise_below(logits: Logits, mu: NDArray[np.float64]) -> Logits:
    """Keep the tokens whose surprise, -log2 of their probability, is at most `mu`.

    The others get a logit of -inf. The most probable token always survives, the lower
    id among equals.

    Args:
        logits: `[batch, vocab_size]` float, nats, after temperature.
        mu: `[batch]` bits, one limit a row; may be below 0.

    Returns:
        `[batch, vocab_size]`, the dtype of `logits`.

    Raises:
        ConfigError: `mu` is not one number for each row.

    A surprise of exactly `mu` is kept, with a room of 1e-6 nats, the rounding of
    float32 logits.

    Source: Basu et al. 2021, "Mirostat: A Neural Text Decoding Algorithm that Directly
    Controls Perplexity", algorithm 2.
    """
    if mu.shape != logits.shape[:1] or np.isnan(mu).any():
        raise ConfigError(
            f"`mu` must hold one number for each of {len(logits)} rows. Received: {mu}. "
            "Start from 2 * tau, --mirostat."
        )
    kept = log_softmax(logits) >= -np.log(2) * mu[:, None] - MASS_TOLERANCE
    kept[np.arange(len(logits)), logits.argmax(axis=-1)] = True
    return np.where(kept, logits, logits.dtype.type(-np.inf))


def next_mu(
    mu: NDArray[np.float64], surprise: NDArray[np.float64], tau: float, eta: float
) -> NDArray[np.float64]:
    """Move the limit against the error: down after a surprising token, up after a dull one.

    Args:
        mu: `[batch]` bits, the limits that the tokens were drawn under.
        surprise: `[batch]` bits, -log2 of the probability of each drawn token.
        tau: Target surprise, bits a token, above 0.
        eta: Learning rate, above 0; the paper takes 0.1.

    Returns:
        `[batch]` bits, `mu - eta * (surprise - tau)`.

    Raises:
        ConfigError: `tau` or `eta` lies outside its range.

    Source: Basu et al. 2021, "Mirostat: A Neural Text Decoding Algorithm that Directly
    Controls Perplexity", algorithm 2.
    """
    if not 0 < tau < np.inf:
        raise ConfigError(f"`mirostat` must be a number above 0. Received: {tau}. Pass --mirostat.")
    if not 0 < eta < np.inf:
        raise ConfigError(
            f"`mirostat_rate` must be a number above 0. Received: {eta}. Pass --mirostat-rate."
        )
    return mu - eta * (surprise - tau)
