"""The GRU layer: its kernels against each other, against Keras, and against float64 NumPy."""

import sys
from functools import partial

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


def _arguments(time, batch, features, hidden, seed):
    rng = np.random.default_rng(seed)
    gates = 3 * hidden
    shapes = [(time, features, batch), (hidden, batch), (features, gates), (hidden, gates)]
    values = [rng.normal(size=shape) for shape in [*shapes, (2, gates)]]
    # as orthogonal weights have it: larger ones make the recurrence chaotic in any precision
    values[2] /= np.sqrt(features)
    values[3] /= np.sqrt(hidden)
    return values


def _plain_loop(inputs, state, kernel, recurrent_kernel, bias):
    """The equations, a step at a time; TensorFlow differentiates it."""
    states, state = [], tf.transpose(state)
    for x in tf.unstack(inputs):
        x_z, x_r, x_c = tf.split(tf.transpose(x) @ kernel + bias[0], 3, axis=1)
        u_z, u_r, u_c = tf.split(state @ recurrent_kernel + bias[1], 3, axis=1)
        z, r = tf.sigmoid(x_z + u_z), tf.sigmoid(x_r + u_r)
        state = z * state + (1 - z) * tf.tanh(x_c + r * u_c)
        states.append(tf.transpose(state))
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


@pytest.mark.parametrize("products, limit", [("float32", 1e-5), ("bfloat16", 1e-2)])
@pytest.mark.parametrize(
    "time, batch, features, hidden",
    [(1, 1, 1, 1), (1, 3, 2, 7), (5, 1, 9, 7), (20, 4, 33, 33), (50, 17, 5, 64)],
)
def test_fused_kernel_and_its_gradients_equal_the_plain_loop_in_float64(
    time, batch, features, hidden, products, limit
):
    seed = np.random.SeedSequence().entropy
    values = _arguments(time, batch, features, hidden, seed)
    upstream = np.random.default_rng(seed).normal(size=(time, hidden, batch))
    single = [tf.constant(value, tf.float32) for value in values]
    double = [tf.cast(value, tf.float64) for value in single]
    fused = partial(fused_gru, products=tf.as_dtype(products))
    got = _outputs_and_gradients(fused, single, upstream)
    want = _outputs_and_gradients(_plain_loop, double, upstream)
    for value, truth in zip(got, want, strict=True):
        assert value.dtype == tf.float32
        assert _relative_error(value, truth) < limit, f"seed {seed}"


def test_the_layer_computes_what_the_keras_layer_with_its_weights_computes():
    layer = GRU(16, kernel="fused", seed=3)
    inputs = np.random.default_rng(0).normal(size=(4, 9, 5)).astype("float32")
    state = np.random.default_rng(1).normal(size=(4, 16)).astype("float32")
    outputs, last = layer(tf.constant(inputs), tf.constant(state))
    stock = keras.layers.GRU(16, return_sequences=True, return_state=True, reset_after=True)
    stock.build((4, 9, 5))
    stock.set_weights(layer.gru.get_weights())
    want, want_last = stock(inputs, initial_state=state)
    np.testing.assert_allclose(outputs, want, atol=1e-6)
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
        layer(tf.zeros([2, 3, 5]), tf.zeros([2, 4]))


@pytest.mark.parametrize(
    "shards, batch, sizes",
    [(2, 64, [32, 32]), (2, 17, [9, 8]), (4, 20, [10, 10]), (2, 15, [15]), (1, 64, [64])],
)
def test_a_batch_is_cut_into_equal_shards_that_are_worth_a_core(shards, batch, sizes):
    assert KernelChoice("fused", "", shards=shards).shard_sizes(batch) == sizes


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
