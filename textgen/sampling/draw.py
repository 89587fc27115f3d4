"""Drawing a token: uniforms from a seed, and the inverse CDF of the distribution.

The uniforms are computed on the host and passed to the engine, so every engine, batch size and
streaming mode uses the same numbers. This module knows logits and random numbers. It does NOT
know where logits come from, or what a token means.
"""

from collections.abc import Iterator

import numpy as np

from textgen.arrays import Float64Array, FloatArray, Int32Array
from textgen.config import require
from textgen.sampling.checks import check_sampling

# Decisions other than the draw use the stream of the sample index plus this, so that they do not
# shift the draws.
OTHER_STREAMS = 2**63
# A call for 256 numbers takes about as long as a call for 1.
_BLOCK = 256


def row_uniforms(seed: int, sample_index: int) -> Iterator[float]:
    """Return the endless stream of uniforms that one sample of a request is drawn with.

    Args:
        seed: The request's seed, in `[0, 2**64)`.
        sample_index: Index of the sample within the request, in `[0, 2**64)`.

    Returns:
        An iterator of float64 in `[0, 1)` that depends on `seed` and `sample_index` alone.

    Raises:
        ConfigError: An argument is out of range.

    Source: Salmon et al. 2011, "Parallel Random Numbers: As Easy as 1, 2, 3" (Philox).
    """
    check_sampling("seed", seed)
    require(0 <= sample_index < 2**64, "sample_index", "in [0, 2**64)", sample_index)
    key = np.array([seed, sample_index], dtype=np.uint64)
    return _stream(np.random.Generator(np.random.Philox(key=key)))


def _stream(generator: np.random.Generator) -> Iterator[float]:
    while True:
        yield from generator.random(_BLOCK).tolist()


def pick(logits: FloatArray, uniforms: Float64Array) -> Int32Array:
    """Draw one token per row by the inverse CDF of `softmax(logits)`.

    Args:
        logits: `[batch, vocab_size]` float, nats; each row has a finite maximum.
        uniforms: `[batch]` in `[0, 1)`.

    Returns:
        `[batch]` token ids: the first whose cumulative probability, in float64, exceeds the
        uniform. A token of probability 0 is never returned.
    """
    shifted = logits - logits.max(axis=-1, keepdims=True)
    cumulative = np.exp(shifted, dtype=np.float64).cumsum(axis=-1)
    # u * total could round up to total, which no cumulative probability exceeds.
    target = uniforms * np.nextafter(cumulative[:, -1], 0.0)
    token_ids: Int32Array = (cumulative > target[:, None]).argmax(axis=-1).astype(np.int32)
    return token_ids


def pick_greedy(logits: FloatArray) -> Int32Array:
    """Return the most probable token of each row; ties go to the lower id.

    Args:
        logits: `[batch, vocab_size]`.

    Returns:
        `[batch]` token ids.
    """
    token_ids: Int32Array = logits.argmax(axis=-1).astype(np.int32)
    return token_ids
