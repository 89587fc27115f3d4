"""The backward pass: gradients for blocks of any length; those of the inputs are optional."""

from functools import partial

import numpy as np
import pytest
import tensorflow as tf

from tests.models.recurrence.oracles import (
    CELLS,
    make_arguments,
    make_upstream,
    outputs_and_gradients,
    reference,
)
from textgen.models.recurrence import gradient
from textgen.models.recurrence.cells import FUSED_CELLS
from textgen.models.recurrence.fused import fused_recurrence
from textgen.models.recurrence.gradient import ForwardPass, backward
from textgen.models.recurrence.step_lists import empty_stack, push

# Tests run in float64: eps is 2e-16, so 1e-11 leaves a factor of thousands for rounding.
TOLERANCE = {"rtol": 1e-11, "atol": 1e-11}


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("block", [1, 3, 7, 8])
def test_blocks_of_any_length_give_the_gradients_of_the_reference(cell, block, monkeypatch):
    monkeypatch.setattr(gradient, "_BLOCK", block)
    arguments = [tf.constant(value) for value in make_arguments(cell, 7, 2, 5, 4, 0)]
    upstream = make_upstream(cell, 7, 2, 4, 1)
    got = outputs_and_gradients(partial(fused_recurrence, cell=cell), arguments, upstream)
    want = outputs_and_gradients(partial(reference, cell), arguments, upstream)
    for value, truth in zip(got, want, strict=True):
        np.testing.assert_allclose(value, truth, **TOLERANCE)


@pytest.mark.parametrize("time", [24, 25, 26, 50, 51])
def test_lengths_near_multiples_of_a_block_give_the_gradients_of_the_reference(time):
    arguments = [tf.constant(value) for value in make_arguments("gru", time, 2, 3, 4, time)]
    upstream = make_upstream("gru", time, 2, 4, 1)
    got = outputs_and_gradients(partial(fused_recurrence, cell="gru"), arguments, upstream)
    want = outputs_and_gradients(partial(reference, "gru"), arguments, upstream)
    for value, truth in zip(got, want, strict=True):
        np.testing.assert_allclose(value, truth, **TOLERANCE)


def one_step_of_a_plain_cell():
    """A unit with x = 3, h = 0.5 before the step, and a slope of 0.75 at its output."""
    stack = push(empty_stack([1, 1], tf.float64), tf.constant([[0.75]], tf.float64))
    x, states = tf.constant([[[3.0]]], tf.float64), tf.constant([[[0.5]], [[0.9]]], tf.float64)
    return ForwardPass(x, states, [stack])


def test_a_single_step_gives_the_values_worked_by_hand():
    gradients = backward(
        FUSED_CELLS["rnn"],
        one_step_of_a_plain_cell(),
        d_outputs=tf.constant([[[1.0]]], tf.float64),
        d_last=tf.constant([[7.0]], tf.float64),
        input_kernel=tf.constant([[2.0]], tf.float64),
        recurrent_kernel=tf.constant([[10.0]], tf.float64),
    )
    # Before the activation the gradient is (1 + 7) * 0.75 = 6.
    np.testing.assert_array_equal(gradients.inputs, [[[12.0]]])
    np.testing.assert_array_equal(gradients.initial_state, [[60.0]])
    np.testing.assert_array_equal(gradients.input_kernel, [[18.0]])
    np.testing.assert_array_equal(gradients.recurrent_kernel, [[3.0]])
    np.testing.assert_array_equal(gradients.biases, [[6.0]])


def test_without_an_input_kernel_only_the_gradient_of_the_inputs_is_left_out():
    arguments = {
        "d_outputs": tf.constant([[[1.0]]], tf.float64),
        "d_last": tf.constant([[7.0]], tf.float64),
        "recurrent_kernel": tf.constant([[10.0]], tf.float64),
    }
    cell, kernel = FUSED_CELLS["rnn"], tf.constant([[2.0]], tf.float64)
    inputs, *without = backward(cell, one_step_of_a_plain_cell(), input_kernel=None, **arguments)
    _, *others = backward(cell, one_step_of_a_plain_cell(), input_kernel=kernel, **arguments)
    assert inputs is None
    for value, truth in zip(without, others, strict=True):
        np.testing.assert_array_equal(value, truth)
