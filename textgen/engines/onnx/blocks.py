"""The pieces that ONNX graphs are made of: constants, nodes, and products in any precision.

This module knows operators. It does NOT know models.
"""

from collections.abc import Callable, Sequence
from itertools import count
from typing import Any

import numpy as np
from onnx import NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

from textgen.engines.quantization import (
    STATE_SCALE,
    STATE_ZERO,
    Int4Matrix,
    Int8Matrix,
    Matrix,
)

MICROSOFT = "com.microsoft"
# MatMulNBits then reads a state in 8 bits, a scale a block; without it in float32, slower.
ACCURACY_LEVEL = 4

FLOAT, DOUBLE, INT64 = TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.INT64


class Constants:
    """A model's constants, seen by its graph and by the loops in it, and names for values."""

    def __init__(self) -> None:
        self.tensors: list[TensorProto] = []
        self._numbers = count()

    def names(self, number: int) -> list[str]:
        """Return names that no other value has."""
        return [f"v{next(self._numbers)}" for _ in range(number)]

    def add(self, value: Any, dtype: type | None = None) -> str:
        """Add a constant and return its name."""
        (name,) = self.names(1)
        self.tensors.append(numpy_helper.from_array(np.array(value, dtype, order="C"), name))
        return name


class Block:
    """Nodes in the order in which they run: a graph's, or a loop body's."""

    def __init__(self, constants: Constants) -> None:
        self.constants = constants
        self.nodes: list[NodeProto] = []

    def op(
        self, kind: str, *inputs: str, names: list[str] | None = None, domain: str = "", **also: Any
    ) -> str:
        """Append a node and return the name of its first value."""
        names = names or self.constants.names(1)
        self.nodes.append(helper.make_node(kind, inputs, names, domain=domain, **also))
        return names[0]

    def split(self, value: str, widths: Sequence[int]) -> list[str]:
        """Cut the last axis into parts; of one part alone no node is made."""
        if len(widths) == 1:
            return [value]
        names = self.constants.names(len(widths))
        self.op("Split", value, self.constants.add(widths, np.int64), names=names, axis=-1)
        return names


# `x @ matrix + bias` as nodes of a block; the constants are the model's, added once.
Affine = Callable[[Block, str], str]


def affine(constants: Constants, matrix: Matrix, bias: str = "") -> Affine:
    """Return what multiplies with a matrix in its own form, and adds a bias.

    Args:
        constants: That the matrix is added to.
        matrix: float32 `[rows, columns]`, or rounded.
        bias: Name of `[columns]`; without one nothing is added.

    Returns:
        What appends the nodes to a block, given the name of `[..., rows]`, and returns the
        name of `[..., columns]`.
    """
    if isinstance(matrix, Int8Matrix):
        return _affine_int8(constants, matrix, bias)
    if isinstance(matrix, Int4Matrix):
        return _affine_int4(constants, matrix, bias)
    name = constants.add(matrix)
    if not bias:
        return lambda block, x: block.op("MatMul", x, name)
    return lambda block, x: block.op("Add", block.op("MatMul", x, name), bias)


def _affine_int8(constants: Constants, matrix: Int8Matrix, bias: str) -> Affine:
    values, scales = constants.add(matrix.values), constants.add(matrix.scales)
    scale, zero = constants.add(STATE_SCALE), constants.add(STATE_ZERO)

    def affine(block: Block, x: str) -> str:
        levels = block.op("QuantizeLinear", x, scale, zero)
        inputs = (levels, values, scale, scales, zero, "", bias)
        return block.op("MatMulIntegerToFloat", *inputs, domain=MICROSOFT)

    return affine


def _affine_int4(constants: Constants, matrix: Int4Matrix, bias: str) -> Affine:
    packed, scales = constants.add(matrix.packed), constants.add(matrix.scales.reshape(-1))
    attributes: dict[str, Any] = {
        "K": matrix.rows,
        "N": len(matrix.scales),
        "bits": 4,
        "block_size": matrix.block_size,
        "accuracy_level": ACCURACY_LEVEL,
    }
    return lambda block, x: block.op(
        "MatMulNBits", x, packed, scales, "", "", bias, domain=MICROSOFT, **attributes
    )


def info(name: str, kind: int, *shape: int | str) -> ValueInfoProto:
    """Return the description of an input or output."""
    return helper.make_tensor_value_info(name, kind, shape)
