"""The Keras model: state, the table of the first layer, dropout, weights in and out."""

from dataclasses import replace

import numpy as np
import pytest
import tensorflow as tf

from textgen.config import ModelConfig
from textgen.models.kernels import Execution
from textgen.models.language_model import build_language_model

_CONFIG = ModelConfig(embedding_dim=6, hidden_size=10, num_layers=2, dropout=0.5)


def _tokens(batch, time, seed=0):
    return np.random.default_rng(seed).integers(0, 9, size=(batch, time)).astype("int32")


def test_one_pass_equals_two_halves_with_the_state_carried():
    model = build_language_model(_CONFIG, 9)
    tokens = _tokens(3, 12)
    whole, last = model(tokens, model.initial_state(3))
    first, state = model(tokens[:, :5], model.initial_state(3))
    second, carried = model(tokens[:, 5:], state)
    np.testing.assert_allclose(tf.concat([first, second], 1), whole, atol=1e-6)
    np.testing.assert_allclose(carried, last, atol=1e-6)
    assert whole.shape == (3, 12, 9)
    assert last.shape == (2, 3, 10)


@pytest.mark.parametrize("embedding_dim", [4, 20])
@pytest.mark.parametrize("shards", [1, 2, 3])
def test_shards_and_one_hot_inputs_change_nothing(embedding_dim, shards):
    config = ModelConfig(embedding_dim=embedding_dim, hidden_size=10, num_layers=2, dropout=0.0)
    model = build_language_model(config, 9, execution=Execution(kernel="fused", shards=shards))
    tokens = _tokens(25, 6)
    logits, state = model(tokens, model.initial_state(25))
    hidden, last = model.embedding(tokens), []
    for block in model.blocks:
        hidden, layer_state = block.recurrent.stock(hidden)
        last.append(layer_state)
    want = tf.matmul(hidden, model.dense.kernel) + model.dense.bias
    np.testing.assert_allclose(logits, want, atol=1e-6)
    np.testing.assert_allclose(state, tf.stack(last), atol=1e-6)


def test_token_losses_are_the_cross_entropy_of_the_logits():
    model = build_language_model(_CONFIG, 9)
    tokens, targets = _tokens(3, 7), _tokens(3, 7, seed=1)
    losses, _ = model.token_losses(tokens, targets, model.initial_state(3))
    logits = model(tokens, model.initial_state(3))[0].numpy()
    log_probs = logits - np.logaddexp.reduce(logits, axis=-1, keepdims=True)
    want = -np.take_along_axis(log_probs, targets[..., None], axis=-1)[..., 0]
    np.testing.assert_allclose(losses, want, rtol=1e-5)


def test_bfloat16_products_change_a_training_step_little_and_evaluation_not_at_all():
    config = ModelConfig(embedding_dim=6, hidden_size=64, dropout=0.0)
    rounded, exact = (
        build_language_model(config, 9, execution=Execution(kernel="fused", matmul_dtype=products))
        for products in ("bfloat16", "float32")
    )
    tokens, state = _tokens(4, 30), exact.initial_state(4)
    np.testing.assert_array_equal(rounded(tokens, state)[0], exact(tokens, state)[0])
    a, b = (m.token_losses(tokens, tokens, state, training=True)[0] for m in (rounded, exact))
    assert not np.array_equal(a, b)
    np.testing.assert_allclose(a, b, atol=0.02)


def test_dropout_acts_in_training_alone_and_is_locked_along_the_window():
    model = build_language_model(_CONFIG, 9)
    tokens = _tokens(4, 16)
    state, weights = model.initial_state(4), model.step_weights()
    hidden, _ = model.hidden_states(tokens, state, weights, training=True)
    dropped = tf.cast(hidden, tf.float32).numpy() == 0
    assert dropped.any() and not dropped.all()
    assert (dropped == dropped[:, :1]).all()
    assert (dropped[0] != dropped[1]).any()
    still, _ = model.hidden_states(tokens, state, weights)
    assert (still.numpy() != 0).all()


@pytest.mark.parametrize("kernel", ["fused", "reference"])
def test_input_dropout_drops_the_same_features_all_along_the_window(kernel):
    config = ModelConfig(embedding_dim=40, hidden_size=5, input_dropout=0.5, dropout=0.0)
    model = build_language_model(config, 9, execution=Execution(kernel=kernel))
    time_axis, features = (0, 1) if kernel == "fused" else (1, 2)
    embeddings = tf.ones([9, 40])
    x, through = model._first_inputs(_tokens(2, 6), embeddings, training=True)
    assert through is None and x.shape[features] == 40
    assert (x.numpy() == np.take(x.numpy(), [0], axis=time_axis)).all()
    assert set(np.unique(x)) == {0.0, 2.0}


def test_embedding_dropout_drops_whole_tokens_for_a_step():
    config = ModelConfig(embedding_dim=6, hidden_size=5, embedding_dropout=0.5)
    model = build_language_model(config, 400)
    ratio = (model.step_weights(training=True).embeddings / model.embedding.embeddings).numpy()
    assert (ratio == ratio[:, :1]).all()
    assert set(np.unique(ratio.round(5))) == {0.0, 2.0}
    assert 0.4 < (ratio[:, 0] == 0).mean() < 0.6
    np.testing.assert_array_equal(model.step_weights().embeddings, model.embedding.embeddings)


@pytest.mark.parametrize("parts", [{}, {"tie_weights": True, "embedding_dim": 10}], ids=str)
def test_a_model_that_begins_with_frequencies_predicts_them_and_never_rules_a_token_out(parts):
    model = build_language_model(replace(_CONFIG, **parts), 9)
    counts = np.array([0, 1, 3, 7, 15, 31, 63, 127, 255])
    model.init_dense_bias(counts)
    tokens = _tokens(4, 12)
    probs = tf.nn.softmax(model(tokens, model.initial_state(4))[0]).numpy()
    want = (counts + 1) / (counts + 1).sum()
    np.testing.assert_allclose(probs.mean((0, 1)), want, rtol=0.25)
    assert np.isfinite(model.dense.bias.numpy()).all()


_PARTS = [
    {"output_gate": True},
    {"residual": True},
    {"layer_norm": True},
    {"initial_state": "learned"},
    {"tie_weights": True, "embedding_dim": 10},
    {"cell": "lstm", "forget_bias": 2.0, "initial_state": "learned"},
    {"cell": "rnn", "output_gate": True, "residual": True, "layer_norm": True},
]


@pytest.mark.parametrize("parts", _PARTS, ids=str)
def test_every_part_computes_alike_in_both_layouts_and_in_one_hot_columns(parts):
    config = replace(_CONFIG, dropout=0.0, **parts)
    tokens, models = _tokens(5, 8), []
    for kernel, shards in (("fused", 1), ("fused", 2), ("reference", 1)):
        execution = Execution(kernel=kernel, shards=shards)
        models.append(build_language_model(config, 9, execution=execution))
    weights = _shaken(models[0].model_weights())
    for model in models:
        model.set_model_weights(weights)
    want, want_state = models[0](tokens, models[0].initial_state(5))
    for model in models[1:]:
        logits, state = model(tokens, model.initial_state(5))
        np.testing.assert_allclose(logits, want, atol=2e-6)
        np.testing.assert_allclose(state, want_state, atol=2e-6)
    np.testing.assert_array_equal(weights.initial_state(5), models[0].initial_state(5))


def _shaken(weights):
    """Move every value, so that no part stays at its beginning of zeros or ones."""
    random = np.random.default_rng(0)
    tensors = {
        name: value + random.normal(scale=0.3, size=value.shape).astype("float32")
        for name, value in weights.to_tensors().items()
    }
    if np.array_equal(weights.embedding.T, weights.dense_kernel):
        tensors["dense.kernel"] = np.ascontiguousarray(tensors["embedding"].T)
    return type(weights).from_tensors(tensors, residual=weights.residual)


@pytest.mark.parametrize("parts", _PARTS, ids=str)
def test_every_weight_of_every_part_is_trained(parts):
    config = replace(_CONFIG, **parts)
    model = build_language_model(config, 9)
    model.set_model_weights(_shaken(model.model_weights()))
    tokens = _tokens(4, 12)
    with tf.GradientTape() as tape:
        losses, _ = model.token_losses(tokens, tokens, model.initial_state(4), training=True)
    for variable, gradient in zip(
        model.trainable_variables,
        tape.gradient(losses, model.trainable_variables),
        strict=True,
    ):
        assert np.any(tf.convert_to_tensor(gradient).numpy() != 0), variable.path


def test_penalties_are_the_mean_squares_of_what_the_dense_layer_reads():
    execution = Execution(kernel="fused")
    model = build_language_model(replace(_CONFIG, dropout=0.0), 9, execution=execution)
    tokens, state = _tokens(3, 7), model.initial_state(3)
    losses, penalties, _ = model.losses_and_penalties(tokens, tokens, state)
    hidden = model.hidden_states(tokens, state, model.step_weights())[0].numpy()
    np.testing.assert_allclose(penalties[:, 0], (hidden**2).mean(axis=(1, 2)), rtol=1e-5)
    changes = np.diff(hidden, axis=1)
    want = (changes**2).sum(axis=(1, 2)) / hidden[0].size
    np.testing.assert_allclose(penalties[:, 1], want, rtol=1e-5)
    want, _ = model.token_losses(tokens, tokens, state, training=True)
    np.testing.assert_allclose(losses, want, rtol=1e-6)


def test_weights_taken_out_and_put_into_another_model_give_the_same_logits():
    one, other = build_language_model(_CONFIG, 9, seed=1), build_language_model(_CONFIG, 9, seed=2)
    tokens = _tokens(2, 6)
    want, _ = one(tokens, one.initial_state(2))
    before, _ = other(tokens, other.initial_state(2))
    assert not np.allclose(before, want)
    other.set_model_weights(one.model_weights())
    after, _ = other(tokens, other.initial_state(2))
    np.testing.assert_array_equal(after, want)


def test_the_same_seed_gives_the_same_weights():
    one, same = (build_language_model(_CONFIG, 9, seed=5).model_weights() for _ in range(2))
    for a, b in zip(one.to_tensors().values(), same.to_tensors().values(), strict=True):
        np.testing.assert_array_equal(a, b)
