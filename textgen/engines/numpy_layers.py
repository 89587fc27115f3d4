"""The recurrent layers of the NumPy engine, tested against `reference_engine`.

This module knows arrays. It does NOT know token ids, or how layers are stacked.

`sigmoid(x) = (1 + tanh(x / 2)) / 2`, and the inner halves are multiplied into the weights in
advance, which is exact in binary: all gates of a step take one or two calls of tanh.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from textgen.arrays import Float32Array, FloatArray
from textgen.config import Cell
from textgen.engines.common import normalize
from textgen.models.weights import LayerWeights, NormWeights, OutputGateWeights

_CACHE_LINE = 64
_HALF = np.float32(0.5)


class _Cell(Protocol):
    """Computes the next state of a layer from its input product and its state."""

    def step(
        self, inputs: Float32Array, state: FloatArray, next_state: Float32Array
    ) -> Float32Array:
        """Write the state after one step into `next_state`, and return its `h`."""

    def hidden(self, state: FloatArray) -> FloatArray:
        """Return the `h` of states `[..., state_size]`, `[..., hidden_size]`."""


@dataclass(frozen=True, eq=False)
class Layer:
    """A recurrent layer with the halves of the sigmoids folded into its weights.

    Attributes:
        kernel: `[inputs, width]`, the input kernels of the cell and of the output gate
            concatenated.
        bias: `[width]`.
        cell: Computes the next state.
        state_size: Values of the state.
        norm: Layer normalization of the input, or None.
        output_gate: Gate on the output, or None.
    """

    kernel: Float32Array
    bias: Float32Array
    cell: _Cell
    state_size: int
    norm: NormWeights | None
    output_gate: "_OutputGate | None"

    def project(self, x: Float32Array) -> Float32Array:
        """Return the input product of `x` `[..., inputs]`, biases included: `[..., width]`."""
        inputs = x if self.norm is None else normalize(self.norm, x)
        return affine(inputs, self.kernel, self.bias)

    def step(
        self, inputs: Float32Array, state: FloatArray, next_state: Float32Array
    ) -> Float32Array:
        """Advance one time step.

        Args:
            inputs: `[batch, width]`, the input product.
            state: `[batch, state_size]`, before the step.
            next_state: The same shape, float32; overwritten with the state after the step.

        Returns:
            The layer's output, `[batch, hidden_size]`; may be a view of `next_state`.
        """
        after = self.cell.step(inputs, state, next_state)
        if self.output_gate is None:
            return after
        return self.output_gate.apply(inputs, self.cell.hidden(state), after)

    def scan(self, inputs: Float32Array, state: Float32Array) -> Float32Array:
        """Advance several time steps.

        Args:
            inputs: `[time, batch, width]`, the input product.
            state: `[batch, state_size]`; overwritten with the state after the last step.

        Returns:
            The layer's outputs, `[time, batch, hidden_size]`.
        """
        states = np.empty((*inputs.shape[:2], self.state_size), np.float32)
        before = state
        for step_inputs, after in zip(inputs, states, strict=True):
            self.cell.step(step_inputs, before, after)
            before = after
        outputs: Float32Array = self.cell.hidden(states)
        if self.output_gate is not None:
            # All steps at once: the gate does not act on the state.
            hidden = np.concatenate([self.cell.hidden(state)[None], outputs[:-1]])
            outputs = self.output_gate.apply(inputs, hidden, outputs)
        state[...] = before
        return outputs


@dataclass(frozen=True, eq=False)
class _GruCell:
    """A GRU; its z and r biases are part of the input product."""

    recurrent_kernel: Float32Array
    recurrent_bias: Float32Array
    hidden_size: int

    def step(
        self, inputs: Float32Array, state: FloatArray, next_state: Float32Array
    ) -> Float32Array:
        size = self.hidden_size
        gates = np.dot(state, self.recurrent_kernel)
        update_reset, candidate = gates[:, : 2 * size], gates[:, 2 * size :]
        update_reset += inputs[:, : 2 * size]
        np.tanh(update_reset, out=update_reset)
        update_reset += 1.0
        candidate += self.recurrent_bias
        candidate *= update_reset[:, size:]
        candidate += inputs[:, 2 * size : 3 * size]
        np.tanh(candidate, out=candidate)
        np.subtract(state, candidate, out=next_state)
        next_state *= update_reset[:, :size]
        next_state *= 0.5
        next_state += candidate
        return next_state

    def hidden(self, state: FloatArray) -> FloatArray:
        return state


@dataclass(frozen=True, eq=False)
class _LstmCell:
    """An LSTM; its state is `h` and `c` concatenated."""

    recurrent_kernel: Float32Array
    hidden_size: int

    def step(
        self, inputs: Float32Array, state: FloatArray, next_state: Float32Array
    ) -> Float32Array:
        size = self.hidden_size
        gates = np.dot(state[:, :size], self.recurrent_kernel)
        gates += inputs[:, : 4 * size]
        np.tanh(gates, out=gates)
        input_forget, output = gates[:, : 2 * size], gates[:, 3 * size :]
        input_forget += 1.0
        output += 1.0
        next_h, next_c = next_state[:, :size], next_state[:, size:]
        np.multiply(input_forget[:, size:], state[:, size:], out=next_c)
        candidate = gates[:, 2 * size : 3 * size]
        candidate *= input_forget[:, :size]
        next_c += candidate
        next_c *= 0.5
        np.tanh(next_c, out=next_h)
        next_h *= output
        next_h *= 0.5
        return next_h

    def hidden(self, state: FloatArray) -> FloatArray:
        return state[..., : self.hidden_size]


@dataclass(frozen=True, eq=False)
class _RnnCell:
    """The plain cell."""

    recurrent_kernel: Float32Array
    hidden_size: int

    def step(
        self, inputs: Float32Array, state: FloatArray, next_state: Float32Array
    ) -> Float32Array:
        sums = np.dot(state, self.recurrent_kernel)
        sums += inputs[:, : self.hidden_size]
        return np.tanh(sums, out=next_state)

    def hidden(self, state: FloatArray) -> FloatArray:
        return state


@dataclass(frozen=True, eq=False)
class _OutputGate:
    """An output gate; its part of the input product is the last."""

    recurrent_kernel: Float32Array

    def apply(self, inputs: Float32Array, before: FloatArray, after: FloatArray) -> Float32Array:
        """Return `sigmoid(inputs + before U) * tanh(after)` over the last axis."""
        size = len(self.recurrent_kernel)
        gate = affine(before, self.recurrent_kernel, inputs[..., -size:].reshape(-1, size))
        np.tanh(gate, out=gate)
        gate += 1.0
        gate *= 0.5
        outputs = np.tanh(after)
        outputs *= gate
        return outputs


def fold(layer: LayerWeights) -> Layer:
    """Fold the halves of the sigmoids into a layer's weights, and add up its biases.

    Args:
        layer: The trained weights.

    Returns:
        A layer with the same outputs.
    """
    kernel, bias, cell = _FOLDS[layer.cell](layer)
    gate = layer.output_gate
    if gate is not None:
        kernel = np.hstack([kernel, gate.input_kernel * _HALF])
        bias = np.concatenate([bias, gate.bias * _HALF])
    return Layer(
        kernel=kernel,
        bias=bias,
        cell=cell,
        state_size=layer.state_size,
        norm=layer.norm,
        output_gate=None if gate is None else _fold_gate(gate),
    )


def affine(inputs: FloatArray, kernel: Float32Array, bias: Float32Array) -> Float32Array:
    """Return `inputs @ kernel + bias`, computed with 2 axes: with 3, `np.dot` does not use BLAS.

    Args:
        inputs: `[..., inputs]`.
        kernel: `[inputs, outputs]`.
        bias: `[outputs]`, or one row per row of the inputs, `[rows, outputs]`.

    Returns:
        `[..., outputs]`.
    """
    product = np.dot(inputs.reshape(-1, inputs.shape[-1]), kernel)
    product += bias
    outputs: Float32Array = product.reshape(*inputs.shape[:-1], product.shape[-1])
    return outputs


def _fold_gru(layer: LayerWeights) -> tuple[Float32Array, Float32Array, _Cell]:
    size = layer.hidden_size
    halves = np.ones(3 * size, np.float32)
    halves[: 2 * size] = _HALF
    joined = layer.bias[0].copy()
    joined[: 2 * size] += layer.bias[1, : 2 * size]
    cell = _GruCell(
        # The candidate's half belongs to r = (1 + tanh) / 2, which multiplies it.
        recurrent_kernel=_aligned(layer.recurrent_kernel * _HALF),
        recurrent_bias=layer.bias[1, 2 * size :] * _HALF,
        hidden_size=size,
    )
    return layer.input_kernel * halves, joined * halves, cell


def _fold_lstm(layer: LayerWeights) -> tuple[Float32Array, Float32Array, _Cell]:
    size = layer.hidden_size
    halves = np.full(4 * size, _HALF)
    halves[2 * size : 3 * size] = 1
    cell = _LstmCell(_aligned(layer.recurrent_kernel * halves), size)
    return layer.input_kernel * halves, layer.bias[0] * halves, cell


def _fold_rnn(layer: LayerWeights) -> tuple[Float32Array, Float32Array, _Cell]:
    cell = _RnnCell(_aligned(layer.recurrent_kernel), layer.hidden_size)
    return layer.input_kernel, layer.bias[0], cell


_FOLDS: dict[Cell, Callable[[LayerWeights], tuple[Float32Array, Float32Array, _Cell]]] = {
    "gru": _fold_gru,
    "lstm": _fold_lstm,
    "rnn": _fold_rnn,
}


def _fold_gate(gate: OutputGateWeights) -> _OutputGate:
    return _OutputGate(_aligned(gate.recurrent_kernel * _HALF))


def _aligned(array: Float32Array) -> Float32Array:
    """Return a copy aligned to a cache line: at 256 units its product takes 7 µs instead of 9."""
    buffer = np.empty(array.nbytes + _CACHE_LINE, np.uint8)
    start = -buffer.ctypes.data % _CACHE_LINE
    copy = buffer[start : start + array.nbytes].view(np.float32).reshape(array.shape)
    copy[...] = array
    return copy
