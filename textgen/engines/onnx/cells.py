"""A recurrent layer's step as ONNX nodes, by the kind of its cell; held to `reference`.

This module knows one step of one layer, given its two products:

    input product       x @ [K | W] + [b | w]    K, b: the cell's, W, w: the output gate's
    recurrent product   h @ [U | V] + [c | 0]    U: the cell's, c: the GRU's second bias,
                                                 V: the output gate's

It does NOT know how the products are made, or how layers stand on each other.
"""

from collections.abc import Callable, Sequence

import numpy as np

from textgen.config import Cell
from textgen.engines.onnx.blocks import Block
from textgen.engines.quantization import Array
from textgen.models.weights import LayerWeights

# What a step reads and gives: names of a layer's products in their parts, and of its state.
Parts = Sequence[str]
_CellStep = Callable[[Block, int, Parts, Parts, Parts], list[str]]

# Parts of a cell's products, in hidden sizes: what enters one function stays together.
_PARTS: dict[Cell, tuple[int, ...]] = {"gru": (2, 1), "lstm": (4,), "rnn": (1,)}


def part_widths(layer: LayerWeights) -> list[int]:
    """Return the widths of the parts into which a step wants each product cut."""
    gate = () if layer.output_gate is None else (1,)
    return [hidden * layer.hidden_size for hidden in (*_PARTS[layer.cell], *gate)]


def state_widths(layer: LayerWeights) -> list[int]:
    """Return the widths of the parts of a state: `h`, and of an LSTM `c`."""
    return [layer.hidden_size] * (layer.state_size // layer.hidden_size)


def input_matrix(layer: LayerWeights) -> tuple[Array, Array]:
    """Return `[K | W]`, `[inputs, width]`, and `[b | w]`, `[width]`."""
    gate = layer.output_gate
    if gate is None:
        return layer.input_kernel, layer.bias[0]
    return np.hstack([layer.input_kernel, gate.input_kernel]), np.concatenate([layer.bias[0], gate.bias])


def recurrent_matrix(layer: LayerWeights) -> tuple[Array, Array]:
    """Return `[U | V]`, `[hidden_size, width]`, and `[c | 0]`, `[width]`."""
    gate = layer.output_gate
    kernels = [layer.recurrent_kernel] + ([] if gate is None else [gate.recurrent_kernel])
    kernel = np.hstack(kernels)
    bias = np.zeros(kernel.shape[1], np.float32)
    if layer.cell == "gru":
        bias[: layer.bias.shape[1]] = layer.bias[1]
    return kernel, bias


def layer_step(
    block: Block, layer: LayerWeights, inputs: Parts, recurrent: Parts, state: Parts
) -> tuple[str, list[str]]:
    """Append one step of a layer.

    Args:
        block: That the nodes are appended to.
        layer: Which layer.
        inputs: Names of the input product's parts, of widths `part_widths`.
        recurrent: Names of the recurrent product's parts, alike.
        state: Names of the state's parts before, of widths `state_widths`.

    Returns:
        Name of what the layer passes on, and of the state's parts after.
    """
    step = _STEPS[layer.cell]
    next_state = step(block, layer.hidden_size, inputs, recurrent, state)
    if layer.output_gate is None:
        return next_state[0], next_state
    gate = block.op("Sigmoid", block.op("Add", inputs[-1], recurrent[-1]))
    return block.op("Mul", gate, block.op("Tanh", next_state[0])), next_state


def _gru_step(block: Block, size: int, inputs: Parts, recurrent: Parts, state: Parts) -> list[str]:
    (h,) = state
    gates = block.op("Sigmoid", block.op("Add", inputs[0], recurrent[0]))
    z, r = block.split(gates, [size] * 2)
    candidate = block.op("Tanh", block.op("Add", inputs[1], block.op("Mul", r, recurrent[1])))
    return [block.op("Add", candidate, block.op("Mul", z, block.op("Sub", h, candidate)))]


def _lstm_step(block: Block, size: int, inputs: Parts, recurrent: Parts, state: Parts) -> list[str]:
    _, c = state
    i, f, candidate, o = block.split(block.op("Add", inputs[0], recurrent[0]), [size] * 4)
    entering = block.op("Mul", block.op("Sigmoid", i), block.op("Tanh", candidate))
    next_c = block.op("Add", block.op("Mul", block.op("Sigmoid", f), c), entering)
    return [block.op("Mul", block.op("Sigmoid", o), block.op("Tanh", next_c)), next_c]


def _rnn_step(block: Block, size: int, inputs: Parts, recurrent: Parts, state: Parts) -> list[str]:
    del size, state
    return [block.op("Tanh", block.op("Add", inputs[0], recurrent[0]))]


_STEPS: dict[Cell, _CellStep] = {"gru": _gru_step, "lstm": _lstm_step, "rnn": _rnn_step}
