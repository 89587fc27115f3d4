"""The Keras model: state, shards, one-hot inputs, dropout, losses, weights, and cuDNN graphs."""

from dataclasses import replace
from functools import partial

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.models.graphs import CUDNN_OPS, graph_ops, nodes, simulate_gpu, traced_ops
from textgen.config import ModelConfig, TrainingConfig
from textgen.corpora import TokenizedCorpus, plan_lanes, training_dataset
from textgen.engines.tensorflow_engine import TensorFlowEngine
from textgen.models import kernels
from textgen.models.kernels import Execution
from textgen.models.language_model import build_language_model
from textgen.presets import PRESETS
from textgen.training.carried_state import CarriedStateModel
from textgen.training.progress import Progress

CONFIG = ModelConfig(embedding_dim=6, hidden_size=10, num_layers=2, dropout=0.5)


def make_tokens(batch, time, seed=0):
    return np.random.default_rng(seed).integers(0, 9, size=(batch, time)).astype("int32")


def test_one_pass_equals_two_passes_with_carried_state():
    model = build_language_model(CONFIG, 9)
    model.set_model_weights(perturbed(model.model_weights()))
    tokens = make_tokens(3, 12)
    whole, last = model(tokens, model.initial_state(3))
    first, state = model(tokens[:, :5], model.initial_state(3))
    second, carried = model(tokens[:, 5:], state)
    # Logits are of the order of 1 and eps is 1.2e-7; only the Dense product may sum differently.
    np.testing.assert_allclose(tf.concat([first, second], 1), whole, atol=1e-6)
    np.testing.assert_allclose(carried, last, atol=1e-6)
    assert whole.shape == (3, 12, 9)
    assert last.shape == (2, 3, 10)


@pytest.mark.parametrize("embedding_dim", [4, 20])
@pytest.mark.parametrize("shards", [1, 2, 3])
def test_shards_and_one_hot_inputs_change_nothing(embedding_dim, shards):
    config = ModelConfig(embedding_dim=embedding_dim, hidden_size=10, num_layers=2, dropout=0.0)
    model = build_language_model(config, 9, execution=Execution(kernel="fused", shards=shards))
    tokens = make_tokens(25, 6)
    logits, state = model(tokens, model.initial_state(25))
    hidden, last = model.embedding(tokens), []
    for block in model.blocks:
        hidden, layer_state = block.recurrent.stock(hidden)
        last.append(layer_state)
    want = tf.matmul(hidden, model.dense.kernel) + model.dense.bias
    # Initial weights give logits and states below 0.1, where eps is 7e-9.
    np.testing.assert_allclose(logits, want, atol=1e-6)
    np.testing.assert_allclose(state, tf.stack(last), atol=1e-6)


def test_token_losses_are_the_cross_entropy_of_the_logits():
    model = build_language_model(CONFIG, 9)
    tokens, targets = make_tokens(3, 7), make_tokens(3, 7, seed=1)
    losses, _ = model.token_losses(tokens, targets, model.initial_state(3))
    logits = model(tokens, model.initial_state(3))[0].numpy()
    log_probs = logits - np.logaddexp.reduce(logits, axis=-1, keepdims=True)
    want = -np.take_along_axis(log_probs, targets[..., None], axis=-1)[..., 0]
    np.testing.assert_allclose(losses, want, rtol=1e-5)


def test_bfloat16_products_change_a_training_step_little_and_evaluation_not_at_all():
    config = ModelConfig(embedding_dim=6, hidden_size=64, dropout=0.0)
    rounded, exact = (
        build_language_model(config, 9, execution=Execution(kernel="fused", matmul_dtype=dtype))
        for dtype in ("bfloat16", "float32")
    )
    tokens, state = make_tokens(4, 30), exact.initial_state(4)
    np.testing.assert_array_equal(rounded(tokens, state)[0], exact(tokens, state)[0])
    a, b = (m.token_losses(tokens, tokens, state, training=True)[0] for m in (rounded, exact))
    assert not np.array_equal(a, b)
    np.testing.assert_allclose(a, b, atol=0.02)


def test_dropout_is_active_in_training_only_and_locked_along_the_window():
    model = build_language_model(CONFIG, 9)
    tokens = make_tokens(4, 16)
    state, weights = model.initial_state(4), model.step_weights()
    hidden, _ = model.hidden_states(tokens, state, weights, training=True)
    dropped = hidden.numpy() == 0
    assert dropped.any() and not dropped.all()
    assert (dropped == dropped[:, :1]).all()
    assert (dropped[0] != dropped[1]).any()
    still, _ = model.hidden_states(tokens, state, weights)
    assert (still.numpy() != 0).all()


@pytest.mark.parametrize("kernel", ["fused", "reference"])
def test_input_dropout_drops_the_same_features_in_every_step_of_a_window(kernel):
    config = ModelConfig(embedding_dim=40, hidden_size=5, input_dropout=0.5, dropout=0.0)
    model = build_language_model(config, 9, execution=Execution(kernel=kernel))
    inputs, folded = model._first_inputs(make_tokens(2, 6), tf.ones([9, 40]), training=True)
    assert folded is None
    window = model.layout.to_batch_major(inputs).numpy()
    assert window.shape == (2, 6, 40)
    np.testing.assert_array_equal(window, np.repeat(window[:, :1], 6, axis=1))
    assert set(np.unique(window)) == {0.0, 2.0}


@pytest.mark.parametrize(
    ("kernel", "vocab_size", "input_dropout", "training", "one_hot"),
    [
        ("fused", 8, 0.0, True, True),
        ("fused", 9, 0.0, True, False),
        ("fused", 8, 0.5, True, False),
        ("fused", 8, 0.5, False, True),
        ("reference", 8, 0.0, True, False),
    ],
)
def test_one_hot_columns_are_read_by_the_fused_kernel_from_a_small_vocabulary_without_dropout(
    kernel, vocab_size, input_dropout, training, one_hot
):
    config = ModelConfig(embedding_dim=8, hidden_size=5, input_dropout=input_dropout)
    model = build_language_model(config, vocab_size, execution=Execution(kernel=kernel))
    embeddings = model.step_weights().embeddings
    tokens = make_tokens(2, 6) % vocab_size
    inputs, folded = model._first_inputs(tokens, embeddings, training)
    assert (inputs.dtype == tf.int8) == one_hot
    assert (folded is embeddings) == one_hot


def test_embedding_dropout_drops_whole_tokens_in_a_step():
    config = ModelConfig(embedding_dim=6, hidden_size=5, embedding_dropout=0.5)
    model = build_language_model(config, 400)
    ratio = (model.step_weights(training=True).embeddings / model.embedding.embeddings).numpy()
    assert (ratio == ratio[:, :1]).all()
    assert set(np.unique(ratio.round(5))) == {0.0, 2.0}
    assert 0.4 < (ratio[:, 0] == 0).mean() < 0.6
    np.testing.assert_array_equal(model.step_weights().embeddings, model.embedding.embeddings)


@pytest.mark.parametrize("parts", [{}, {"tie_weights": True, "embedding_dim": 10}], ids=str)
def test_a_model_with_the_bias_of_frequencies_predicts_them_and_rules_out_no_token(parts):
    model = build_language_model(replace(CONFIG, **parts), 9)
    counts = np.array([0, 1, 3, 7, 15, 31, 63, 127, 255])
    model.init_dense_bias(counts)
    tokens = make_tokens(4, 12)
    probs = tf.nn.softmax(model(tokens, model.initial_state(4))[0]).numpy()
    want = (counts + 1) / (counts + 1).sum()
    np.testing.assert_allclose(probs.mean((0, 1)), want, rtol=0.25)
    assert np.isfinite(model.dense.bias.numpy()).all()


PARTS = [
    {"output_gate": True},
    {"residual": True},
    {"layer_norm": True},
    {"initial_state": "learned"},
    {"tie_weights": True, "embedding_dim": 10},
    {"cell": "lstm", "forget_bias": 2.0, "initial_state": "learned"},
    {"cell": "rnn", "output_gate": True, "residual": True, "layer_norm": True},
]


@pytest.mark.parametrize("parts", PARTS, ids=str)
def test_every_part_gives_the_same_results_in_both_layouts_and_with_shards(parts):
    config = replace(CONFIG, dropout=0.0, **parts)
    tokens, models = make_tokens(5, 8), []
    for kernel, shards in (("fused", 1), ("fused", 2), ("reference", 1)):
        execution = Execution(kernel=kernel, shards=shards)
        models.append(build_language_model(config, 9, execution=execution))
    weights = perturbed(models[0].model_weights())
    for model in models:
        model.set_model_weights(weights)
    want, want_state = models[0](tokens, models[0].initial_state(5))
    for model in models[1:]:
        logits, state = model(tokens, model.initial_state(5))
        # Logits are of the order of 1 and eps is 1.2e-7; differences are at most 0.7e-6.
        np.testing.assert_allclose(logits, want, atol=2e-6)
        np.testing.assert_allclose(state, want_state, atol=2e-6)
    np.testing.assert_array_equal(weights.initial_state(5), models[0].initial_state(5))


def perturbed(weights):
    """Move every value, so that no part keeps its initial zeros or ones."""
    rng = np.random.default_rng(0)
    tensors = {
        name: value + rng.normal(scale=0.3, size=value.shape).astype("float32")
        for name, value in weights.to_tensors().items()
    }
    if np.array_equal(weights.embedding.T, weights.dense_kernel):
        tensors["dense.kernel"] = np.ascontiguousarray(tensors["embedding"].T)
    return type(weights).from_tensors(tensors, residual=weights.residual)


@pytest.mark.parametrize("parts", PARTS, ids=str)
def test_every_weight_of_every_part_is_trained(parts):
    config = replace(CONFIG, **parts)
    model = build_language_model(config, 9)
    model.set_model_weights(perturbed(model.model_weights()))
    tokens = make_tokens(4, 12)
    with tf.GradientTape() as tape:
        losses, _ = model.token_losses(tokens, tokens, model.initial_state(4), training=True)
    for variable, gradient in zip(
        model.trainable_variables,
        tape.gradient(losses, model.trainable_variables),
        strict=True,
    ):
        assert np.any(tf.convert_to_tensor(gradient).numpy() != 0), variable.path


def test_penalties_are_the_mean_squares_of_the_input_of_the_dense_layer_and_its_changes():
    execution = Execution(kernel="fused")
    model = build_language_model(replace(CONFIG, dropout=0.0), 9, execution=execution)
    tokens, state = make_tokens(3, 7), model.initial_state(3)
    losses, penalties, _ = model.losses_and_penalties(tokens, tokens, state)
    hidden = model.hidden_states(tokens, state, model.step_weights())[0].numpy()
    np.testing.assert_allclose(penalties[:, 0], (hidden**2).mean(axis=(1, 2)), rtol=1e-5)
    changes = np.diff(hidden, axis=1)
    want = (changes**2).sum(axis=(1, 2)) / hidden[0].size
    np.testing.assert_allclose(penalties[:, 1], want, rtol=1e-5)
    want, _ = model.token_losses(tokens, tokens, state, training=True)
    np.testing.assert_allclose(losses, want, rtol=1e-6)


def test_weights_copied_into_another_model_give_the_same_logits():
    one, other = build_language_model(CONFIG, 9, seed=1), build_language_model(CONFIG, 9, seed=2)
    tokens = make_tokens(2, 6)
    want, _ = one(tokens, one.initial_state(2))
    before, _ = other(tokens, other.initial_state(2))
    assert not np.allclose(before, want)
    other.set_model_weights(one.model_weights())
    after, _ = other(tokens, other.initial_state(2))
    np.testing.assert_array_equal(after, want)


def test_the_same_seed_gives_the_same_weights():
    one, same = (build_language_model(CONFIG, 9, seed=5).model_weights() for _ in range(2))
    for a, b in zip(one.to_tensors().values(), same.to_tensors().values(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_layers_and_variables_keep_the_names_that_checkpoints_have():
    config = replace(CONFIG, num_layers=1, initial_state="learned")
    paths = [variable.path for variable in build_language_model(config, 9).trainable_variables]
    assert sorted(paths) == [
        "block_0/gru_0/weights/gru_cell/bias",
        "block_0/gru_0/weights/gru_cell/kernel",
        "block_0/gru_0/weights/gru_cell/recurrent_kernel",
        "dense/bias",
        "dense/kernel",
        "embedding/embeddings",
        "language_model/learned_initial_state",
    ]


@pytest.fixture
def simulated_gpu(monkeypatch):
    simulate_gpu(monkeypatch)


def make_small(preset, num_layers, matmul_dtype="float32", weight_drop=0.5, cell="gru"):
    """A model with the settings of a preset and small sizes, computed by cuDNN."""
    model = PRESETS[preset]().model
    stacked = num_layers > 1
    config = replace(
        model,
        residual=model.residual and stacked,
        layer_norm=model.layer_norm and stacked,
        cell=cell,
        embedding_dim=8,
        hidden_size=8,
        num_layers=num_layers,
        weight_drop=weight_drop,
    )
    execution = Execution(kernel="cudnn", matmul_dtype=matmul_dtype)
    return build_language_model(config, 11, execution=execution)


def training_step(model, tokens):
    @tf.function
    def step():
        with tf.GradientTape() as tape:
            losses, _ = model.token_losses(tokens, tokens, model.initial_state(2), training=True)
        return tape.gradient(losses, model.trainable_variables)

    return step


@pytest.mark.parametrize("preset", sorted(PRESETS))
@pytest.mark.parametrize("num_layers", [1, 3])
@pytest.mark.parametrize("matmul_dtype", ["float32", "float16"])
@pytest.mark.parametrize("weight_drop", [0.0, 0.5])
def test_with_a_gpu_training_and_prefill_are_traced_with_the_cudnn_kernel(
    simulated_gpu, preset, num_layers, matmul_dtype, weight_drop
):
    model = make_small(preset, num_layers, matmul_dtype, weight_drop)
    tokens = tf.zeros([2, 5], tf.int32)
    prefill = tf.function(lambda: model(tokens, model.initial_state(2)))
    assert traced_ops(training_step(model, tokens)) >= CUDNN_OPS
    assert "CudnnRNNV3" in traced_ops(prefill)


@pytest.mark.parametrize("cell", ["gru", "lstm"])
def test_with_a_gpu_fit_and_the_engine_compile_the_cudnn_kernel(simulated_gpu, monkeypatch, cell):
    monkeypatch.setattr(kernels, "gpu_names", lambda: ["GPU:0"])
    tokens = np.arange(12, dtype=np.int32) % 11
    counts = ("train_characters", "train_bytes", "validation_characters", "validation_bytes")
    corpus = TokenizedCorpus(train=tokens, validation=tokens, **dict.fromkeys(counts, 12))
    model = CarriedStateModel(
        make_small("demo", 2, cell=cell),
        TrainingConfig(),
        corpus,
        batch_size=2,
        validation_lanes=1,
        progress=Progress(total_steps=1, tokens_per_step=10, clock=lambda: 0.0),
    )
    model.compile(optimizer=keras.optimizers.AdamW(), steps_per_execution=3)
    model.optimizer.build(model.language_model.trainable_variables)
    windows = iter(training_dataset(tokens, plan_lanes(12, 2, 5, 1), 0, 1))
    trained = partial(model.make_train_function().get_concrete_function, windows)
    assert graph_ops(trained().graph) >= CUDNN_OPS
    engine = TensorFlowEngine(model.language_model.model_weights())
    assert "CudnnRNNV3" in graph_ops(engine._call.get_concrete_function().graph)


def test_a_mirrored_strategy_keeps_the_cudnn_kernel(simulated_gpu):
    strategy = tf.distribute.MirroredStrategy(["CPU:0"])
    with strategy.scope():
        model = make_small("demo", 2)
    step = training_step(model, tf.zeros([2, 5], tf.int32))
    assert traced_ops(tf.function(lambda: strategy.run(step))) >= CUDNN_OPS


@pytest.mark.parametrize("cell", ["gru", "lstm"])
def test_float16_reaches_the_cudnn_kernel_and_weights_stay_float32(simulated_gpu, cell):
    model = make_small("demo", 1, "float16", cell=cell)
    step = training_step(model, tf.zeros([2, 5], tf.int32)).get_concrete_function()
    dtypes = {n.attr["T"].type for n in nodes(step.graph) if n.op == "CudnnRNNV3"}
    assert dtypes == {tf.float16.as_datatype_enum}
    assert {variable.dtype for variable in model.trainable_variables} == {"float32"}
