"""The reference recurrence compared with equations in NumPy, worked values and Keras's layers."""

import numpy as np
import pytest
import tensorflow as tf

from tests.models.recurrence.oracles import CELLS, STATES, STOCK, make_arguments, numpy_step
from textgen.models.recurrence.reference import reference_recurrence


def batch_major(cell, time, batch, features, hidden, seed):
    inputs, state, *weights = make_arguments(cell, time, batch, features, hidden, seed)
    return inputs.transpose(2, 0, 1), state.T, *weights


@pytest.mark.parametrize("cell", CELLS)
def test_each_step_of_each_lane_follows_the_equations(cell):
    inputs, state, *weights = batch_major(cell, 6, 3, 5, 4, 0)
    outputs, last = reference_recurrence(inputs, state, *weights, cell=cell)
    for lane in range(3):
        expected = state[lane]
        for t in range(6):
            expected = numpy_step(cell, inputs[lane, t], expected, *weights)
            np.testing.assert_allclose(outputs[lane, t], expected[:4], rtol=1e-12)
        np.testing.assert_allclose(last[lane], expected, rtol=1e-12)


def column(*values):
    return tf.constant([values], tf.float64)


def test_a_gru_of_one_unit_gives_the_values_worked_by_hand():
    # z = sigmoid(0) = 1/2, r = sigmoid(ln 3) = 3/4, candidate = tanh(1 + 3/4 * (2 * 2)) = tanh(4)
    outputs, last = reference_recurrence(
        tf.constant([[[1.0]]], tf.float64),
        column(2.0),
        column(0.0, np.log(3.0), 1.0),
        column(0.0, 0.0, 2.0),
        tf.zeros([2, 3], tf.float64),
        cell="gru",
    )
    expected = 0.5 * 2.0 + 0.5 * np.tanh(4.0)
    np.testing.assert_allclose(outputs, [[[expected]]], rtol=1e-14)
    np.testing.assert_allclose(last, [[expected]], rtol=1e-14)


def test_an_lstm_of_one_unit_gives_the_values_worked_by_hand():
    # i = 1/2, f = 3/4, g = tanh(1), o = 1/4; c = 3/4 * 4 + 1/2 * tanh(1); h = 1/4 * tanh(c)
    outputs, last = reference_recurrence(
        tf.constant([[[1.0]]], tf.float64),
        column(5.0, 4.0),
        column(0.0, np.log(3.0), 1.0, -np.log(3.0)),
        tf.zeros([1, 4], tf.float64),
        tf.zeros([1, 4], tf.float64),
        cell="lstm",
    )
    c = 3.0 + 0.5 * np.tanh(1.0)
    h = 0.25 * np.tanh(c)
    np.testing.assert_allclose(outputs, [[[h]]], rtol=1e-14)
    np.testing.assert_allclose(last, [[h, c]], rtol=1e-14)


@pytest.mark.parametrize("cell", CELLS)
def test_outputs_and_states_equal_those_of_keras(cell):
    arguments = (tf.constant(v, tf.float32) for v in batch_major(cell, 12, 3, 5, 8, 1))
    inputs, state, *weights = arguments
    layer = STOCK[cell](8, return_sequences=True, return_state=True)
    layer.build((None, None, 5))
    *kernels, bias = weights
    layer.set_weights([*kernels, tf.reshape(bias, layer.cell.bias.shape)])
    want, *want_last = layer(inputs, initial_state=tf.split(state, STATES[cell], axis=1))
    outputs, last = reference_recurrence(inputs, state, *weights, cell=cell)
    # Values are below 1 and eps is 1.2e-7: 2e-6 is 16 roundings of the largest.
    np.testing.assert_allclose(outputs, want, atol=2e-6)
    np.testing.assert_allclose(last, tf.concat(want_last, axis=1), atol=2e-6)
