"""Carried state: windows read in order equal one pass over the text; penalties, resets, steps."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.training.helpers import LANES, VOCAB_SIZE, make_model, make_windows
from textgen.config import ModelConfig
from textgen.engines.reference_engine import ReferenceEngine

LEARNED = ModelConfig(initial_state="learned")


def learn_initial_state(model):
    state = model.language_model.learned_initial_state
    state.assign(np.random.default_rng(3).normal(size=state.shape))


def reference_losses(model, token_ids, targets):
    """The cross-entropies of one pass from the initial state, `[lanes, time]`, by NumPy."""
    engine = ReferenceEngine(model.language_model.model_weights())
    logits, _ = engine.forward(token_ids, engine.initial_state(len(token_ids)))
    logits = logits.astype(np.float64)
    log_probs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    return -np.take_along_axis(log_probs, targets[..., None], -1)[..., 0]


def text_of(windows):
    """The inputs and the targets of consecutive windows, `[lanes, time]` each."""
    inputs = np.concatenate([inputs["token_ids"] for inputs, _ in windows], axis=1)
    return inputs, np.concatenate([targets for _, targets in windows], axis=1)


def test_validation_in_windows_is_one_pass_with_weights():
    model = make_model(LEARNED)
    learn_initial_state(model)
    windows = make_windows(3, lanes=1)
    weights = np.random.default_rng(5).integers(0, 2, (3, 1, 4)).astype(np.float32)
    losses = reference_losses(model, *text_of(windows))
    expected = (losses * np.concatenate(weights, axis=1)).sum() / weights.sum()
    for (inputs, targets), weight in zip(windows, weights, strict=True):
        logs = model.test_step((inputs, targets, tf.constant(weight)))
    assert float(logs["loss"]) == pytest.approx(expected, rel=1e-5)
    # Two characters per token.
    assert float(logs["bits_per_char"]) == pytest.approx(expected / np.log(2) / 2, rel=1e-5)


@pytest.mark.parametrize("model_config", [ModelConfig(), LEARNED], ids=["zeros", "learned"])
def test_a_restart_replaces_the_carried_state_with_the_initial_one(model_config):
    model = make_model(model_config, optimizer=keras.optimizers.SGD(0.0))
    if model_config is LEARNED:
        learn_initial_state(model)
    windows = [*make_windows(2), *make_windows(2, seed=1)]
    losses = []
    for window in windows:
        model.loss_tracker.reset_state()
        losses.append(float(model.train_step(window)["loss"]))
    expected = [
        reference_losses(model, *text_of(pair)).reshape(LANES, 2, 4).mean(axis=(0, 2))
        for pair in (windows[:2], windows[2:])
    ]
    np.testing.assert_allclose(losses, np.concatenate(expected), rtol=1e-5)


def test_penalties_are_added_to_the_loss_with_their_coefficients():
    model = make_model(
        optimizer=keras.optimizers.SGD(1.0), activation_penalty=2, temporal_penalty=3
    )
    (window,) = make_windows(1)
    language_model, (inputs, targets) = model.language_model, window
    variables = language_model.trainable_variables
    before = [variable.numpy() for variable in variables]
    with tf.GradientTape() as tape:
        losses, penalties, _ = language_model.losses_and_penalties(
            inputs["token_ids"], targets, language_model.initial_state(LANES)
        )
        activation, temporal = tf.unstack(tf.reduce_mean(penalties, axis=0))
        total = tf.reduce_mean(losses) + 2 * activation + 3 * temporal
    gradients = tape.gradient(total, variables)
    logs = model.train_step(window)
    assert float(logs["loss"]) == pytest.approx(float(tf.reduce_mean(losses)), rel=1e-6)
    for variable, value, gradient in zip(variables, before, gradients, strict=True):
        expected = value - tf.convert_to_tensor(gradient).numpy()
        np.testing.assert_allclose(variable.numpy(), expected, atol=1e-6, err_msg=variable.path)


def test_random_resets_hit_lanes_with_the_given_probability():
    model = make_model(LEARNED, state_reset_probability=0.3, seed=4)
    learn_initial_state(model)
    lanes, draws = 200, 20
    state = tf.fill([1, lanes, 5], 9.0)
    initial = model.language_model.initial_state(lanes).numpy()
    resets = 0
    for _ in range(draws):
        after = model._with_random_resets(state).numpy()
        is_reset = (after == initial).all(axis=(0, 2))
        assert ((after == 9.0).all(axis=(0, 2)) == ~is_reset).all()
        resets += is_reset.sum()
    # 4,000 draws: the mean is 1,200, the standard deviation 29.
    assert abs(resets - 0.3 * lanes * draws) < 4 * 29


def test_a_call_takes_the_planned_steps_at_their_learning_rates():
    rates = [0.5, 0.0, 0.25]
    planned = make_model(optimizer=keras.optimizers.SGD(1.0))
    planned.plan_steps(rates)
    windows = make_windows(5)
    elements = tf.data.Dataset.from_generator(
        lambda: iter(windows),
        output_signature=(
            {
                "token_ids": tf.TensorSpec([LANES, 4], tf.int32),
                "restart": tf.TensorSpec([], tf.bool),
            },
            tf.TensorSpec([LANES, 4], tf.int32),
        ),
    )
    planned.make_train_function()(iter(elements))
    assert int(planned.optimizer.iterations) == 3
    single = make_model(optimizer=keras.optimizers.SGD(1.0))
    for rate, window in zip(rates, windows, strict=False):
        single.optimizer.learning_rate = rate
        single.train_step(window)
    # The order of float32 additions differs between a graph and single operations.
    np.testing.assert_allclose(planned.training_state, single.training_state, atol=1e-6)
    pairs = (m.language_model.trainable_variables for m in (planned, single))
    for one, other in zip(*pairs, strict=True):
        np.testing.assert_allclose(one.numpy(), other.numpy(), atol=1e-6, err_msg=one.path)


def test_the_weights_become_their_average_only_if_there_is_one():
    for ema_decay in (None, 0.5):
        model = make_model(ema_decay=ema_decay)
        for window in make_windows(4):
            model.train_step(window)
        raw = [variable.numpy() for variable in model.language_model.trainable_variables]
        model.load_ema_weights()
        loaded = [variable.numpy() for variable in model.language_model.trainable_variables]
        is_same = [np.array_equal(one, other) for one, other in zip(raw, loaded, strict=True)]
        assert all(is_same) == (ema_decay is None)


def test_prediction_is_that_of_the_language_model():
    model = make_model()
    (inputs, _), *_ = make_windows(1)
    state = model.language_model.initial_state(LANES)
    logits, next_state = model(inputs["token_ids"], state)
    assert logits.shape == (LANES, 4, VOCAB_SIZE)
    expected = model.language_model(inputs["token_ids"], state)
    np.testing.assert_array_equal(logits, expected[0])
    np.testing.assert_array_equal(next_state, expected[1])
