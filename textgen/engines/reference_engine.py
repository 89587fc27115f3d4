"""The slow twin of every engine: a model as its equations stand, in float64.

GeneratedText to be read and to be trusted; the fast engines are held to it. It knows arrays.
It does NOT know text, sampling, or speed.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from textgen.config import Cell
from textgen.models.weights import (
    NORM_EPSILON,
    LayerWeights,
    ModelWeights,
    NormWeights,
    OutputGateWeights,
)

Array = NDArray[np.float64]
Floats = NDArray[np.floating]


class ReferenceEngine:
    """Embedding, recurrent layers and Dense, one token of one step at a time.

    With `x_0` the embedding of a token, layer `i` of `n` computes

        inputs = layer_norm(x_i), or x_i without a norm
        state' = gru_step, lstm_step or rnn_step(inputs, state)
        y = gate_output(inputs, h, h'), or h' without an output gate
        x_{i+1} = y + x_i if the model is residual and i >= 1, else y

    where `h` is the state, of an LSTM its first half; the logits are `x_n W + b`.

    Its state is float64; otherwise it keeps the contract of `Engine`.
    """

    def __init__(self, weights: ModelWeights) -> None:
        self._weights = weights
        self.vocab_size = weights.vocab_size

    def initial_state(self, batch: int) -> Array:
        """Return the state at the beginning of a text, `[num_layers, batch, state_size]`."""
        return self._weights.initial_state(batch).astype(np.float64)

    def forward(
        self, token_ids: NDArray[np.integer], state: Floats
    ) -> tuple[NDArray[np.float32], Array]:
        """Return the logits after every token, `[batch, time, vocab_size]`, and the next state."""
        logits = np.empty((*token_ids.shape, self.vocab_size), np.float32)
        next_state = np.array(state, np.float64)
        for time in range(token_ids.shape[1]):
            logits[:, time], next_state = self.decode_step(token_ids[:, time], next_state)
        return logits, next_state

    def prefill(
        self, token_ids: NDArray[np.integer], state: Floats
    ) -> tuple[NDArray[np.float32], Array]:
        """Return the logits after the last token, `[batch, vocab_size]`, and the next state."""
        next_state = np.array(state, np.float64)
        for step_ids in token_ids.T:
            logits, next_state = self.decode_step(step_ids, next_state)
        return logits, next_state

    def decode_step(
        self, token_ids: NDArray[np.integer], state: Floats
    ) -> tuple[NDArray[np.float32], Array]:
        """Return the logits after one token a row, `[batch, vocab_size]`, and the next state."""
        x = self._weights.embedding[token_ids].astype(np.float64)
        next_state = np.empty(state.shape, np.float64)
        for index, layer in enumerate(self._weights.layers):
            outputs, next_state[index] = layer_step(layer, x, state[index])
            x = outputs + x if self._weights.residual and index >= 1 else outputs
        logits = x @ self._weights.dense_kernel + self._weights.dense_bias
        return logits.astype(np.float32), next_state


def layer_step(layer: LayerWeights, x: Floats, state: Floats) -> tuple[Array, Array]:
    """Advance one layer, its norm and its output gate included, by one step.

    Args:
        layer: Its weights.
        x: `[batch, inputs]`.
        state: `[batch, state_size]`, before.

    Returns:
        What it passes on, `[batch, hidden_size]`, and the state after; both float64.
    """
    size = layer.hidden_size
    inputs = x.astype(np.float64) if layer.norm is None else layer_norm(layer.norm, x)
    next_state = STEPS[layer.cell](layer, inputs, state)
    if layer.output_gate is None:
        return next_state[:, :size], next_state
    return gate_output(layer.output_gate, inputs, state[:, :size], next_state[:, :size]), next_state


def gru_step(layer: LayerWeights, inputs: Floats, h: Floats) -> Array:
    """Advance a GRU by one step.

    With `W, U` the kernels, `b, c` the biases of the input and of the state:

        z = sigmoid(x W_z + b_z + h U_z + c_z)
        r = sigmoid(x W_r + b_r + h U_r + c_r)
        candidate = tanh(x W_h + b_h + r * (h U_h + c_h))
        h' = z * h + (1 - z) * candidate

    Args:
        layer: Its weights.
        inputs: `[batch, inputs]`.
        h: `[batch, hidden_size]`, the state before.

    Returns:
        `[batch, hidden_size]` float64, the state after.

    Source: Cho et al. 2014, in the form of `keras.layers.GRU(reset_after=True)`.
    """
    x_z, x_r, x_h = np.split(inputs.astype(np.float64) @ layer.input_kernel + layer.bias[0], 3, axis=-1)
    h_z, h_r, h_h = np.split(h @ layer.recurrent_kernel.astype(np.float64) + layer.bias[1], 3, -1)
    z = sigmoid(x_z + h_z)
    r = sigmoid(x_r + h_r)
    candidate = np.tanh(x_h + r * h_h)
    return z * h + (1 - z) * candidate


def lstm_step(layer: LayerWeights, inputs: Floats, state: Floats) -> Array:
    """Advance an LSTM by one step.

    With `W, U` the kernels, `b` the bias:

        i = sigmoid(x W_i + h U_i + b_i)
        f = sigmoid(x W_f + h U_f + b_f)
        candidate = tanh(x W_g + h U_g + b_g)
        o = sigmoid(x W_o + h U_o + b_o)
        c' = f * c + i * candidate
        h' = o * tanh(c')

    Args:
        layer: Its weights.
        inputs: `[batch, inputs]`.
        state: `[batch, 2 * hidden_size]`, `h` and behind it `c`, before.

    Returns:
        `[batch, 2 * hidden_size]` float64, `h'` and `c'`.

    Source: Gers et al. 2000, in the form of `keras.layers.LSTM`.
    """
    h, c = np.split(state.astype(np.float64), 2, axis=-1)
    gates = inputs.astype(np.float64) @ layer.input_kernel + h @ layer.recurrent_kernel + layer.bias[0]
    i, f, candidate, o = np.split(gates, 4, axis=-1)
    next_c = sigmoid(f) * c + sigmoid(i) * np.tanh(candidate)
    return np.concatenate([sigmoid(o) * np.tanh(next_c), next_c], axis=-1)


def rnn_step(layer: LayerWeights, inputs: Floats, h: Floats) -> Array:
    """Advance the plain cell by one step: `h' = tanh(x W + h U + b)`.

    Args:
        layer: Its weights.
        inputs: `[batch, inputs]`.
        h: `[batch, hidden_size]`, the state before.

    Returns:
        `[batch, hidden_size]` float64, the state after.

    Source: Elman 1990, in the form of `keras.layers.SimpleRNN`.
    """
    x = inputs.astype(np.float64) @ layer.input_kernel + layer.bias[0]
    return np.tanh(x + h.astype(np.float64) @ layer.recurrent_kernel)


STEPS: dict[Cell, Callable[[LayerWeights, Floats, Floats], Array]] = {
    "gru": gru_step,
    "lstm": lstm_step,
    "rnn": rnn_step,
}


def gate_output(gate: OutputGateWeights, inputs: Floats, before: Floats, after: Floats) -> Array:
    """Return what a gated layer passes on: `sigmoid(x W + h U + b) * tanh(h')`.

    Args:
        gate: Its weights.
        inputs: `[batch, inputs]`, what the cell read.
        before: `h`, `[batch, hidden_size]`, the state before.
        after: `h'`, `[batch, hidden_size]`, the state after.

    Returns:
        `[batch, hidden_size]` float64.
    """
    h = before.astype(np.float64)
    share = sigmoid(inputs @ gate.input_kernel + h @ gate.recurrent_kernel + gate.bias)
    return share * np.tanh(after)


def layer_norm(norm: NormWeights, x: Floats) -> Array:
    """Return `(x - mean) / sqrt(variance + NORM_EPSILON) * scale + offset` in float64.

    Args:
        norm: Its weights.
        x: `[..., features]`; mean and variance are those of the last axis.

    Returns:
        The shape of `x`.

    Source: Ba et al. 2016, "Layer Normalization".
    """
    x = x.astype(np.float64)
    mean, variance = x.mean(-1, keepdims=True), x.var(-1, keepdims=True)
    return (x - mean) / np.sqrt(variance + NORM_EPSILON) * norm.scale + norm.offset


def sigmoid(x: Array) -> Array:
    """Return `1 / (1 + exp(-x))` for any finite `x`, without overflow."""
    return np.exp(-np.logaddexp(0.0, -x))
