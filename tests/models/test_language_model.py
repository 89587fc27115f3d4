"""The Keras model: state, the table of the first layer, dropout, weights in and out."""

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
    for layer in model.gru_layers:
        hidden, layer_state = layer.gru(hidden)
        last.append(layer_state)
    np.testing.assert_allclose(logits, model.dense(hidden), atol=1e-6)
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
        build_language_model(config, 9, execution=Execution(kernel="fused", precision=products))
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
    state, kernels = model.initial_state(4), model.recurrent_kernels()
    hidden, _ = model.hidden_states(tokens, state, kernels, training=True)
    dropped = tf.cast(hidden, tf.float32).numpy() == 0
    assert dropped.any() and not dropped.all()
    assert (dropped == dropped[:, :1]).all()
    assert (dropped[0] != dropped[1]).any()
    still, _ = model.hidden_states(tokens, state, kernels)
    assert (still.numpy() != 0).all()


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
