"""A recurrent layer: its kernels compared with Keras, its weights, weight drop, and cuDNN."""

from functools import partial

import numpy as np
import pytest
import tensorflow as tf

from tests.models.graphs import CUDNN_OPS, simulate_gpu, traced_ops
from tests.models.recurrence.oracles import CELLS, STATES, STOCK, relative_error
from textgen.models.recurrent import RecurrentLayer
from textgen.models.weights import GATES, LayerWeights

HIDDEN, FEATURES = 16, 5
# Outputs are below 1 and eps is 1.2e-7: 2e-6 is 16 roundings of the largest.
TOLERANCE = {"atol": 2e-6}


def make_layer(cell, kernel, seed=3, hidden=HIDDEN, features=FEATURES, **arguments):
    layer = RecurrentLayer(hidden, cell=cell, kernel=kernel, seed=seed, **arguments)
    layer.build(layer.layout.shape(features))
    return layer


def make_layer_and_data(cell, kernel, time=9):
    """A layer without zeros among its weights, inputs `[batch, time, features]`, and a state."""
    layer, rng = make_layer(cell, kernel), np.random.default_rng(0)
    inputs = tf.constant(rng.normal(size=(4, time, FEATURES)), tf.float32)
    layer.set_arrays(**{k: v + 0.1 * rng.normal(size=v.shape) for k, v in layer.arrays().items()})
    return layer, inputs, tf.constant(rng.normal(size=(4, STATES[cell] * HIDDEN)), tf.float32)


def run(layer, inputs, state, **arguments):
    outputs, last = layer(layer.layout.from_batch_major(inputs), state, **arguments)
    return layer.layout.to_batch_major(outputs), last


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("kernel", ["fused", "reference"])
def test_a_layer_computes_what_the_keras_layer_with_its_weights_computes(cell, kernel):
    layer, inputs, state = make_layer_and_data(cell, kernel)
    outputs, last = run(layer, inputs, state)
    stock = STOCK[cell](HIDDEN, return_sequences=True, return_state=True)
    stock.build(inputs.shape)
    stock.set_weights(layer.stock.get_weights())
    want, *want_last = stock(inputs, initial_state=tf.split(state, STATES[cell], axis=1))
    np.testing.assert_allclose(outputs, want, **TOLERANCE)
    np.testing.assert_allclose(last, tf.concat(want_last, axis=1), **TOLERANCE)


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("kernel", ["fused", "reference"])
def test_parts_of_a_window_with_a_carried_state_equal_one_pass(cell, kernel):
    layer, inputs, state = make_layer_and_data(cell, kernel, time=30)
    whole, last = run(layer, inputs, state)
    parts = []
    for part in tf.split(inputs, [1, 7, 22], axis=1):
        outputs, state = run(layer, part, state)
        parts.append(outputs)
    np.testing.assert_allclose(tf.concat(parts, axis=1), whole, **TOLERANCE)
    np.testing.assert_allclose(state, last, **TOLERANCE)


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("kernel", ["fused", "reference"])
def test_given_kernels_replace_the_layers_own(cell, kernel):
    layer, inputs, state = make_layer_and_data(cell, kernel)
    arrays = layer.arrays()
    kernels = {name: arrays[name] / 2 for name in ("input_kernel", "recurrent_kernel")}
    got = run(layer, inputs, state, **kernels)
    other = make_layer(cell, kernel)
    other.set_arrays(**arrays | kernels)
    for value, truth in zip(got, run(other, inputs, state), strict=True):
        np.testing.assert_array_equal(value, truth)


@pytest.mark.parametrize("cell", CELLS)
def test_arrays_are_copies_in_the_form_of_layer_weights_and_equal_those_set(cell):
    layer, *_ = make_layer_and_data(cell, "fused")
    arrays = layer.arrays()
    weights = LayerWeights(**{name: np.float32(value) for name, value in arrays.items()})
    assert weights.cell == cell
    assert weights.state_size == STATES[cell] * HIDDEN
    other = make_layer(cell, "fused", seed=4)
    assert not np.array_equal(other.arrays()["input_kernel"], arrays["input_kernel"])
    other.set_arrays(**arrays)
    assert arrays["bias"].any()
    for name, value in other.arrays().items():
        np.testing.assert_array_equal(value, arrays[name])
        value[:] = 7  # A copy: the layer keeps its own.
    np.testing.assert_array_equal(other.input_kernel, arrays["input_kernel"])
    np.testing.assert_array_equal(other.bias, arrays["bias"])
    np.testing.assert_array_equal(other.recurrent_kernel(), arrays["recurrent_kernel"])


@pytest.mark.parametrize("cell, gate, default", [("gru", "update", 0.0), ("lstm", "forget", 1.0)])
@pytest.mark.parametrize("forget_bias", [None, 0.0, 1.5])
def test_forget_bias_sets_the_bias_of_the_gate_that_keeps_the_state_and_of_no_other(
    cell, gate, default, forget_bias
):
    layer = make_layer(cell, "fused", hidden=6, forget_bias=forget_bias)
    plain = make_layer(cell, "fused", hidden=6)
    want = np.zeros_like(layer.arrays()["bias"])
    first = 6 * GATES[cell].index(gate)
    want[0, first : first + 6] = default if forget_bias is None else forget_bias
    np.testing.assert_array_equal(layer.arrays()["bias"], want)
    for name in ("input_kernel", "recurrent_kernel"):
        np.testing.assert_array_equal(layer.arrays()[name], plain.arrays()[name])


@pytest.mark.parametrize("cell", CELLS)
def test_weight_drop_sets_entries_to_zero_in_training_only(cell):
    layer = make_layer(cell, "fused", hidden=32, weight_drop=0.5)
    dropped, whole = (np.asarray(layer.recurrent_kernel(training)) for training in (True, False))
    zeros = dropped == 0
    assert 0.35 < zeros.mean() < 0.65
    np.testing.assert_array_equal(dropped[~zeros], 2 * whole[~zeros])
    np.testing.assert_array_equal(whole, layer.arrays()["recurrent_kernel"])


@pytest.mark.parametrize("kernel", ["fused", "reference"])
def test_only_the_fused_kernel_computes_in_the_dtype_of_the_call(kernel):
    layer, inputs, state = make_layer_and_data("gru", kernel)
    outputs, last = run(layer, inputs, state, matmul_dtype=tf.bfloat16)
    assert outputs.dtype == (tf.bfloat16 if kernel == "fused" else tf.float32)
    assert last.dtype == tf.float32


@pytest.mark.parametrize("matmul_dtype, limit", [("float32", 2e-6), ("float16", 5e-3)])
def test_the_plain_cell_runs_keras_own_loop_under_the_kernel_cudnn(matmul_dtype, limit):
    layer, inputs, state = make_layer_and_data("rnn", "reference")
    stock = make_layer("rnn", "cudnn", matmul_dtype=matmul_dtype)
    stock.set_arrays(**layer.arrays())
    kernels = {
        "input_kernel": layer.arrays()["input_kernel"] / 2,
        "recurrent_kernel": layer.recurrent_kernel() / 2,
    }
    got, want = (run(each, inputs, state, **kernels) for each in (stock, layer))
    for value, truth in zip(got, want, strict=True):
        assert value.dtype == tf.float32
        # float32 as above; float16 has an eps of 1e-3, and outputs are below 1.
        np.testing.assert_allclose(value, truth, atol=limit)


@pytest.mark.parametrize("cell", ["gru", "lstm"])
def test_without_a_gpu_cudnn_raises_instead_of_falling_back(cell):
    if tf.config.list_logical_devices("GPU"):
        pytest.skip("a GPU is visible")
    layer = make_layer(cell, "cudnn", hidden=4)
    with pytest.raises(ValueError, match="use_cudnn=True"):
        layer(tf.zeros([2, 3, FEATURES]), tf.zeros([2, 4 * STATES[cell]]))


@pytest.mark.parametrize("cell", ["gru", "lstm"])
@pytest.mark.parametrize("weight_drop", [0.0, 0.5])
def test_with_a_gpu_a_layer_is_traced_with_the_cudnn_kernel(monkeypatch, cell, weight_drop):
    simulate_gpu(monkeypatch)
    layer = make_layer(cell, "cudnn", hidden=8, weight_drop=weight_drop)

    @tf.function
    def step():
        with tf.GradientTape() as tape:
            kernel = layer.recurrent_kernel(training=True)
            state = tf.zeros([2, 8 * STATES[cell]])
            outputs, last = layer(tf.ones([2, 3, FEATURES]), state, recurrent_kernel=kernel)
            loss = tf.reduce_sum(outputs) + tf.reduce_sum(last)
        gradients = tape.gradient(loss, layer.trainable_variables)
        assert not any(gradient is None for gradient in gradients)
        return gradients

    assert traced_ops(step) >= CUDNN_OPS


def outputs_and_gradients(layer, inputs, state):
    with tf.GradientTape() as tape:
        tape.watch([inputs, state])
        outputs, last = layer(inputs, state)
        loss = tf.reduce_sum(outputs * tf.sin(outputs + 1.0)) + tf.reduce_sum(last**2)
    return [outputs, last, *tape.gradient(loss, [inputs, state, *layer.trainable_variables])]


needs_gpu = partial(
    pytest.mark.skipif,
    not tf.config.list_physical_devices("GPU"),
    reason="no GPU is visible to TensorFlow",
)


@pytest.mark.gpu
@needs_gpu()
@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("time", [1, 50])
@pytest.mark.parametrize("matmul_dtype, limit", [("float32", 1e-3), ("float16", 2e-2)])
def test_cudnn_equals_the_reference_in_outputs_state_and_gradients(cell, time, matmul_dtype, limit):
    rng = np.random.default_rng(time)
    inputs = tf.constant(rng.normal(size=(4, time, 32)), tf.float32)
    state = tf.constant(rng.normal(size=(4, 64 * STATES[cell])), tf.float32)
    cudnn = make_layer(cell, "cudnn", hidden=64, features=32, matmul_dtype=matmul_dtype)
    reference = make_layer(cell, "reference", hidden=64, features=32)
    reference.set_arrays(**cudnn.arrays())
    got, want = (outputs_and_gradients(each, inputs, state) for each in (cudnn, reference))
    # A GPU may round products to TF32, which has the eps of float16, 1e-3.
    for value, truth in zip(got, want, strict=True):
        assert relative_error([value], [truth]) < limit


@pytest.mark.gpu
@needs_gpu()
@pytest.mark.parametrize("cell", ["gru", "lstm"])
def test_the_profile_contains_a_cudnn_kernel(tmp_path, cell):
    from tensorflow.tsl.profiler.protobuf import xplane_pb2

    layer = make_layer(cell, "cudnn", hidden=64, features=32)
    step = tf.function(lambda: layer(tf.ones([4, 20, 32]), tf.zeros([4, 64 * STATES[cell]])))
    step()
    with tf.profiler.experimental.Profile(str(tmp_path)):
        step()[1].numpy()
    (path,) = tmp_path.rglob("*.xplane.pb")
    space = xplane_pb2.XSpace.FromString(path.read_bytes())
    names = {m.name for plane in space.planes for m in plane.event_metadata.values()}
    assert any("CudnnRNN" in name for name in names)
    events = (
        plane.event_metadata[event.metadata_id].name
        for plane in space.planes
        if plane.name.startswith("/device:GPU")
        for line in plane.lines
        for event in line.events
    )
    assert any("RNN" in name or cell.upper() in name for name in events)
