"""The parts of ONNX graphs: constants, nodes, and products in any weights format.

This module knows operators. It does NOT know models.
"""

from collections.abc import Callable, Sequence
from itertools import count
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike
from onnx import NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

from textgen.engines.quantization import STATE_SCALE, STATE_ZERO, Matrix
from textgen.models.quantized import Int4Matrix, Int8Matrix

MICROSOFT = "com.microsoft"
# MatMulNBits quantizes states to 8 bits, one scale per block; by default it computes in float32,
# which is slower.
_ACCURACY_LEVEL = 4

FLOAT, DOUBLE = TensorProto.FLOAT, TensorProto.DOUBLE
INT32, INT64, UINT8 = TensorProto.INT32, TensorProto.INT64, TensorProto.UINT8


class Constants:
    """The constants of a model, visible in its graph and loop bodies; also makes unique names."""

    def __init__(self) -> None:
        self.tensors: list[TensorProto] = []
        self._numbers = count()

    def names(self, number: int) -> list[str]:
        """Return `number` new names."""
        return [f"v{next(self._numbers)}" for _ in range(number)]

    def add(self, value: ArrayLike, dtype: DTypeLike | None = None) -> str:
        """Add a constant.

        Args:
            value: A number or an array, any shape.
            dtype: Its dtype; None: the one NumPy gives it.

        Returns:
            Its name.
        """
        (name,) = self.names(1)
        self.tensors.append(numpy_helper.from_array(np.array(value, dtype, order="C"), name))
        return name


class Block:
    """Nodes in the order in which they run, of a graph or of a loop body."""

    def __init__(self, constants: Constants) -> None:
        self.constants = constants
        self.nodes: list[NodeProto] = []

    def op(
        self,
        kind: str,
        *inputs: str,
        names: list[str] | None = None,
        domain: str = "",
        **attributes: Any,
    ) -> str:
        """Append a node.

        Args:
            kind: Name of the operator.
            *inputs: Names of its inputs; an empty name leaves out an optional input.
            names: Names of its outputs; None: one new name.
            domain: Domain of the operator; empty: that of ONNX.
            **attributes: Attributes of the node.

        Returns:
            Name of its first output.
        """
        names = names or self.constants.names(1)
        self.nodes.append(helper.make_node(kind, inputs, names, domain=domain, **attributes))
        return names[0]

    def split(self, value: str, widths: Sequence[int]) -> list[str]:
        """Split the last axis into parts; a single part needs no node.

        Args:
            value: Name of `[..., sum(widths)]`.
            widths: Sizes of the parts.

        Returns:
            Names of the parts, `[..., width]` each.
        """
        if len(widths) == 1:
            return [value]
        names = self.constants.names(len(widths))
        self.op("Split", value, self.constants.add(widths, np.int64), names=names, axis=-1)
        return names


# Appends `x @ matrix + bias` to a block; the constants are added to the model once.
Affine = Callable[[Block, str], str]


def affine(constants: Constants, matrix: Matrix, bias: str = "") -> Affine:
    """Return a function that appends `x @ matrix + bias`.

    Args:
        constants: The matrix is added to them.
        matrix: `[rows, columns]`, float32 or quantized.
        bias: Name of `[columns]`; empty: no bias is added.

    Returns:
        A function that appends the nodes to a block, given the name of `[..., rows]`, and
        returns the name of `[..., columns]`.
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
        "accuracy_level": _ACCURACY_LEVEL,
    }
    return lambda block, x: block.op(
        "MatMulNBits", x, packed, scales, "", "", bias, domain=MICROSOFT, **attributes
    )


def info(name: str, kind: int, *shape: int | str) -> ValueInfoProto:
    """Return the name, type and shape of an input or output as ONNX describes them.

    Args:
        name: Its name.
        kind: Its element type, such as `FLOAT`.
        *shape: Its sizes; a text names a size that varies.

    Returns:
        The description.
    """
    return helper.make_tensor_value_info(name, kind, shape)
