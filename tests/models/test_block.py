"""A block compared with the composition of its parts; its dropout and its weights."""

from dataclasses import replace
from typing import get_args

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.models.recurrence.oracles import CELLS, STATES
from textgen.config import ModelConfig, ResolvedKernel
from textgen.models.block import Block
from textgen.models.kernels import Execution
from textgen.models.recurrence.reference import reference_recurrence

CONFIG = ModelConfig(embedding_dim=5, hidden_size=6, num_layers=2, dropout=0.0)
FULL = replace(CONFIG, output_gate=True, residual=True, layer_norm=True)
# cuDNN itself needs a GPU; the plain cell runs Keras's loop there.
CPU_KERNELS = [kernel for kernel in get_args(ResolvedKernel) if kernel != "cudnn"]
# Values are of the order of 1 and eps is 1.2e-7: 4e-6 is 32 roundings.
TOLERANCE = {"rtol": 4e-6, "atol": 4e-6}


def make_block(config, index, kernel="fused", seed=1):
    block = Block(config, index, execution=Execution(kernel=kernel), seed=seed)
    block.build()
    rng = np.random.default_rng(seed)
    # Moved, so that no bias is 0 and no scale is 1.
    for variable in block.trainable_variables:
        variable.assign_add(0.3 * rng.normal(size=variable.shape))
    return block


def make_inputs(cell, size, batch=3, time=4):
    rng = np.random.default_rng(5)
    x = tf.constant(rng.normal(size=(batch, time, size)), tf.float32)
    return x, tf.constant(rng.normal(size=(batch, 6 * STATES[cell])), tf.float32)


def run(block, x, state, **arguments):
    layout = block.layout
    outputs, last = block(layout.from_batch_major(x), state, block.recurrent_kernel(), **arguments)
    return layout.to_batch_major(outputs), last


def composed(block, cell, x, state):
    """Norm, recurrence, gate and residual one after another, from the exported weights."""
    weights = block.layer_weights()
    inputs = x
    if weights.norm is not None:
        mean, variance = tf.nn.moments(x, [2], keepdims=True)
        normalized = (x - mean) / tf.sqrt(variance + 1e-3)
        inputs = normalized * weights.norm.scale + weights.norm.offset
    kernels = weights.input_kernel, weights.recurrent_kernel, weights.bias
    outputs, last = reference_recurrence(inputs, state, *kernels, cell=cell)
    if weights.output_gate is not None:
        gate = weights.output_gate
        previous = tf.concat([state[:, None, :6], outputs[:, :-1]], axis=1)
        sums = inputs @ gate.input_kernel + previous @ gate.recurrent_kernel + gate.bias
        outputs = tf.sigmoid(sums) * tf.tanh(outputs)
    return outputs + x if block.adds_input else outputs, last


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("kernel", CPU_KERNELS)
@pytest.mark.parametrize("config", [CONFIG, FULL], ids=["plain", "full"])
@pytest.mark.parametrize("index", [0, 1])
def test_a_block_is_the_composition_of_its_parts(cell, kernel, config, index):
    config = replace(config, cell=cell)
    block = make_block(config, index, kernel)
    x, state = make_inputs(cell, block.input_size)
    for value, truth in zip(run(block, x, state), composed(block, cell, x, state), strict=True):
        np.testing.assert_allclose(value, truth, **TOLERANCE)


def test_only_layers_after_the_first_have_a_norm_and_a_residual_connection():
    first, second = (make_block(FULL, index) for index in (0, 1))
    assert (first.norm, first.adds_input, first.input_size) == (None, False, 5)
    assert second.norm is not None
    assert (second.adds_input, second.input_size) == (True, 6)
    assert first.output_gate is not None and second.output_gate is not None


def test_one_hot_columns_with_the_embedding_equal_embedded_tokens():
    block = make_block(replace(FULL, cell="lstm"), 0)
    rng = np.random.default_rng(0)
    embeddings = tf.constant(rng.normal(size=(4, 5)), tf.float32)
    token_ids, (_, state) = rng.integers(0, 4, size=(3, 7)), make_inputs("lstm", 5)
    layout, kernel = block.layout, block.recurrent_kernel()
    columns = layout.one_hot_columns(token_ids, 4)
    got = block(columns, state, kernel, embeddings=embeddings)
    want = block(layout.embed(embeddings, token_ids), state, kernel)
    for value, truth in zip(got, want, strict=True):
        np.testing.assert_allclose(value, truth, **TOLERANCE)


@pytest.mark.parametrize(
    ("layer_dropout", "rates"),
    [(None, [0.4, 0.4, 0.4]), (0.1, [0.1, 0.1, 0.4]), (0.0, [0, 0, 0.4])],
)
def test_layer_dropout_is_the_rate_of_every_block_but_the_last(layer_dropout, rates):
    config = replace(CONFIG, num_layers=3, dropout=0.4, layer_dropout=layer_dropout)
    assert [make_block(config, index).dropout.rate for index in range(3)] == rates


def test_dropout_is_active_in_training_only_and_before_the_residual_connection():
    block = make_block(replace(FULL, dropout=0.5), 1)
    x, state = make_inputs("gru", 6)
    plain, _ = run(block, x, state)
    trained, _ = run(block, x, state, training=True)
    dropped = np.isclose(trained, x, atol=0)
    assert dropped.any() and not dropped.all()
    np.testing.assert_allclose(
        trained.numpy()[~dropped], (2 * (plain - x) + x).numpy()[~dropped], **TOLERANCE
    )


@pytest.mark.parametrize("kernel", CPU_KERNELS)
@pytest.mark.parametrize("cell", CELLS)
def test_exported_weights_give_another_block_the_same_outputs(cell, kernel):
    config = replace(FULL, cell=cell)
    one, other = make_block(config, 1, kernel, seed=1), make_block(config, 1, kernel, seed=2)
    x, state = make_inputs(cell, 6)
    want = run(one, x, state)
    assert not np.allclose(run(other, x, state)[0], want[0])
    other.set_layer_weights(one.layer_weights())
    for value, truth in zip(run(other, x, state), want, strict=True):
        np.testing.assert_array_equal(value, truth)


def test_exported_weights_are_copies():
    block = make_block(FULL, 1)
    before = block.layer_weights()
    kept = [before.input_kernel.copy(), before.norm.scale.copy(), before.output_gate.bias.copy()]
    for variable in block.trainable_variables:
        variable.assign(keras.ops.zeros_like(variable))
    for value, truth in zip(
        (before.input_kernel, before.norm.scale, before.output_gate.bias), kept, strict=True
    ):
        np.testing.assert_array_equal(value, truth)


def test_layers_and_variables_keep_the_names_that_checkpoints_have():
    paths = [variable.path for variable in make_block(FULL, 1).trainable_variables]
    assert sorted(paths) == [
        "block_1/gru_1/weights/gru_cell/bias",
        "block_1/gru_1/weights/gru_cell/kernel",
        "block_1/gru_1/weights/gru_cell/recurrent_kernel",
        "block_1/norm/beta",
        "block_1/norm/gamma",
        "block_1/output_gate/bias",
        "block_1/output_gate/kernel",
        "block_1/output_gate/recurrent_kernel",
    ]
