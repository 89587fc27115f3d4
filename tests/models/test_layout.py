"""The layout of each kernel: axes, permutations, embedded and one-hot tokens."""

from typing import get_args

import keras
import numpy as np
import pytest
import tensorflow as tf

from textgen.config import ResolvedKernel
from textgen.models.kernels import Execution
from textgen.models.layout import Layout

BATCH_MAJOR, COLUMNS = Layout.of("cudnn"), Layout.of("fused")
WINDOW = np.arange(2 * 3 * 4).reshape(2, 3, 4)  # [batch, time, features]


def test_only_the_fused_kernel_has_features_first_and_reads_one_hot_columns():
    assert COLUMNS.axes == ("time", "features", "batch")
    assert COLUMNS.one_hot and COLUMNS.features_first
    for kernel in set(get_args(ResolvedKernel)) - {"fused"}:
        layout = Layout.of(kernel)
        assert layout.axes == ("batch", "time", "features")
        assert not layout.one_hot and not layout.features_first


@pytest.mark.parametrize("kernel", get_args(ResolvedKernel))
def test_an_execution_has_the_layout_of_its_kernel(kernel):
    assert Execution(kernel=kernel).layout == Layout.of(kernel)


def test_shapes_follow_the_axes():
    assert (BATCH_MAJOR.feature_axis, COLUMNS.feature_axis) == (2, 1)
    assert BATCH_MAJOR.shape(7) == (None, None, 7)
    assert COLUMNS.shape(7) == (None, 7, None)


@pytest.mark.parametrize("layout", [BATCH_MAJOR, COLUMNS])
def test_locked_dropout_has_one_mask_for_all_steps(layout):
    window = layout.from_batch_major(tf.ones([2, 5, 40]))
    noise = keras.layers.Dropout(0.5, noise_shape=layout.locked_noise_shape, seed=1)
    dropped = layout.to_batch_major(noise(window, training=True)).numpy() == 0
    assert dropped.any() and not dropped.all()
    np.testing.assert_array_equal(dropped, np.repeat(dropped[:, :1], 5, axis=1))
    assert (dropped[0] != dropped[1]).any()


def test_columns_are_time_then_features_then_batch():
    window = COLUMNS.from_batch_major(tf.constant(WINDOW))
    for batch, time, feature in np.ndindex(WINDOW.shape):
        assert window[time, feature, batch] == WINDOW[batch, time, feature]
    np.testing.assert_array_equal(COLUMNS.to_batch_major(window), WINDOW)


def test_a_batch_major_window_is_passed_through_without_an_operation():
    window = tf.constant(WINDOW)
    assert BATCH_MAJOR.from_batch_major(window) is window
    assert BATCH_MAJOR.to_batch_major(window) is window


TOKEN_IDS = np.array([[3, 0, 1], [2, 2, 0]])


@pytest.mark.parametrize("layout", [BATCH_MAJOR, COLUMNS])
def test_embedded_tokens_are_the_rows_of_the_embedding(layout):
    embeddings = np.random.default_rng(0).normal(size=(4, 5))
    window = layout.embed(tf.constant(embeddings), tf.constant(TOKEN_IDS))
    np.testing.assert_array_equal(layout.to_batch_major(window), embeddings[TOKEN_IDS])


@pytest.mark.parametrize("layout", [BATCH_MAJOR, COLUMNS])
def test_one_hot_columns_are_the_rows_of_the_identity(layout):
    window = layout.one_hot_columns(tf.constant(TOKEN_IDS), 4)
    assert window.dtype == tf.int8
    np.testing.assert_array_equal(layout.to_batch_major(window), np.eye(4)[TOKEN_IDS])
