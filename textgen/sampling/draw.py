"""LoopEngine a token: uniforms from a seed, and the inverse of the distribution's CDF.

The uniforms are made here, on the host, and not by the engine: so every engine, batch
size and streaming mode draws with the same numbers. This module knows logits and
random numbers. It does NOT know where logits come from, or what a token means.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

# One call for 256 numbers costs about as much as one call for 1.
BLOCK = 256


def row_uniforms(seed: int, row: int) -> Iterator[float]:
    """Yield without end the uniforms that row `row` of a request draws with.

    Args:
        seed: The request's seed, in `[0, 2**64)`.
        row: Index of the sample within the request, in `[0, 2**64)`.

    Yields:
        Float64 in `[0, 1)`; the stream depends on `seed` and `row` alone.

    Source: Salmon et al. 2011, "Parallel Random Numbers: As Easy as 1, 2, 3" (Philox).
    """
    generator = _row_generator(seed, row)
    while True:
        yield from generator.random(BLOCK).tolist()


def pick(logits: NDArray[np.floating], uniforms: NDArray[np.float64]) -> NDArray[np.int32]:
    """Draw one token a row by the inverse CDF of `softmax(logits)`.

    Args:
        logits: `[batch, vocab_size]` float, nats; each row has a finite maximum.
        uniforms: `[batch]` in `[0, 1)`.

    Returns:
        `[batch]` token ids: the first whose cumulative probability, in float64,
        exceeds the uniform. A token of probability 0 is never returned.
    """
    shifted = logits - logits.max(axis=-1, keepdims=True)
    cumulative = np.exp(shifted, dtype=np.float64).cumsum(axis=-1)
    # u * total could round up to total, which no cumulative probability exceeds.
    target = uniforms * np.nextafter(cumulative[:, -1], 0.0)
    return (cumulative > target[:, None]).argmax(axis=-1).astype(np.int32)


def pick_greedy(logits: NDArray[np.floating]) -> NDArray[np.int32]:
    """Return the most probable token of each row, the lower id among equals.

    Args:
        logits: `[batch, vocab_size]`.

    Returns:
        `[batch]` token ids.
    """
    return logits.argmax(axis=-1).astype(np.int32)


def _row_generator(seed: int, row: int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(key=np.array([seed, row], dtype=np.uint64)))
