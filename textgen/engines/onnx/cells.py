"""One step of a recurrent layer as ONNX nodes, for each cell; tested against `reference_engine`.

This module knows one step of one layer, given its two products:

    input product       x @ [K | W] + [b | w]    K, b: the cell's, W, w: the output gate's
    recurrent product   h @ [U | V] + [c | 0]    U: the cell's, c: the GRU's second bias,
                                                 V: the output gate's

It does NOT know how the products are computed, or how layers are stacked.
"""

from collections.abc import Callable, Sequence

import numpy as np

from textgen.arrays import Float32Array
from textgen.config import Cell
from textgen.engines.onnx.blocks import Block
from textgen.models.weights import LayerWeights

# Names of a product's parts, or of a state's.
Parts = Sequence[str]
_CellStep = Callable[[Block, int, Parts, Parts, Parts], list[str]]

# Widths of the parts of a cell's products, in multiples of the hidden size. The GRU's candidate is
# a part of its own, since its recurrent product is multiplied by the reset gate before the sum.
_PARTS: dict[Cell, tuple[int, ...]] = {"gru": (2, 1), "lstm": (4,), "rnn": (1,)}


def part_widths(layer: LayerWeights) -> list[int]:
    """Return the widths of the parts into which `layer_step` expects each product split."""
    gate = () if layer.output_gate is None else (1,)
    return [hidden * layer.hidden_size for hidden in (*_PARTS[layer.cell], *gate)]


def state_widths(layer: LayerWeights) -> list[int]:
    """Return the widths of the parts of a state: `h`, and `c` for an LSTM."""
    return [layer.hidden_size] * (layer.state_size // layer.hidden_size)


def input_matrix(layer: LayerWeights) -> tuple[Float32Array, Float32Array]:
    """Return `[K | W]`, `[inputs, width]`, and `[b | w]`, `[width]`."""
    kernel, bias, gate = layer.input_kernel, layer.bias[0], layer.output_gate
    if gate is None:
        return kernel, bias
    return np.hstack([kernel, gate.input_kernel]), np.concatenate([bias, gate.bias])


def recurrent_matrix(layer: LayerWeights) -> tuple[Float32Array, Float32Array]:
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
    """Append one time step of a layer.

    Args:
        block: The nodes are appended to it.
        layer: The layer.
        inputs: Names of the parts of the input product, `[batch, width]` by `part_widths`.
        recurrent: Names of the parts of the recurrent product, of the same widths.
        state: Names of the parts of the state before the step, by `state_widths`.

    Returns:
        Name of the output, `[batch, hidden_size]`, and of the parts of the state after the step.
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
