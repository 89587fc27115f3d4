"""The recurrent layers: their kernels against each other, against Keras, against float64."""

import sys
from dataclasses import replace
from functools import partial

import keras
import numpy as np
import pytest
import tensorflow as tf

from textgen.config import TrainingConfig
from textgen.corpora import TokenizedCorpus, plan_lanes, training_dataset
from textgen.engines.tensorflow_engine import TensorFlowEngine
from textgen.models import kernels
from textgen.models.kernels import Execution
from textgen.models.language_model import build_language_model
from textgen.models.recurrence.fused import fused_recurrence
from textgen.models.recurrence.reference import reference_recurrence
from textgen.models.recurrent import RecurrentLayer
from textgen.models.weights import GATES, LayerWeights
from textgen.presets import PRESETS
from textgen.training.carried_state import CarriedStateModel
from textgen.training.progress import Progress

CELLS = sorted(GATES)
PARTS = {"gru": 1, "lstm": 2, "rnn": 1}
STOCK = {
    "gru": partial(keras.layers.GRU, reset_after=True),
    "lstm": keras.layers.LSTM,
    "rnn": keras.layers.SimpleRNN,
}


def _arguments(cell, time, batch, features, hidden, seed):
    rng = np.random.default_rng(seed)
    gates = len(GATES[cell]) * hidden
    shapes = [
        (time, features, batch),
        (PARTS[cell] * hidden, batch),
        (features, gates),
        (hidden, gates),
        (2 if cell == "gru" else 1, gates),
    ]
    values = [rng.normal(size=shape) for shape in shapes]
    values[2] /= np.sqrt(features)
    # orthogonal, as layers begin: larger ones make the recurrence chaotic in any precision
    blocks = np.split(values[3], len(GATES[cell]), axis=1)
    values[3] = np.concatenate([np.linalg.qr(block)[0] for block in blocks], axis=1)
    return values


def _reference(cell, inputs, state, *weights):
    """The reference kernel, in the layout of the fused one."""
    batch_major = tf.transpose(inputs, [2, 0, 1]), tf.transpose(state)
    outputs, last = reference_recurrence(*batch_major, *weights, cell=cell)
    return tf.transpose(outputs, [1, 2, 0]), tf.transpose(last)


def _stock(cell, inputs, state, kernel, recurrent_kernel, bias):
    """Keras's own layer and its own gradients, in the layout of the fused kernel."""
    layer = STOCK[cell](len(recurrent_kernel), return_sequences=True, return_state=True)
    layer.build((None, None, len(kernel)))
    bias = tf.reshape(bias, layer.cell.bias.shape)
    values = kernel, recurrent_kernel, bias
    with keras.StatelessScope(state_mapping=zip(layer.trainable_variables, values, strict=True)):
        parts = tf.split(tf.transpose(state), PARTS[cell], axis=1)
        outputs, *last = layer(tf.transpose(inputs, [2, 0, 1]), initial_state=parts)
    return tf.transpose(outputs, [1, 2, 0]), tf.transpose(tf.concat(last, axis=1))


def _outputs_and_gradients(function, arguments, upstream):
    """Outputs, last state and the gradients of both towards every argument."""
    d_outputs, d_last = (tf.cast(value, arguments[1].dtype) for value in upstream)
    with tf.GradientTape() as tape:
        tape.watch(arguments)
        outputs, last = function(*arguments)
        loss = tf.reduce_sum(tf.cast(outputs, last.dtype) * d_outputs)
        loss += tf.reduce_sum(last * d_last)
    return [outputs, last, *tape.gradient(loss, arguments)]


def _upstream(cell, time, batch, hidden, seed):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(time, hidden, batch)), rng.normal(size=(PARTS[cell] * hidden, batch))


def _joined(tensors):
    return np.concatenate([np.ravel(tf.cast(tensor, tf.float64)) for tensor in tensors])


def _relative_error(value, truth):
    return np.linalg.norm(value - truth) / np.linalg.norm(truth)


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("products, limit", [("float32", 1e-5), ("bfloat16", 1e-2)])
@pytest.mark.parametrize(
    "time, batch, features, hidden, draws",
    [(1, 1, 9, 7, 50), (1, 3, 2, 7, 50), (5, 1, 9, 7, 50), (20, 4, 33, 33, 2), (51, 17, 5, 64, 1)],
)
def test_fused_kernel_and_its_gradients_equal_the_reference_in_float64(
    cell, time, batch, features, hidden, draws, products, limit
):
    seed = np.random.SeedSequence().entropy
    fused = tf.function(partial(fused_recurrence, cell=cell, products=tf.as_dtype(products)))
    got, want = [], []
    for draw in range(draws):
        values = _arguments(cell, time, batch, features, hidden, [seed, draw])
        upstream = _upstream(cell, time, batch, hidden, [seed, draw])
        single = [tf.constant(value, tf.float32) for value in values]
        double = [tf.cast(value, tf.float64) for value in single]
        got.append(_outputs_and_gradients(fused, single, upstream))
        want.append(_outputs_and_gradients(partial(_reference, cell), double, upstream))
    assert got[0][0].dtype == products
    # each over all draws: in a single small one terms may cancel to nearly nothing
    for values, truths in zip(zip(*got, strict=True), zip(*want, strict=True), strict=True):
        assert _relative_error(_joined(values), _joined(truths)) < limit, f"seed {seed}"


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("products, limit", [("float32", 1e-5), ("bfloat16", 1e-2)])
def test_fused_kernel_and_its_gradients_equal_those_of_keras(cell, products, limit):
    values = [tf.constant(v, tf.float32) for v in _arguments(cell, 30, 5, 11, 48, 0)]
    upstream = _upstream(cell, 30, 5, 48, 1)
    fused = tf.function(partial(fused_recurrence, cell=cell, products=tf.as_dtype(products)))
    got = _outputs_and_gradients(fused, values, upstream)
    want = _outputs_and_gradients(partial(_stock, cell), values, upstream)
    for value, truth in zip(got, want, strict=True):
        assert value.shape == truth.shape
        assert _relative_error(_joined([value]), _joined([truth])) < limit


@pytest.mark.parametrize("cell", CELLS)
def test_a_trace_that_knows_neither_time_nor_batch_serves_every_size(cell):
    _, _, *weights = (tf.constant(v, tf.float32) for v in _arguments(cell, 1, 1, 5, 8, 0))
    states = PARTS[cell] * 8

    @tf.function(
        input_signature=[
            tf.TensorSpec([None, 5, None]),
            tf.TensorSpec([states, None]),
            tf.TensorSpec([None, 8, None]),
            tf.TensorSpec([states, None]),
        ]
    )
    def traced(inputs, state, *upstream):
        fused = partial(fused_recurrence, cell=cell)
        return _outputs_and_gradients(fused, [inputs, state, *weights], upstream)

    for time, batch in ((1, 1), (3, 2), (26, 3), (75, 1)):
        inputs, state, *_ = _arguments(cell, time, batch, 5, 8, time)
        upstream = _upstream(cell, time, batch, 8, batch)
        got = traced(*(tf.constant(v, tf.float32) for v in (inputs, state, *upstream)))
        double = [tf.cast(v, tf.float64) for v in (inputs, state, *weights)]
        want = _outputs_and_gradients(partial(_reference, cell), double, upstream)
        for value, truth in zip(got, want, strict=True):
            assert _relative_error(_joined([value]), _joined([truth])) < 1e-5


def _layer_with_data(cell, kernel, time=9):
    layer = RecurrentLayer(16, cell=cell, kernel=kernel, seed=3)
    rng = np.random.default_rng(0)
    inputs = tf.constant(rng.normal(size=(4, time, 5)), tf.float32)
    layer.build(inputs.shape)
    layer.set_arrays(**{k: v + 0.1 * rng.normal(size=v.shape) for k, v in layer.arrays().items()})
    return layer, inputs, tf.constant(rng.normal(size=(4, PARTS[cell] * 16)), tf.float32)


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("kernel", ["fused", "reference"])
def test_the_layer_computes_what_the_keras_layer_with_its_weights_computes(cell, kernel):
    layer, inputs, state = _layer_with_data(cell, kernel)
    outputs, last = layer(inputs, state)
    stock = STOCK[cell](16, return_sequences=True, return_state=True)
    stock.build(inputs.shape)
    stock.set_weights(layer.stock.get_weights())
    want, *want_last = stock(inputs, initial_state=tf.split(state, PARTS[cell], axis=1))
    np.testing.assert_allclose(outputs, want, atol=2e-6)
    np.testing.assert_allclose(last, tf.concat(want_last, axis=1), atol=2e-6)


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("kernel", ["fused", "reference"])
def test_pieces_with_a_carried_state_equal_one_pass(cell, kernel):
    layer, inputs, state = _layer_with_data(cell, kernel, time=30)
    whole, last = layer(inputs, state)
    pieces = []
    for piece in tf.split(inputs, [1, 7, 22], axis=1):
        outputs, state = layer(piece, state)
        pieces.append(outputs)
    np.testing.assert_allclose(tf.concat(pieces, axis=1), whole, atol=2e-6)
    np.testing.assert_allclose(state, last, atol=2e-6)


@pytest.mark.parametrize("cell", CELLS)
def test_arrays_fit_layer_weights_and_come_back_as_they_were_set(cell):
    layer, *_ = _layer_with_data(cell, "fused")
    arrays = layer.arrays()
    weights = LayerWeights(**{name: np.float32(value) for name, value in arrays.items()})
    assert weights.cell == cell
    assert weights.state_size == PARTS[cell] * 16
    other = RecurrentLayer(16, cell=cell, kernel="fused", seed=4)
    other.build((None, None, 5))
    assert not np.array_equal(other.arrays()["input_kernel"], arrays["input_kernel"])
    other.set_arrays(**arrays)
    assert arrays["bias"].any()
    for name, value in other.arrays().items():
        np.testing.assert_array_equal(value, arrays[name])
        value[:] = 7  # a copy: the layer keeps its own
    np.testing.assert_array_equal(other.kernel, arrays["input_kernel"])
    np.testing.assert_array_equal(other.bias, arrays["bias"])
    np.testing.assert_array_equal(other.recurrent_kernel(), arrays["recurrent_kernel"])


@pytest.mark.parametrize("cell, gate, default", [("gru", "update", 0.0), ("lstm", "forget", 1.0)])
@pytest.mark.parametrize("forget_bias", [None, 0.0, 1.5])
def test_keep_bias_is_the_bias_of_the_gate_that_keeps_and_of_no_other(
    cell, gate, default, forget_bias
):
    layer = RecurrentLayer(6, cell=cell, kernel="fused", forget_bias=forget_bias, seed=1)
    layer.build((None, None, 5))
    plain = RecurrentLayer(6, cell=cell, kernel="fused", seed=1)
    plain.build((None, None, 5))
    want = np.zeros_like(layer.arrays()["bias"])
    first = 6 * GATES[cell].index(gate)
    want[0, first : first + 6] = default if forget_bias is None else forget_bias
    np.testing.assert_array_equal(layer.arrays()["bias"], want)
    np.testing.assert_array_equal(layer.arrays()["kernel"], plain.arrays()["kernel"])


@pytest.mark.parametrize("cell", CELLS)
def test_weight_drop_leaves_gaps_in_training_alone(cell):
    layer = RecurrentLayer(32, cell=cell, kernel="fused", weight_drop=0.5, seed=1)
    layer.build((None, None, 5))
    dropped, whole = layer.recurrent_kernel(training=True), layer.recurrent_kernel()
    gaps = np.asarray(dropped) == 0
    assert 0.35 < gaps.mean() < 0.65
    np.testing.assert_allclose(np.asarray(dropped)[~gaps], 2 * np.asarray(whole)[~gaps])


@pytest.mark.parametrize("matmul_dtype, limit", [("float32", 2e-6), ("float16", 5e-3)])
def test_the_plain_cell_runs_in_keras_where_cudnn_was_chosen(matmul_dtype, limit):
    layer, inputs, state = _layer_with_data("rnn", "reference")
    stock = RecurrentLayer(16, cell="rnn", kernel="cudnn", matmul_dtype=matmul_dtype, seed=3)
    stock.build(inputs.shape)
    stock.set_arrays(**layer.arrays())
    half = layer.recurrent_kernel() / 2
    for value, truth in zip(stock(inputs, state, half), layer(inputs, state, half), strict=True):
        assert value.dtype == "float32"
        np.testing.assert_allclose(value, truth, atol=limit)


@pytest.mark.parametrize("cell", ["gru", "lstm"])
def test_a_lost_cudnn_condition_raises_instead_of_falling_back(cell):
    if tf.config.list_logical_devices("GPU"):
        pytest.skip("a GPU is visible")
    layer = RecurrentLayer(4, cell=cell, kernel="cudnn", seed=1)
    with pytest.raises(ValueError, match="use_cudnn=True"):
        layer(tf.zeros([2, 3, 5]), tf.zeros([2, 4 * PARTS[cell]]))


@pytest.fixture
def believed_gpu(monkeypatch):
    """Make Keras believe in a GPU, so that a graph is traced as it would be there."""
    keras_rnn = sys.modules["keras.src.backend.tensorflow.rnn"]
    monkeypatch.setattr(keras_rnn, "_is_gpu_available", lambda: True)


def _node_names(function):
    return _names_in(function.get_concrete_function().graph)


def _names_in(graph):
    graph = graph.as_graph_def()
    names = {node.op for node in graph.node}
    return names | {node.op for f in graph.library.function for node in f.node_def}


def _tiny(preset, num_layers, matmul_dtype="float32", weight_drop=0.5, cell="gru"):
    """A model with the settings of a preset, in small, that runs on a believed GPU."""
    model = PRESETS[preset]().model
    stacked = num_layers > 1
    sizes = replace(
        model,
        residual=model.residual and stacked,
        layer_norm=model.layer_norm and stacked,
        cell=cell,
        embedding_dim=8,
        hidden_size=8,
        num_layers=num_layers,
        weight_drop=weight_drop,
    )
    return build_language_model(sizes, 11, execution=Execution(kernel="cudnn", matmul_dtype=matmul_dtype))


def _training_step(model, tokens):
    @tf.function
    def step():
        with tf.GradientTape() as tape:
            losses, _ = model.token_losses(tokens, tokens, model.initial_state(2), training=True)
        return tape.gradient(losses, model.trainable_variables)

    return step


@pytest.mark.parametrize("cell", ["gru", "lstm"])
@pytest.mark.parametrize("weight_drop", [0.0, 0.5])
def test_with_a_gpu_a_layer_is_traced_with_the_cudnn_kernel(believed_gpu, cell, weight_drop):
    layer = RecurrentLayer(8, cell=cell, kernel="cudnn", weight_drop=weight_drop, seed=1)
    layer.build((None, None, 5))

    @tf.function
    def step():
        with tf.GradientTape() as tape:
            kernel = layer.recurrent_kernel(training=True)
            outputs, last = layer(tf.ones([2, 3, 5]), tf.zeros([2, 8 * PARTS[cell]]), kernel)
            loss = tf.reduce_sum(outputs) + tf.reduce_sum(last)
        gradients = tape.gradient(loss, layer.trainable_variables)
        assert not any(gradient is None for gradient in gradients)
        return gradients

    assert {"CudnnRNNV3", "CudnnRNNBackpropV3"} <= _node_names(step)


@pytest.mark.parametrize("preset", sorted(PRESETS))
@pytest.mark.parametrize("num_layers", [1, 3])
@pytest.mark.parametrize("matmul_dtype", ["float32", "float16"])
@pytest.mark.parametrize("weight_drop", [0.0, 0.5])
def test_with_a_gpu_training_and_prefill_are_traced_with_the_cudnn_kernel(
    believed_gpu, preset, num_layers, matmul_dtype, weight_drop
):
    model = _tiny(preset, num_layers, matmul_dtype, weight_drop)
    tokens = tf.zeros([2, 5], tf.int32)
    prefill = tf.function(lambda: model(tokens, model.initial_state(2)))
    assert {"CudnnRNNV3", "CudnnRNNBackpropV3"} <= _node_names(_training_step(model, tokens))
    assert "CudnnRNNV3" in _node_names(prefill)


@pytest.mark.parametrize("cell", ["gru", "lstm"])
def test_what_fit_and_the_engine_compile_for_a_gpu_holds_the_cudnn_kernel(
    believed_gpu, monkeypatch, cell
):
    monkeypatch.setattr(kernels, "gpu_names", lambda: ["GPU:0"])
    tokens = np.arange(12, dtype=np.int32) % 11
    counts = ("train_characters", "train_bytes", "validation_characters", "validation_bytes")
    corpus = TokenizedCorpus(train=tokens, validation=tokens, **dict.fromkeys(counts, 12))
    model = CarriedStateModel(
        _tiny("demo", 2, cell=cell),
        TrainingConfig(),
        corpus,
        batch_size=2,
        validation_lanes=1,
        progress=Progress(total_steps=1, tokens_per_step=10),
    )
    model.compile(optimizer=keras.optimizers.AdamW(), steps_per_execution=3)
    model.optimizer.build(model.language_model.trainable_variables)
    windows = iter(training_dataset(tokens, plan_lanes(12, 2, 5, 1), 0, 1))
    trained = partial(model.make_train_function().get_concrete_function, windows)
    assert {"CudnnRNNV3", "CudnnRNNBackpropV3"} <= _names_in(trained().graph)
    engine = TensorFlowEngine(model.language_model.model_weights())
    assert "CudnnRNNV3" in _names_in(engine._call.get_concrete_function().graph)


def test_under_a_mirrored_strategy_the_cudnn_kernel_stays(believed_gpu):
    strategy = tf.distribute.MirroredStrategy(["CPU:0"])
    with strategy.scope():
        model = _tiny("demo", 2)
    step = _training_step(model, tf.zeros([2, 5], tf.int32))
    names = _node_names(tf.function(lambda: strategy.run(step)))
    assert {"CudnnRNNV3", "CudnnRNNBackpropV3"} <= names


@pytest.mark.parametrize("cell", ["gru", "lstm"])
def test_float16_reaches_the_cudnn_kernel_and_weights_stay_float32(believed_gpu, cell):
    model = _tiny("demo", 1, "float16", cell=cell)
    step = _training_step(model, tf.zeros([2, 5], tf.int32)).get_concrete_function()
    graph = step.graph.as_graph_def()
    nodes = [*graph.node, *(n for f in graph.library.function for n in f.node_def)]
    dtypes = {node.attr["T"].type for node in nodes if node.op == "CudnnRNNV3"}
    assert dtypes == {tf.float16.as_datatype_enum}
    assert {variable.dtype for variable in model.trainable_variables} == {"float32"}
