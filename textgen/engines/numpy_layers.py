"""The recurrent layers of the NumPy engine, each held to its slow twin in `reference`.

They know arrays. They do NOT know token ids, or how layers stand on each other.

`sigmoid(x) = (1 + tanh(x / 2)) / 2`, and the halves inside are multiplied into the weights
beforehand, which is exact in binary: all gates of a step cost one call of tanh or two.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from textgen.config import Cell
from textgen.models.weights import NORM_EPSILON, LayerWeights, NormWeights, OutputGateWeights

Array = NDArray[np.float32]

CACHE_LINE = 64
HALF = np.float32(0.5)


class _Cell(Protocol):
    """What turns a layer's input product and its state into the next state."""

    def step(self, inputs: Array, state: Array, next_state: Array) -> Array:
        """Write the state after one step into `next_state`, and return its `h`."""

    def hidden(self, state: Array) -> Array:
        """Return `h` of states, `[..., state_size]`."""


@dataclass(frozen=True, eq=False)
class Layer:
    """A recurrent layer whose halves of the sigmoids are folded in.

    Attributes:
        kernel: `[inputs, width]`, the cell's kernel and beside it the output gate's.
        bias: `[width]`.
        cell: What computes the next state.
        state_size: Values that it carries.
        norm: Of the input, or None.
        output_gate: On what the layer passes on, or None.
    """

    kernel: Array
    bias: Array
    cell: _Cell
    state_size: int
    norm: NormWeights | None
    output_gate: "_OutputGate | None"

    def project(self, x: Array) -> Array:
        """Return the input product of `[..., inputs]`, `[..., width]`, biases added."""
        inputs = x if self.norm is None else normalise(self.norm, x)
        return affine(inputs, self.kernel, self.bias)

    def step(self, inputs: Array, state: Array, next_state: Array) -> Array:
        """Advance by one step.

        Args:
            inputs: `[batch, width]`, the input product.
            state: `[batch, state_size]`, before.
            next_state: The same shape, float32; the state after is written into it.

        Returns:
            What the layer passes on, `[batch, hidden_size]`; may be a view of `next_state`.
        """
        after = self.cell.step(inputs, state, next_state)
        if self.output_gate is None:
            return after
        return self.output_gate.apply(inputs, self.cell.hidden(state), after)

    def scan(self, inputs: Array, state: Array) -> Array:
        """Advance by several steps.

        Args:
            inputs: `[time, batch, width]`, the input product.
            state: `[batch, state_size]`, before; the state after is written into it.

        Returns:
            What the layer passes on, `[time, batch, hidden_size]`.
        """
        states = np.empty((*inputs.shape[:2], self.state_size), np.float32)
        before = state
        for step_inputs, after in zip(inputs, states, strict=True):
            self.cell.step(step_inputs, before, after)
            before = after
        outputs = self.cell.hidden(states)
        if self.output_gate is not None:
            # All steps at once: the gate does not act on the state.
            hidden = np.concatenate([self.cell.hidden(state)[None], outputs[:-1]])
            outputs = self.output_gate.apply(inputs, hidden, outputs)
        state[...] = before
        return outputs


@dataclass(frozen=True, eq=False)
class _GruCell:
    """A GRU; its z and r biases are part of the input product."""

    recurrent_kernel: Array
    recurrent_bias: Array
    hidden_size: int

    def step(self, inputs: Array, state: Array, next_state: Array) -> Array:
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

    def hidden(self, state: Array) -> Array:
        return state


@dataclass(frozen=True, eq=False)
class _LstmCell:
    """An LSTM; its state is `h` and behind it `c`."""

    recurrent_kernel: Array
    hidden_size: int

    def step(self, inputs: Array, state: Array, next_state: Array) -> Array:
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

    def hidden(self, state: Array) -> Array:
        return state[..., : self.hidden_size]


@dataclass(frozen=True, eq=False)
class _RnnCell:
    """The plain cell."""

    recurrent_kernel: Array
    hidden_size: int

    def step(self, inputs: Array, state: Array, next_state: Array) -> Array:
        sums = np.dot(state, self.recurrent_kernel)
        sums += inputs[:, : self.hidden_size]
        return np.tanh(sums, out=next_state)

    def hidden(self, state: Array) -> Array:
        return state


@dataclass(frozen=True, eq=False)
class _OutputGate:
    """A gate whose part of the input product stands last in it."""

    recurrent_kernel: Array

    def apply(self, inputs: Array, before: Array, after: Array) -> Array:
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
    """Multiply the sigmoids' halves into a layer's weights, and join the biases that add up.

    Args:
        layer: As it was trained.

    Returns:
        A layer of the same outputs.
    """
    kernel, bias, cell = _FOLDS[layer.cell](layer)
    gate = layer.output_gate
    if gate is not None:
        kernel = np.hstack([kernel, gate.input_kernel * HALF])
        bias = np.concatenate([bias, gate.bias * HALF])
    return Layer(
        kernel=kernel,
        bias=bias,
        cell=cell,
        state_size=layer.state_size,
        norm=layer.norm,
        output_gate=None if gate is None else _fold_gate(gate),
    )


def affine(inputs: Array, kernel: Array, bias: Array) -> Array:
    """Return `inputs @ kernel + bias` as one product: with 3 axes `np.dot` leaves BLAS.

    Args:
        inputs: `[..., inputs]`.
        kernel: `[inputs, outputs]`.
        bias: `[outputs]`, or a row for each of the inputs', `[rows, outputs]`.

    Returns:
        `[..., outputs]`.
    """
    product = np.dot(inputs.reshape(-1, inputs.shape[-1]), kernel)
    product += bias
    return product.reshape(*inputs.shape[:-1], product.shape[-1])


def normalise(norm: NormWeights, x: Array) -> Array:
    """Return `x` with mean 0 and variance 1 over its last axis, scaled and moved.

    Args:
        norm: Scale and offset, each `[features]`.
        x: float32 `[..., features]`.

    Returns:
        The shape of `x`.
    """
    centred = x - x.mean(-1, keepdims=True)
    variance = np.square(centred).mean(-1, keepdims=True)
    centred /= np.sqrt(variance + np.float32(NORM_EPSILON))
    centred *= norm.scale
    centred += norm.offset
    return centred


def _fold_gru(layer: LayerWeights) -> tuple[Array, Array, _Cell]:
    size = layer.hidden_size
    halves = np.ones(3 * size, np.float32)
    halves[: 2 * size] = HALF
    joined = layer.bias[0].copy()
    joined[: 2 * size] += layer.bias[1, : 2 * size]
    cell = _GruCell(
        # The candidate's half belongs to r = (1 + tanh) / 2, which multiplies it.
        recurrent_kernel=_aligned(layer.recurrent_kernel * HALF),
        recurrent_bias=layer.bias[1, 2 * size :] * HALF,
        hidden_size=size,
    )
    return layer.input_kernel * halves, joined * halves, cell


def _fold_lstm(layer: LayerWeights) -> tuple[Array, Array, _Cell]:
    size = layer.hidden_size
    halves = np.full(4 * size, HALF)
    halves[2 * size : 3 * size] = 1
    cell = _LstmCell(_aligned(layer.recurrent_kernel * halves), size)
    return layer.input_kernel * halves, layer.bias[0] * halves, cell


def _fold_rnn(layer: LayerWeights) -> tuple[Array, Array, _Cell]:
    cell = _RnnCell(_aligned(layer.recurrent_kernel), layer.hidden_size)
    return layer.input_kernel, layer.bias[0], cell


_FOLDS: dict[Cell, Callable[[LayerWeights], tuple[Array, Array, _Cell]]] = {
    "gru": _fold_gru,
    "lstm": _fold_lstm,
    "rnn": _fold_rnn,
}


def _fold_gate(gate: OutputGateWeights) -> _OutputGate:
    return _OutputGate(_aligned(gate.recurrent_kernel * HALF))


def _aligned(array: Array) -> Array:
    """Return a copy that begins at a cache line: at 256 units its product takes 7 µs, not 9."""
    room = np.empty(array.nbytes + CACHE_LINE, np.uint8)
    begin = -room.ctypes.data % CACHE_LINE
    copy = room[begin : begin + array.nbytes].view(np.float32).reshape(array.shape)
    copy[...] = array
    return copy
