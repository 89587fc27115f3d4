"""The cells of the fused kernel: one step against equations, its derivatives against autodiff."""

import numpy as np
import pytest
import tensorflow as tf

from tests.models.recurrence.oracles import CELLS, STATES, make_arguments, numpy_step
from textgen.models.recurrence.cells import FUSED_CELLS

# Tests run in float64: eps is 2e-16, so 1e-12 leaves a factor of thousands for rounding.
TOLERANCE = {"rtol": 1e-12, "atol": 1e-12}


def make_step(cell, batch=3, features=5, hidden=4, seed=0):
    """One step's input, states and arranged weights."""
    inputs, state, kernel, recurrent, bias = (
        tf.constant(value) for value in make_arguments(cell, 1, batch, features, hidden, seed)
    )
    arranged, biases = FUSED_CELLS[cell].arrange(kernel, bias)
    states = tuple(tf.split(state, STATES[cell], axis=0))
    return inputs[0], states, arranged, recurrent, biases


def run_step(cell, x, states, kernel, recurrent, biases):
    products = (
        tf.matmul(kernel, x, transpose_a=True),
        tf.matmul(recurrent, states[0], transpose_a=True),
    )
    return FUSED_CELLS[cell].step(*products, biases, states)


@pytest.mark.parametrize("cell", CELLS)
def test_a_step_follows_the_equations(cell):
    inputs, state, *weights = make_arguments(cell, 1, 3, 5, 4, 0)
    next_states, rounded, _ = run_step(cell, *make_step(cell))
    joined = np.concatenate(next_states)
    for lane in range(3):
        want = numpy_step(cell, inputs[0, :, lane], state[:, lane], *weights)
        np.testing.assert_allclose(joined[:, lane], want, **TOLERANCE)
    np.testing.assert_array_equal(rounded, next_states[0])


@pytest.mark.parametrize("cell", CELLS)
def test_the_backward_step_gives_the_derivatives_of_the_forward_step(cell):
    x, states, kernel, recurrent, biases = make_step(cell, seed=1)
    fused, rng = FUSED_CELLS[cell], np.random.default_rng(1)
    upstream = [tf.constant(rng.normal(size=state.shape)) for state in states]
    with tf.GradientTape() as tape:
        tape.watch([*states, biases])
        next_states, _, saved = run_step(cell, x, states, kernel, recurrent, biases)
        loss = tf.add_n([tf.reduce_sum(a * b) for a, b in zip(next_states, upstream, strict=True)])
    want = tape.gradient(loss, [*states, biases])

    def through_product(d_pieces):
        return tf.matmul(recurrent, d_pieces[-recurrent.shape[1] :])

    d_pieces, d_states = fused.backward_step(tuple(upstream), saved, through_product)
    for value, truth in zip(d_states, want[:-1], strict=True):
        np.testing.assert_allclose(value, truth, **TOLERANCE)
    # A bias is added to each piece, so its gradient is the sum over the lanes.
    np.testing.assert_allclose(tf.reduce_sum(d_pieces, axis=1)[:, None], want[-1], **TOLERANCE)


@pytest.mark.parametrize("cell", CELLS)
def test_saved_tensors_have_the_shapes_that_the_cell_declares(cell):
    x, states, *weights = make_step(cell)
    _, _, saved = run_step(cell, x, states, *weights)
    fused = FUSED_CELLS[cell]
    assert [tuple(value.shape) for value in saved] == [(*sizes, 4, 3) for sizes in fused.saved]
    assert (len(states), len(weights[-1])) == (fused.states, fused.pieces * 4)
    assert weights[0].shape[1] == fused.gates * 4


def test_a_gru_is_arranged_by_candidate_update_reset_and_the_candidates_recurrent_bias():
    kernel, bias = (
        tf.constant([[1.0, 2.0, 3.0]]),
        tf.constant([[10.0, 20.0, 30.0], [1.0, 2.0, 3.0]]),
    )
    arranged, biases = FUSED_CELLS["gru"].arrange(kernel, bias)
    np.testing.assert_array_equal(arranged, [[3.0, 1.0, 2.0]])
    np.testing.assert_array_equal(biases, [[30.0], [11.0], [22.0], [3.0]])


@pytest.mark.parametrize("cell", ["lstm", "rnn"])
def test_the_other_cells_keep_the_order_of_their_gates(cell):
    gates = FUSED_CELLS[cell].gates
    kernel, bias = np.arange(2.0 * gates).reshape(2, gates), np.arange(1.0 * gates)[None]
    arranged, biases = FUSED_CELLS[cell].arrange(tf.constant(kernel), tf.constant(bias))
    np.testing.assert_array_equal(arranged, kernel)
    np.testing.assert_array_equal(biases, bias.T)
