"""DropConnect: the dropped fraction, its independence, the expectation, seeds and gradients."""

import numpy as np
import pytest
import tensorflow as tf

from textgen.models.drop_connect import DropConnect


@pytest.mark.parametrize("rate", [0.02, 0.25, 0.5, 0.9])
@pytest.mark.parametrize("shape", [(301, 333), (400, 256)])
def test_the_requested_fraction_is_dropped_and_the_rest_is_scaled_up(rate, shape):
    result = DropConnect(rate, seed=3)(tf.ones(shape), training=True).numpy()
    dropped = result == 0
    spread = np.sqrt(rate * (1 - rate) / dropped.size)
    assert abs(dropped.mean() - rate) < 5 * spread
    np.testing.assert_allclose(result[~dropped], 1 / (1 - rate), rtol=1e-3)
    # Entries of a row, of a column, and neighbors from one random word are independent.
    assert abs(dropped.mean(0) - rate).max() < 6 * np.sqrt(rate * (1 - rate) / shape[0])
    assert abs(dropped.mean(1) - rate).max() < 6 * np.sqrt(rate * (1 - rate) / shape[1])
    flat = dropped.ravel()[: dropped.size // 2 * 2].reshape(-1, 2)
    assert abs(flat.all(1).mean() - rate**2) < 5 * np.sqrt(rate**2 * (1 - rate**2) / len(flat))


def test_each_call_draws_another_mask_and_a_seed_repeats_them():
    weight = tf.ones([64, 48])
    first, again, other = (DropConnect(0.5, seed=seed) for seed in (1, 1, 2))
    draws = [first(weight, training=True).numpy() for _ in range(3)]
    assert not np.array_equal(draws[0], draws[1])
    for draw in draws:
        np.testing.assert_array_equal(again(weight, training=True), draw)
    assert not np.array_equal(other(weight, training=True), draws[0])


@pytest.mark.parametrize("rate, training", [(0.5, False), (0.0, True)])
def test_nothing_is_dropped_without_training_or_at_a_rate_of_zero(rate, training):
    weight = tf.reshape(tf.range(35.0), [5, 7])
    np.testing.assert_array_equal(DropConnect(rate, seed=1)(weight, training=training), weight)


def test_a_rate_close_to_one_gives_finite_values():
    result = DropConnect(1 - 1e-9, seed=1)(tf.ones([9, 9]), training=True)
    assert np.isfinite(result).all()


def test_gradients_reach_only_the_entries_that_were_kept():
    weight = tf.reshape(tf.range(1.0, 218.0), [31, 7])
    with tf.GradientTape() as tape:
        tape.watch(weight)
        dropped = DropConnect(0.5, seed=1)(weight, training=True)
        total = tf.reduce_sum(dropped)
    gradient = tape.gradient(total, weight).numpy()
    np.testing.assert_array_equal(gradient != 0, dropped.numpy() != 0)
    np.testing.assert_allclose(gradient[gradient != 0], 2.0, rtol=1e-4)
