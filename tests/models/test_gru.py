"""The GRU layer: its kernels against each other, against Keras, and against float64 NumPy."""

import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from textgen.config import ModelConfig
from textgen.models.fused_gru import fused_gru
from textgen.models.gru import GRU
from textgen.models.kernels import KernelChoice, choose_gru_kernel
from textgen.models.language_model import build_language_model
from textgen.presets import PRESETS


def _arguments(time, batch, hidden, seed, dtype):
    rng = np.random.default_rng(seed)
    shapes = [(time, batch, 3 * hidden), (batch, hidden), (hidden, 3 * hidden), (3 * hidden,)]
    values = [rng.normal(size=shape) for shape in shapes]
    # as orthogonal weights have it: larger ones make the recurrence chaotic in any precision
    values[2] /= np.sqrt(hidden)
    return [tf.constant(value, dtype) for value in values]


def _plain_loop(input_gates, state, recurrent_kernel, recurrent_bias):
    """The equations, a step at a time; TensorFlow differentiates it."""
    states = []
    for x in tf.unstack(input_gates):
        u = state @ recurrent_kernel + recurrent_bias
        x_z, x_r, x_c = tf.split(x, 3, axis=1)
        u_z, u_r, u_c = tf.split(u, 3, axis=1)
        z, r = tf.sigmoid(x_z + u_z), tf.sigmoid(x_r + u_r)
        state = z * state + (1 - z) * tf.tanh(x_c + r * u_c)
        states.append(state)
    return tf.stack(states)


def _outputs_and_gradients(function, arguments, upstream):
    with tf.GradientTape() as tape:
        tape.watch(arguments)
        states = function(*arguments)
        loss = tf.reduce_sum(states * tf.cast(upstream, states.dtype))
    return [states, *tape.gradient(loss, arguments)]


def _relative_error(value, truth):
    value, truth = np.float64(value), np.float64(truth)
    return np.linalg.norm(value - truth) / np.linalg.norm(truth)


@pytest.mark.parametrize("time, batch, hidden", [(1, 1, 1), (1, 3, 7), (5, 1, 7), (20, 4, 33)])
def test_fused_kernel_and_its_gradients_equal_the_plain_loop_in_float64(time, batch, hidden):
    seed = np.random.SeedSequence().entropy
    single = _arguments(time, batch, hidden, seed, tf.float32)
    double = [tf.cast(argument, tf.float64) for argument in single]
    upstream = np.random.default_rng(seed).normal(size=(time, batch, hidden))
    got = _outputs_and_gradients(fused_gru, single, upstream)
    want = _outputs_and_gradients(_plain_loop, double, upstream)
    for value, truth in zip(got, want, strict=True):
        assert _relative_error(value, truth) < 1e-5, f"seed {seed}"


def test_the_layer_computes_what_the_keras_layer_with_its_weights_computes():
    layer = GRU(16, kernel="fused", seed=3)
    inputs = np.random.default_rng(0).normal(size=(9, 4, 5)).astype("float32")
    state = np.random.default_rng(1).normal(size=(4, 16)).astype("float32")
    outputs, last = layer(tf.constant(inputs), tf.constant(state))
    stock = keras.layers.GRU(16, return_sequences=True, return_state=True, reset_after=True)
    stock.build((4, 9, 5))
    stock.set_weights(layer.gru.get_weights())
    want, want_last = stock(inputs.transpose(1, 0, 2), initial_state=state)
    np.testing.assert_allclose(outputs, np.transpose(want, (1, 0, 2)), atol=1e-6)
    np.testing.assert_allclose(last, want_last, atol=1e-6)


def test_without_a_gpu_the_fused_kernel_is_chosen_with_its_reason():
    if tf.config.list_logical_devices("GPU"):
        pytest.skip("a GPU is visible")
    choice = choose_gru_kernel()
    assert choice.name == "fused"
    assert "no GPU" in choice.reason


def test_a_lost_cudnn_condition_raises_instead_of_falling_back():
    if tf.config.list_logical_devices("GPU"):
        pytest.skip("a GPU is visible")
    layer = GRU(4, kernel="cudnn", seed=1)
    with pytest.raises(ValueError, match="use_cudnn=True"):
        layer(tf.zeros([3, 2, 5]), tf.zeros([2, 4]))


def _node_names(function):
    graph = function.get_concrete_function().graph.as_graph_def()
    names = {node.op for node in graph.node}
    return names | {node.op for f in graph.library.function for node in f.node_def}


@pytest.mark.parametrize("preset", sorted(PRESETS))
@pytest.mark.parametrize("num_layers", [1, 3])
def test_with_a_gpu_training_and_prefill_are_traced_with_the_cudnn_kernel(
    preset, num_layers, monkeypatch
):
    keras_rnn = sys.modules["keras.src.backend.tensorflow.rnn"]
    monkeypatch.setattr(keras_rnn, "_is_gpu_available", lambda: True)
    sizes = PRESETS[preset]().model
    config = ModelConfig(hidden_size=8, num_layers=num_layers, dropout=sizes.dropout)
    model = build_language_model(config, 11, kernel=KernelChoice("cudnn", "made believed"))
    tokens = tf.zeros([2, 5], tf.int32)

    @tf.function
    def step():
        with tf.GradientTape() as tape:
            losses, _ = model.token_losses(tokens, tokens, model.initial_state(2), training=True)
        return tape.gradient(losses, model.trainable_variables)

    prefill = tf.function(lambda: model(tokens, model.initial_state(2)))
    assert {"CudnnRNNV3", "CudnnRNNBackpropV3"} <= _node_names(step)
    assert "CudnnRNNV3" in _node_names(prefill)
