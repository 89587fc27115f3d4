"""The output gate compared with its equation in NumPy, in both layouts."""

from typing import get_args

import numpy as np
import pytest
import tensorflow as tf

from tests.models.recurrence.oracles import sigmoid
from textgen.config import ResolvedKernel
from textgen.models.layout import Layout
from textgen.models.output_gate import OutputGate

BATCH, TIME, FEATURES, HIDDEN = 3, 4, 5, 6
KERNELS = get_args(ResolvedKernel)


def make_gate(kernel):
    gate = OutputGate(HIDDEN, layout=Layout.of(kernel), seed=1, name="output_gate")
    gate.build(FEATURES)
    gate.bias.assign(np.linspace(-1, 1, HIDDEN, dtype=np.float32))
    return gate


def make_windows(seed=0):
    """Inputs and states `[batch, time, ...]`, and the state before, float32."""
    rng = np.random.default_rng(seed)
    shapes = (BATCH, TIME, FEATURES), (BATCH, TIME, HIDDEN), (BATCH, HIDDEN)
    return [rng.normal(size=shape).astype(np.float32) for shape in shapes]


def equation(gate, inputs, states, initial_state, input_kernel=None):
    """`y_t = sigmoid(x_t W + h_{t-1} U + b) * tanh(h_t)`, one step at a time."""
    w, u, b = (np.float64(value) for value in gate.get_weights())
    w = w if input_kernel is None else input_kernel
    previous, outputs = np.float64(initial_state), []
    for t in range(TIME):
        outputs.append(sigmoid(inputs[:, t] @ w + previous @ u + b) * np.tanh(states[:, t]))
        previous = np.float64(states[:, t])
    return np.stack(outputs, axis=1)


def run(gate, inputs, states, initial_state, **arguments):
    windows = (gate.layout.from_batch_major(tf.constant(x)) for x in (inputs, states))
    return gate.layout.to_batch_major(gate(*windows, initial_state, **arguments))


@pytest.mark.parametrize("kernel", KERNELS)
def test_the_gate_follows_its_equation(kernel):
    gate, windows = make_gate(kernel), make_windows()
    # Outputs are below 1 and eps is 1.2e-7: 2e-6 is 16 roundings of the largest.
    np.testing.assert_allclose(run(gate, *windows), equation(gate, *windows), atol=2e-6)


@pytest.mark.parametrize("kernel", KERNELS)
def test_a_given_input_kernel_replaces_its_own(kernel):
    gate, windows = make_gate(kernel), make_windows(1)
    other = np.random.default_rng(2).normal(size=(FEATURES, HIDDEN)).astype(np.float32)
    want = equation(gate, *windows, other)
    assert abs(want - equation(gate, *windows)).max() > 0.1
    np.testing.assert_allclose(run(gate, *windows, input_kernel=other), want, atol=2e-6)


def test_rounded_states_are_gated_in_float32():
    gate, (inputs, states, initial_state) = make_gate("fused"), make_windows()
    rounded = tf.cast(states, tf.bfloat16)
    outputs = run(gate, inputs, rounded, initial_state)
    assert outputs.dtype == tf.float32
    want = equation(gate, inputs, tf.cast(rounded, tf.float32).numpy(), initial_state)
    np.testing.assert_allclose(outputs, want, atol=2e-6)


def test_one_hot_columns_of_integers_select_rows_of_the_input_kernel():
    gate, (_, states, initial_state) = make_gate("fused"), make_windows()
    token_ids = np.array([[0, 4, 1, 1], [2, 3, 0, 4], [4, 4, 4, 2]])
    columns = gate.layout.one_hot_columns(tf.constant(token_ids), FEATURES)
    outputs = gate(columns, gate.layout.from_batch_major(tf.constant(states)), initial_state)
    want = equation(gate, np.eye(FEATURES)[token_ids], states, initial_state)
    np.testing.assert_allclose(gate.layout.to_batch_major(outputs), want, atol=2e-6)


def test_variables_keep_the_names_that_checkpoints_have():
    names = [variable.path for variable in make_gate("fused").weights]
    assert names == [f"output_gate/{name}" for name in ("kernel", "recurrent_kernel", "bias")]
