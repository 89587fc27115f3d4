"""Limits and operations shared by the NumPy and ONNX engines."""

import numpy as np

from textgen.arrays import Float32Array
from textgen.models.weights import NORM_EPSILON, NormWeights

# At this limit the first layer's table takes about 20 ms to compute. Above it, a short text would
# wait for rows that it never reads, so the product is computed only for the tokens that are read.
MAX_TABLE_FLOPS = 4_000_000_000
# Values of the input product of a chunk: 4 MB, however long the prompt.
MAX_CHUNK_VALUES = 2**20


def fits_table(embedding: Float32Array, width: int) -> bool:
    """Return whether the first layer's input product is computed for all token ids in advance.

    Args:
        embedding: `[vocab_size, embedding_dim]`.
        width: Columns of the first layer's input kernel.

    Returns:
        True if that table, one row per token id, takes at most `MAX_TABLE_FLOPS` operations.
    """
    return 2 * embedding.size * width <= MAX_TABLE_FLOPS


def chunk_steps(batch: int, width: int) -> int:
    """Return the number of steps of a prompt to read at once.

    Args:
        batch: Rows of the prompt.
        width: Values of the first layer's input product, per row and step.

    Returns:
        As many steps as have an input product of at most `MAX_CHUNK_VALUES` values; at least 1.
    """
    return max(1, MAX_CHUNK_VALUES // (batch * width))


def normalize(norm: NormWeights, x: Float32Array) -> Float32Array:
    """Apply layer normalization over the last axis.

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
