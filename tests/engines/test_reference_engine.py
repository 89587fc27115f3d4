"""The reference engine against Keras layers, and against values computed by hand."""

import numpy as np
import pytest

from tests.builders import assert_close
from textgen.engines.reference_engine import (
    ReferenceEngine,
    gate_output,
    gru_step,
    layer_norm,
    lstm_step,
    rnn_step,
    sigmoid,
)
from textgen.models.weights import NormWeights

TOKENS = np.random.default_rng(7).integers(0, 9, (3, 11)).astype(np.int32)


@pytest.mark.parametrize("cell", ["gru", "lstm", "rnn"])
def test_the_engine_equals_stacked_keras_layers(random_weights, cell):
    weights = random_weights(
        num_layers=3,
        cell=cell,
        output_gate=True,
        residual=True,
        layer_norm=True,
        initial_state=True,
    )
    x = weights.embedding[TOKENS]
    first, last = weights.initial_state(3), []
    for index, layer in enumerate(weights.layers):
        inputs = x if layer.norm is None else keras_norm(layer.norm, x)
        h, state = keras_layer(layer, inputs, first[index])
        last.append(state)
        before = np.concatenate([first[index][:, None, :6], h[:, :-1]], axis=1)
        gate = layer.output_gate
        opened = sigmoid(inputs @ gate.input_kernel + before @ gate.recurrent_kernel + gate.bias)
        outputs = opened * np.tanh(h)
        x = outputs + x if index else outputs
    reference = ReferenceEngine(weights)
    logits, state = reference.forward(TOKENS, reference.initial_state(3))
    assert_close(logits, x @ weights.dense_kernel + weights.dense_bias)
    assert_close(state, last)
    assert state.dtype == np.float64


def keras_norm(norm, x):
    import keras

    layer = keras.layers.LayerNormalization()
    layer.build(x.shape)
    layer.set_weights([norm.scale, norm.offset])
    return keras.ops.convert_to_numpy(layer(x))


def keras_layer(layer, inputs, state):
    """Return all `h` and the last state of a Keras layer with these weights."""
    import keras

    kinds = {"gru": keras.layers.GRU, "lstm": keras.layers.LSTM, "rnn": keras.layers.SimpleRNN}
    stock = kinds[layer.cell](layer.hidden_size, return_sequences=True, return_state=True)
    stock.build(inputs.shape)
    bias = layer.bias if layer.cell == "gru" else layer.bias[0]
    stock.set_weights([layer.input_kernel, layer.recurrent_kernel, bias])
    initial = np.split(state, layer.state_size // layer.hidden_size, axis=-1)
    h, *last = stock(inputs, initial_state=[keras.ops.convert_to_tensor(part) for part in initial])
    last = [keras.ops.convert_to_numpy(part) for part in last]
    return keras.ops.convert_to_numpy(h), np.concatenate(last, axis=-1)


def test_a_step_of_the_gru_equals_a_hand_computed_unit(random_weights):
    layer = random_weights(hidden_size=1, embedding_dim=1).layers[0]
    (w_z, w_r, w_h), (u_z, u_r, u_h) = layer.input_kernel[0], layer.recurrent_kernel[0]
    (b_z, b_r, b_h), (c_z, c_r, c_h) = layer.bias
    x, h = 0.7, -0.4
    z = 1 / (1 + np.exp(-(x * w_z + b_z + h * u_z + c_z)))
    r = 1 / (1 + np.exp(-(x * w_r + b_r + h * u_r + c_r)))
    candidate = np.tanh(x * w_h + b_h + r * (h * u_h + c_h))
    expected = z * h + (1 - z) * candidate
    np.testing.assert_allclose(gru_step(layer, np.array([[x]]), np.array([[h]])), [[expected]])


def test_a_step_of_the_lstm_equals_a_hand_computed_unit(random_weights):
    layer = random_weights(hidden_size=1, embedding_dim=1, cell="lstm").layers[0]
    x, h, c = 0.7, -0.4, 0.9
    sums = x * layer.input_kernel[0] + h * layer.recurrent_kernel[0] + layer.bias[0]
    i, f, o = 1 / (1 + np.exp(-sums[[0, 1, 3]].astype(np.float64)))
    next_c = f * c + i * np.tanh(sums[2].astype(np.float64))
    expected = [[o * np.tanh(next_c), next_c]]
    np.testing.assert_allclose(
        lstm_step(layer, np.array([[x]]), np.array([[h, c]])), expected, rtol=1e-7
    )


def test_a_step_of_the_plain_cell_equals_a_hand_computed_unit(random_weights):
    layer = random_weights(hidden_size=1, embedding_dim=1, cell="rnn").layers[0]
    (w,), (u,), (b,) = layer.input_kernel[0], layer.recurrent_kernel[0], layer.bias[0]
    expected = [[np.tanh(0.7 * w - 0.4 * u + b)]]
    np.testing.assert_allclose(
        rnn_step(layer, np.array([[0.7]]), np.array([[-0.4]])), expected, rtol=1e-7
    )


def test_an_output_gate_equals_a_hand_computed_unit(random_weights):
    weights = random_weights(hidden_size=1, embedding_dim=1, output_gate=True)
    gate = weights.layers[0].output_gate
    (w,), (u,), b = gate.input_kernel[0], gate.recurrent_kernel[0], gate.bias[0]
    share = 1 / (1 + np.exp(-(0.7 * w - 0.4 * u + b)))
    actual = gate_output(gate, np.array([[0.7]]), np.array([[-0.4]]), np.array([[0.5]]))
    np.testing.assert_allclose(actual, [[share * np.tanh(0.5)]], rtol=1e-7)


def test_a_layer_norm_equals_a_hand_computed_row():
    norm = NormWeights(scale=np.float32([2, 1]), offset=np.float32([0, 3]))
    # Mean 3, variance 4, with 0.001 added to it.
    expected = [[2 * -2 / np.sqrt(4.001), 2 / np.sqrt(4.001) + 3]]
    np.testing.assert_allclose(layer_norm(norm, np.array([[1.0, 5.0]])), expected, rtol=1e-12)


def test_sigmoid_neither_overflows_nor_loses_small_values():
    with np.errstate(all="raise", under="ignore"):
        values = sigmoid(np.array([-700.0, -2.0, 0.0, 800.0]))
    np.testing.assert_allclose(values, [np.exp(-700.0), 1 / (1 + np.exp(2.0)), 0.5, 1.0])
