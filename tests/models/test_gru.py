"""The GRU layer: its kernels against each other, against Keras, and against float64 NumPy."""

import sys
from dataclasses import replace
from functools import partial

import keras
import numpy as np
import pytest
import tensorflow as tf

from textgen.corpora import TokenizedCorpus, plan_lanes, training_dataset
from textgen.generation.tensorflow_engine import TensorFlowEngine
from textgen.models import kernels
from textgen.models.fused_gru import fused_gru
from textgen.models.gru import GRU
from textgen.models.kernels import Execution
from textgen.models.language_model import build_language_model
from textgen.models.reference_gru import reference_gru
from textgen.presets import PRESETS
from textgen.training.carried_state import CarriedStateModel
from textgen.training.progress import Progress


def _arguments(time, batch, features, hidden, seed):
    rng = np.random.default_rng(seed)
    gates = 3 * hidden
    shapes = [(time, features, batch), (hidden, batch), (features, gates), (hidden, gates)]
    values = [rng.normal(size=shape) for shape in [*shapes, (2, gates)]]
    # as orthogonal weights have it: larger ones make the recurrence chaotic in any precision
    values[2] /= np.sqrt(features)
    values[3] /= np.sqrt(hidden)
    return values


def _reference(inputs, state, *weights):
    """The reference kernel, in the layout of the fused one."""
    states = reference_gru(tf.transpose(inputs, [2, 0, 1]), tf.transpose(state), *weights)
    return tf.transpose(states, [1, 2, 0]), tf.transpose(states[:, -1])


def _outputs_and_gradients(function, arguments, upstream):
    """Outputs, last state and the gradients of both towards every argument."""
    with tf.GradientTape() as tape:
        tape.watch(arguments)
        states, last = function(*arguments)
        loss = tf.reduce_sum(tf.cast(states, last.dtype) * tf.cast(upstream[:-1], last.dtype))
        loss += tf.reduce_sum(last * tf.cast(upstream[-1], last.dtype))
    return [states, last, *tape.gradient(loss, arguments)]


def _joined(tensors):
    return np.concatenate([np.ravel(tf.cast(tensor, tf.float64)) for tensor in tensors])


def _relative_error(value, truth):
    return np.linalg.norm(value - truth) / np.linalg.norm(truth)


@pytest.mark.parametrize("products, limit", [("float32", 1e-5), ("bfloat16", 1e-2)])
@pytest.mark.parametrize(
    "time, batch, features, hidden, draws",
    [(1, 1, 9, 7, 50), (1, 3, 2, 7, 50), (5, 1, 9, 7, 50), (20, 4, 33, 33, 2), (50, 17, 5, 64, 1)],
)
def test_fused_kernel_and_its_gradients_equal_the_reference_in_float64(
    time, batch, features, hidden, draws, products, limit
):
    seed = np.random.SeedSequence().entropy
    fused = tf.function(partial(fused_gru, products=tf.as_dtype(products)))
    got, want = [], []
    for draw in range(draws):
        values = _arguments(time, batch, features, hidden, [seed, draw])
        upstream = np.random.default_rng([seed, draw]).normal(size=(time + 1, hidden, batch))
        single = [tf.constant(value, tf.float32) for value in values]
        double = [tf.cast(value, tf.float64) for value in single]
        got.append(_outputs_and_gradients(fused, single, upstream))
        want.append(_outputs_and_gradients(_reference, double, upstream))
    assert got[0][0].dtype == products
    # each over all draws: in a single small one terms may cancel to nearly nothing
    for values, truths in zip(zip(*got, strict=True), zip(*want, strict=True), strict=True):
        assert _relative_error(_joined(values), _joined(truths)) < limit, f"seed {seed}"


@pytest.mark.parametrize("kernel", ["fused", "reference"])
def test_the_layer_computes_what_the_keras_layer_with_its_weights_computes(kernel):
    layer = GRU(16, kernel=kernel, seed=3)
    inputs = np.random.default_rng(0).normal(size=(4, 9, 5)).astype("float32")
    state = np.random.default_rng(1).normal(size=(4, 16)).astype("float32")
    outputs, last = layer(tf.constant(inputs), tf.constant(state))
    stock = keras.layers.GRU(16, return_sequences=True, return_state=True, reset_after=True)
    stock.build((4, 9, 5))
    stock.set_weights(layer.gru.get_weights())
    want, want_last = stock(inputs, initial_state=state)
    np.testing.assert_allclose(outputs, want, atol=1e-6)
    np.testing.assert_allclose(last, want_last, atol=1e-6)


def test_a_lost_cudnn_condition_raises_instead_of_falling_back():
    if tf.config.list_logical_devices("GPU"):
        pytest.skip("a GPU is visible")
    layer = GRU(4, kernel="cudnn", seed=1)
    with pytest.raises(ValueError, match="use_cudnn=True"):
        layer(tf.zeros([2, 3, 5]), tf.zeros([2, 4]))


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


def _tiny(preset, num_layers, precision="float32", weight_drop=0.5):
    """A model with the settings of a preset, in small, that runs on a believed GPU."""
    sizes = replace(
        PRESETS[preset]().model,
        embedding_dim=6,
        hidden_size=8,
        num_layers=num_layers,
        weight_drop=weight_drop,
    )
    return build_language_model(sizes, 11, execution=Execution(kernel="cudnn", precision=precision))


def _training_step(model, tokens):
    @tf.function
    def step():
        with tf.GradientTape() as tape:
            losses, _ = model.token_losses(tokens, tokens, model.initial_state(2), training=True)
        return tape.gradient(losses, model.trainable_variables)

    return step


@pytest.mark.parametrize("preset", sorted(PRESETS))
@pytest.mark.parametrize("num_layers", [1, 3])
@pytest.mark.parametrize("precision", ["float32", "float16"])
@pytest.mark.parametrize("weight_drop", [0.0, 0.5])
def test_with_a_gpu_training_and_prefill_are_traced_with_the_cudnn_kernel(
    believed_gpu, preset, num_layers, precision, weight_drop
):
    model = _tiny(preset, num_layers, precision, weight_drop)
    tokens = tf.zeros([2, 5], tf.int32)
    prefill = tf.function(lambda: model(tokens, model.initial_state(2)))
    assert {"CudnnRNNV3", "CudnnRNNBackpropV3"} <= _node_names(_training_step(model, tokens))
    assert "CudnnRNNV3" in _node_names(prefill)


def test_what_fit_and_the_engine_compile_for_a_gpu_holds_the_cudnn_kernel(
    believed_gpu, monkeypatch
):
    monkeypatch.setattr(kernels, "gpu_names", lambda: ["GPU:0"])
    tokens = np.arange(12, dtype=np.int32) % 11
    counts = ("train_characters", "train_bytes", "validation_characters", "validation_bytes")
    corpus = TokenizedCorpus(train=tokens, validation=tokens, **dict.fromkeys(counts, 12))
    model = CarriedStateModel(
        _tiny("demo", 2),
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


def test_float16_reaches_the_cudnn_kernel_and_weights_stay_float32(believed_gpu):
    model = _tiny("demo", 1, "float16")
    step = _training_step(model, tf.zeros([2, 5], tf.int32)).get_concrete_function()
    graph = step.graph.as_graph_def()
    nodes = [*graph.node, *(n for f in graph.library.function for n in f.node_def)]
    dtypes = {node.attr["T"].type for node in nodes if node.op == "CudnnRNNV3"}
    assert dtypes == {tf.float16.as_datatype_enum}
    assert {variable.dtype for variable in model.trainable_variables} == {"float32"}
