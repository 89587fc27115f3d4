"""The folded layers against the reference equations, step by step and in one scan."""

import numpy as np
import pytest

from tests.builders import assert_close
from textgen.engines.numpy_layers import affine, fold
from textgen.engines.reference_engine import layer_step

CELLS = ("gru", "lstm", "rnn")


@pytest.fixture(params=CELLS)
def layer(request, random_weights):
    """The second of two layers, with a norm and an output gate."""
    weights = random_weights(2, num_layers=2, cell=request.param, output_gate=True, layer_norm=True)
    return weights.layers[1]


def test_a_folded_step_equals_the_reference(layer):
    random = np.random.default_rng(2)
    x = random.uniform(-1, 1, (4, 6)).astype(np.float32)
    state = random.uniform(-0.9, 0.9, (4, layer.state_size)).astype(np.float32)
    expected, expected_state = layer_step(layer, x, state)
    folded, next_state = fold(layer), np.empty_like(state)
    assert_close(folded.step(folded.project(x), state, next_state), expected)
    assert_close(next_state, expected_state)


def test_a_scan_equals_a_loop_of_steps(layer):
    random = np.random.default_rng(3)
    x = random.uniform(-1, 1, (7, 4, 6)).astype(np.float32)
    scanned = random.uniform(-0.9, 0.9, (4, layer.state_size)).astype(np.float32)
    folded, state = fold(layer), scanned.copy()
    outputs = folded.scan(folded.project(x), scanned)
    for step, inputs in enumerate(folded.project(x)):
        next_state = np.empty_like(state)
        assert_close(folded.step(inputs, state, next_state), outputs[step])
        state = next_state
    assert_close(scanned, state)


def test_affine_equals_a_sum_over_the_last_axis_for_any_number_of_axes():
    random = np.random.default_rng(4)
    kernel, bias = random.standard_normal((5, 3)), random.standard_normal(3)
    for shape in ((5,), (2, 5), (4, 2, 5)):
        x = random.standard_normal(shape)
        expected = np.einsum("...i,io->...o", x, kernel) + bias
        np.testing.assert_allclose(
            affine(x, kernel, bias), expected.reshape(*shape[:-1], 3), rtol=1e-12
        )


def test_affine_adds_one_row_of_bias_per_row_of_the_inputs():
    x, bias = np.ones((2, 3, 1)), np.arange(6.0).reshape(6, 1)
    expected = [[[2.0], [3.0], [4.0]], [[5.0], [6.0], [7.0]]]
    np.testing.assert_array_equal(affine(x, np.full((1, 1), 2.0), bias), expected)
