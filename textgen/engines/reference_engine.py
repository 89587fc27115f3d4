"""The reference engine: the equations of a model, step by step, in float64.

Written for readability, not speed; the fast engines are tested against it. It knows arrays. It
does NOT know text or sampling.
"""

from collections.abc import Callable

import numpy as np

from textgen.arrays import Float32Array, Float64Array, FloatArray, IntArray, State
from textgen.config import Cell
from textgen.models.weights import (
    NORM_EPSILON,
    LayerWeights,
    ModelWeights,
    NormWeights,
    OutputGateWeights,
)


class ReferenceEngine:
    """Embedding, recurrent layers and Dense, one token at a time.

    With `x_0` the embedding of a token, layer `i` of `n` computes

        inputs = layer_norm(x_i), or x_i without a norm
        state' = gru_step, lstm_step or rnn_step(inputs, state)
        y = gate_output(inputs, h, h'), or h' without an output gate
        x_{i+1} = y + x_i if the model is residual and i >= 1, else y

    where `h` is the state, or for an LSTM its first half. The logits are `x_n W + b`.

    Its states are float64; otherwise it implements `Engine`.
    """

    def __init__(self, weights: ModelWeights) -> None:
        """Store the weights.

        Args:
            weights: The model.
        """
        self._weights = weights
        self.vocab_size = weights.vocab_size

    def initial_state(self, batch: int) -> Float64Array:
        """Return the state at the start of a text, `[num_layers, batch, state_size]`."""
        return self._weights.initial_state(batch).astype(np.float64)

    def forward(self, token_ids: IntArray, state: State) -> tuple[Float32Array, Float64Array]:
        """Return the logits after every token, `[batch, time, vocab_size]`, and the next state."""
        logits = np.empty((*token_ids.shape, self.vocab_size), np.float32)
        next_state = np.array(state, np.float64)
        for time in range(token_ids.shape[1]):
            logits[:, time], next_state = self.decode_step(token_ids[:, time], next_state)
        return logits, next_state

    def prefill(self, token_ids: IntArray, state: State) -> tuple[Float32Array, Float64Array]:
        """Return the logits after the last token, `[batch, vocab_size]`, and the next state."""
        next_state = np.array(state, np.float64)
        for step_ids in token_ids.T:
            logits, next_state = self.decode_step(step_ids, next_state)
        return logits, next_state

    def decode_step(self, token_ids: IntArray, state: State) -> tuple[Float32Array, Float64Array]:
        """Return the logits after one token per row, `[batch, vocab_size]`, and the next state."""
        x: Float64Array = self._weights.embedding[token_ids].astype(np.float64)
        next_state = np.empty(state.shape, np.float64)
        for index, layer in enumerate(self._weights.layers):
            outputs, next_state[index] = layer_step(layer, x, state[index])
            x = outputs + x if self._weights.residual and index >= 1 else outputs
        logits = x @ self._weights.dense_kernel + self._weights.dense_bias
        return logits.astype(np.float32), next_state


def layer_step(
    layer: LayerWeights, x: FloatArray, state: FloatArray
) -> tuple[Float64Array, Float64Array]:
    """Advance one layer, with its norm and its output gate, by one time step.

    Args:
        layer: Its weights.
        x: `[batch, inputs]`.
        state: `[batch, state_size]`, before the step.

    Returns:
        The output `[batch, hidden_size]`, and the state after the step; both float64.
    """
    size = layer.hidden_size
    inputs = x.astype(np.float64) if layer.norm is None else layer_norm(layer.norm, x)
    next_state = _STEPS[layer.cell](layer, inputs, state)
    if layer.output_gate is None:
        return next_state[:, :size], next_state
    return gate_output(layer.output_gate, inputs, state[:, :size], next_state[:, :size]), next_state


def gru_step(layer: LayerWeights, inputs: FloatArray, h: FloatArray) -> Float64Array:
    """Advance a GRU by one time step.

    With kernels `W, U` and biases `b, c` of the input and of the state:

        z = sigmoid(x W_z + b_z + h U_z + c_z)
        r = sigmoid(x W_r + b_r + h U_r + c_r)
        candidate = tanh(x W_h + b_h + r * (h U_h + c_h))
        h' = z * h + (1 - z) * candidate

    Args:
        layer: Its weights.
        inputs: `[batch, inputs]`.
        h: `[batch, hidden_size]`, the state before the step.

    Returns:
        `[batch, hidden_size]` float64, the state after the step.

    Source: Cho et al. 2014, in the form of `keras.layers.GRU(reset_after=True)`.
    """
    x_z, x_r, x_h = np.split(_affine(inputs, layer.input_kernel, layer.bias[0]), 3, axis=-1)
    h_z, h_r, h_h = np.split(_affine(h, layer.recurrent_kernel, layer.bias[1]), 3, axis=-1)
    z = sigmoid(x_z + h_z)
    r = sigmoid(x_r + h_r)
    candidate = np.tanh(x_h + r * h_h)
    return np.asarray(z * h + (1 - z) * candidate)


def lstm_step(layer: LayerWeights, inputs: FloatArray, state: FloatArray) -> Float64Array:
    """Advance an LSTM by one time step.

    With kernels `W, U` and bias `b`:

        i = sigmoid(x W_i + h U_i + b_i)
        f = sigmoid(x W_f + h U_f + b_f)
        candidate = tanh(x W_g + h U_g + b_g)
        o = sigmoid(x W_o + h U_o + b_o)
        c' = f * c + i * candidate
        h' = o * tanh(c')

    Args:
        layer: Its weights.
        inputs: `[batch, inputs]`.
        state: `[batch, 2 * hidden_size]`, `h` and `c` concatenated, before the step.

    Returns:
        `[batch, 2 * hidden_size]` float64, `h'` and `c'` concatenated.

    Source: Gers et al. 2000, in the form of `keras.layers.LSTM`.
    """
    h, c = np.split(state.astype(np.float64), 2, axis=-1)
    gates = _affine(inputs, layer.input_kernel, layer.bias[0]) + h @ layer.recurrent_kernel
    i, f, candidate, o = np.split(gates, 4, axis=-1)
    next_c = sigmoid(f) * c + sigmoid(i) * np.tanh(candidate)
    return np.concatenate([sigmoid(o) * np.tanh(next_c), next_c], axis=-1)


def rnn_step(layer: LayerWeights, inputs: FloatArray, h: FloatArray) -> Float64Array:
    """Advance the plain cell by one time step: `h' = tanh(x W + h U + b)`.

    Args:
        layer: Its weights.
        inputs: `[batch, inputs]`.
        h: `[batch, hidden_size]`, the state before the step.

    Returns:
        `[batch, hidden_size]` float64, the state after the step.

    Source: Elman 1990, in the form of `keras.layers.SimpleRNN`.
    """
    x = _affine(inputs, layer.input_kernel, layer.bias[0])
    return np.asarray(np.tanh(x + h.astype(np.float64) @ layer.recurrent_kernel))


_STEPS: dict[Cell, Callable[[LayerWeights, FloatArray, FloatArray], Float64Array]] = {
    "gru": gru_step,
    "lstm": lstm_step,
    "rnn": rnn_step,
}


def gate_output(
    gate: OutputGateWeights, inputs: FloatArray, before: FloatArray, after: FloatArray
) -> Float64Array:
    """Return the output of a gated layer: `sigmoid(x W + h U + b) * tanh(h')`.

    Args:
        gate: Its weights.
        inputs: `[batch, inputs]`, the inputs of the cell.
        before: `h`, `[batch, hidden_size]`, the state before the step.
        after: `h'`, `[batch, hidden_size]`, the state after the step.

    Returns:
        `[batch, hidden_size]` float64.
    """
    h = before.astype(np.float64)
    sums = _affine(inputs, gate.input_kernel, gate.bias) + h @ gate.recurrent_kernel
    return np.asarray(sigmoid(sums) * np.tanh(after))


def layer_norm(norm: NormWeights, x: FloatArray) -> Float64Array:
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
    normalized = (x - mean) / np.sqrt(variance + NORM_EPSILON)
    return np.asarray(normalized * norm.scale + norm.offset, np.float64)


def sigmoid(x: Float64Array) -> Float64Array:
    """Return `1 / (1 + exp(-x))` for any finite `x`, any shape, without overflow."""
    return np.asarray(np.exp(-np.logaddexp(0.0, -x)))


def _affine(inputs: FloatArray, kernel: Float32Array, bias: Float32Array) -> Float64Array:
    """Return `inputs @ kernel + bias` in float64."""
    return np.asarray(inputs.astype(np.float64) @ kernel + bias, np.float64)
