"""The Keras model: state, the table of the first layer, dropout, weights in and out."""

import numpy as np
import tensorflow as tf

from textgen.config import ModelConfig
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


def test_the_first_layers_table_changes_nothing():
    model = build_language_model(_CONFIG, 9)
    tokens = _tokens(2, 20)
    by_table, _ = model(tokens, model.initial_state(2))
    # fewer tokens than the vocabulary has: no table
    state = model.initial_state(2)
    pieces = []
    for start in range(0, 20, 4):
        logits, state = model(tokens[:, start : start + 4], state)
        pieces.append(logits)
    np.testing.assert_allclose(tf.concat(pieces, 1), by_table, atol=1e-6)


def test_token_losses_are_the_cross_entropy_of_the_logits():
    model = build_language_model(_CONFIG, 9)
    tokens, targets = _tokens(3, 7), _tokens(3, 7, seed=1)
    losses, _ = model.token_losses(tokens, targets, model.initial_state(3))
    logits = model(tokens, model.initial_state(3))[0].numpy()
    log_probs = logits - np.logaddexp.reduce(logits, axis=-1, keepdims=True)
    want = -np.take_along_axis(log_probs, targets[..., None], axis=-1)[..., 0]
    np.testing.assert_allclose(np.transpose(losses), want, rtol=1e-5)


def test_dropout_acts_in_training_alone_and_is_locked_along_the_window():
    model = build_language_model(_CONFIG, 9)
    tokens = _tokens(4, 16)
    hidden, _ = model.hidden_states(tokens, model.initial_state(4), training=True)
    dropped = np.array(hidden) == 0
    assert dropped.any() and not dropped.all()
    assert (dropped == dropped[0]).all()
    still, _ = model.hidden_states(tokens, model.initial_state(4))
    assert (np.array(still) != 0).all()


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
