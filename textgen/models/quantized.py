"""Matrices in 8 and 4 bits, and the quantized weights of a model.

This module knows formats and shapes. It does NOT know how levels and scales are chosen, how the
matrices are multiplied, or where they are stored.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from textgen.arrays import Float32Array
from textgen.config import QuantizedFormat
from textgen.errors import RunError

# Four bits encode 0 .. 15, which represent -8 .. 7.
INT4_ZERO = 8


@dataclass(frozen=True, kw_only=True, eq=False)
class Int8Matrix:
    """A matrix in 8 bits with one scale per column.

    Attributes:
        values: int8 `[rows, columns]`, in -127 .. 127.
        scales: float32 `[columns]`.

    Raises:
        RunError: An array has another dtype or shape, or a scale is not finite.
    """

    values: NDArray[np.int8]
    scales: Float32Array

    def __post_init__(self) -> None:
        _require("values", self.values, np.int8, (None, None))
        _require("scales", self.scales, np.float32, self.values.shape[1:])

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of the matrix."""
        return self.values.shape[0], self.values.shape[1]

    def columns(self, which: slice) -> "Int8Matrix":
        """Return some of the columns as a matrix."""
        values = np.ascontiguousarray(self.values[:, which])
        return Int8Matrix(values=values, scales=self.scales[which])

    def dequantize(self) -> Float32Array:
        """Return the float32 matrix `[rows, columns]` that this one represents.

        The readable reference for the 8-bit product; engines multiply with `values` directly.
        """
        return self.values * self.scales


@dataclass(frozen=True, kw_only=True, eq=False)
class Int4Matrix:
    """A matrix in 4 bits with one scale per block of `block_size` adjacent values of a column.

    Attributes:
        rows: Rows of the matrix; the last block of a column is padded with zeros.
        packed: uint8 `[columns, blocks, block_size / 2]`, two adjacent values per byte, the first
            in its low half.
        scales: float32 `[columns, blocks]`.

    Raises:
        RunError: An array has another dtype or shape, or a scale is not finite.

    Source: the operator `MatMulNBits` of ONNX Runtime, which has this layout.
    """

    rows: int
    packed: NDArray[np.uint8]
    scales: Float32Array

    def __post_init__(self) -> None:
        _require("packed", self.packed, np.uint8, (None, None, None))
        blocks = -(-self.rows // self.block_size) if self.block_size else 0
        _require("packed", self.packed, np.uint8, (None, blocks, None))
        _require("scales", self.scales, np.float32, self.packed.shape[:2])

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of the matrix."""
        return self.rows, self.packed.shape[0]

    @property
    def block_size(self) -> int:
        """Number of adjacent values that share a scale."""
        return 2 * int(self.packed.shape[-1])

    def columns(self, which: slice) -> "Int4Matrix":
        """Return some of the columns as a matrix."""
        return Int4Matrix(rows=self.rows, packed=self.packed[which], scales=self.scales[which])

    def dequantize(self) -> Float32Array:
        """Return the float32 matrix `[rows, columns]` that this one represents.

        The readable reference for the 4-bit product; engines multiply with `packed` directly.
        """
        halves = np.stack([self.packed & 15, self.packed >> 4], axis=-1)
        levels = halves.reshape(*self.scales.shape, -1).astype(np.float32) - INT4_ZERO
        values = (levels * self.scales[..., None]).reshape(len(self.scales), -1)
        return np.ascontiguousarray(values[:, : self.rows].T)


QuantizedMatrix = Int8Matrix | Int4Matrix


@dataclass(frozen=True, kw_only=True)
class QuantizationLoss:
    """Loss on the validation text before and after quantization, nats per token.

    Attributes:
        float32: Loss with the float32 weights.
        quantized: Loss with the quantized weights.
    """

    float32: float
    quantized: float

    @property
    def increase(self) -> float:
        """The loss added by quantization, nats per token."""
        return self.quantized - self.float32


@dataclass(frozen=True, kw_only=True, eq=False)
class QuantizedWeights:
    """The matrices of a model's products in 8 or 4 bits; all other weights stay float32.

    Attributes:
        weights_format: `"int8"` or `"int4"`.
        products: Per layer `[U | K]`, `[hidden_size, columns]`: its recurrent kernel beside the
            input kernel of the next layer, or beside the Dense kernel.
        weights_sha256: Hash of the float32 weights that they were made from.
        loss: Before and after quantization; None: not measured.

    Raises:
        RunError: `products` is empty, or its matrices have another format or unequal numbers of
            rows.
    """

    weights_format: QuantizedFormat
    products: tuple[QuantizedMatrix, ...]
    weights_sha256: str
    loss: QuantizationLoss | None = None

    def __post_init__(self) -> None:
        expected = Int8Matrix if self.weights_format == "int8" else Int4Matrix
        rows = {matrix.shape[0] for matrix in self.products}
        if len(rows) != 1 or not all(isinstance(matrix, expected) for matrix in self.products):
            found = [f"{type(matrix).__name__} {list(matrix.shape)}" for matrix in self.products]
            raise RunError(
                f"Weights in {self.weights_format} must be at least one {expected.__name__}, all "
                f"with the same number of rows. Received: {', '.join(found) or 'none'}."
            )

    @property
    def rows(self) -> int:
        """Rows of every matrix, the `hidden_size` of the model."""
        return self.products[0].shape[0]


def _require(
    name: str, array: NDArray[np.generic], dtype: type[np.generic], shape: tuple[int | None, ...]
) -> None:
    """Raise `RunError` unless an array has a dtype, a shape (None: any size) and finite values."""
    fits = array.ndim == len(shape) and all(
        size > 0 if expected is None else size == expected
        for size, expected in zip(array.shape, shape, strict=False)
    )
    if array.dtype != dtype or not fits:
        sizes = ", ".join("any" if size is None else str(size) for size in shape)
        raise RunError(
            f"`{name}` of a quantized matrix must be {np.dtype(dtype)} [{sizes}]. "
            f"Received: {array.dtype} {list(array.shape)}."
        )
    if array.dtype == np.float32 and not np.isfinite(array).all():
        raise RunError(f"`{name}` of a quantized matrix must be finite. Received: NaN or infinity.")
