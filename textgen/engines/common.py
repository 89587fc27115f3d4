"""Limits and operations that the NumPy and the ONNX engine have in common."""

import numpy as np

from textgen.arrays import Float32Array
from textgen.models.weights import NORM_EPSILON, NormWeights

# Up to here the first layer's table takes some 20 ms. Above, a short text would wait for rows
# that it never reads, so the product is computed for the tokens that are read.
MAX_TABLE_FLOPS = 4_000_000_000
# Values of one chunk's input product: 4 MB, whatever the length of the prompt.
MAX_CHUNK_VALUES = 2**20


def fits_table(embedding: Float32Array, width: int) -> bool:
    """Return whether the first layer's input product is tabulated.

    Args:
        embedding: `[vocab_size, embedding_dim]`.
        width: Columns of the first layer's input kernel.

    Returns:
        True if the table, one row per token id, takes at most `MAX_TABLE_FLOPS` operations.
    """
    return 2 * embedding.size * width <= MAX_TABLE_FLOPS


def chunk_steps(batch: int, width: int) -> int:
    """Return how many steps of a prompt are read at once.

    Args:
        batch: Rows that are read.
        width: Values of the first layer's input product, per row and step.

    Returns:
        The steps whose input product has at most `MAX_CHUNK_VALUES` values; at least 1.
    """
    return max(1, MAX_CHUNK_VALUES // (batch * width))


def normalize(norm: NormWeights, x: Float32Array) -> Float32Array:
    """Return `x` with mean 0 and variance 1 over its last axis, scaled and shifted.

    Args:
        norm: Scale and offset, each `[features]`.
        x: float32 `[..., features]`.

    Returns:
        The shape of `x`.
    """
    centered: Float32Array = x - x.mean(-1, keepdims=True)
    variance = np.square(centered).mean(-1, keepdims=True)
    centered /= np.sqrt(variance + np.float32(NORM_EPSILON))
    centered *= norm.scale
    centered += norm.offset
    return centered
