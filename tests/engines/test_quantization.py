"""Quantization to 8 and 4 bits: levels, layout, and errors of products."""

import numpy as np
import pytest

from textgen.engines.quantization import (
    columns,
    dequantize_state,
    quantize_int4,
    quantize_int8,
    quantize_state,
)


def make_matrix(rows=200, width=7, seed=0):
    return np.random.default_rng(seed).standard_normal((rows, width)).astype(np.float32)


def make_states(rows=200, number=2000, seed=1):
    """Return states with correlated units, as in a trained model."""
    random = np.random.default_rng(seed)
    return np.tanh(0.2 * random.standard_normal((number, 8)) @ random.standard_normal((8, rows)))


def test_the_error_of_int8_is_at_most_half_a_scale_and_zeros_stay_zeros():
    matrix = make_matrix()
    matrix[:, 2] = 0
    rounded = quantize_int8(matrix)
    assert rounded.values.dtype == np.int8
    error = np.abs(rounded.dequantize() - matrix)
    assert (error <= rounded.scales * 0.5001).all()
    assert error.max() > 0
    assert (rounded.dequantize()[:, 2] == 0).all()


def test_a_matrix_of_int4_levels_is_represented_exactly():
    levels = np.random.default_rng(3).integers(-8, 8, (64, 5)).astype(np.float32)
    levels[[0, 32]] = -8
    scales = np.repeat(np.float32([[0.5, 1, 2, 4, -8], [1, 0.25, 1, 2, 4]]), 32, axis=0)
    rounded = quantize_int4(levels * scales, np.eye(64), block_size=32)
    np.testing.assert_array_equal(rounded.dequantize(), levels * scales)
    np.testing.assert_array_equal(rounded.scales, scales[::32].T)


@pytest.mark.parametrize("rows", [6, 32, 200])
def test_int4_packs_two_neighbors_per_byte_the_first_in_the_low_half(rows):
    rounded = quantize_int4(make_matrix(rows), np.eye(rows), block_size=32)
    assert rounded.packed.shape == (7, -(-rows // 32), 16)
    assert rounded.packed.dtype == np.uint8
    expected = np.empty((rows, 7), np.float32)
    for row in range(rows):
        for column in range(7):
            block, place = divmod(row, 32)
            byte = int(rounded.packed[column, block, place // 2])
            level = (byte >> 4 if place % 2 else byte & 15) - 8
            expected[row, column] = level * rounded.scales[column, block]
    np.testing.assert_array_equal(rounded.dequantize(), expected)


def test_int4_with_the_identity_has_a_smaller_error_than_plain_rounding_to_15_levels():
    matrix = make_matrix(256)
    rounded = quantize_int4(matrix, np.eye(256))
    blocks = matrix.reshape(2, 128, 7)
    scales = np.abs(blocks).max(axis=1, keepdims=True) / 7
    plain = (np.rint(blocks / scales) * scales).reshape(256, 7)
    assert ((rounded.dequantize() - matrix) ** 2).sum() < ((plain - matrix) ** 2).sum()
    largest = np.abs(blocks).max(axis=1).max()
    assert np.abs(rounded.dequantize() - matrix).max() < 0.25 * largest


def test_the_covariance_of_the_states_makes_the_error_of_a_product_3_times_smaller():
    matrix, states = make_matrix(), make_states()
    covariance = states.T @ states / len(states)
    errors = [
        np.linalg.norm(states @ (quantize_int4(matrix, given).dequantize() - matrix))
        for given in (np.eye(200), covariance)
    ]
    assert errors[1] < errors[0] / 3


def test_units_that_are_always_zero_are_rounded_as_with_the_identity():
    matrix = make_matrix()
    expected = quantize_int4(matrix, np.eye(200)).dequantize()
    for covariance in (np.zeros((200, 200)), np.diag([1.0] + [0.0] * 199)):
        np.testing.assert_array_equal(quantize_int4(matrix, covariance).dequantize(), expected)


def test_numbers_too_small_for_a_scale_become_zeros():
    matrix = np.full((40, 2), 1e-39, np.float32)
    matrix[:, 1] = 0
    assert (quantize_int4(matrix, np.eye(40), block_size=16).dequantize() == 0).all()


def test_a_column_is_quantized_the_same_alone_and_beside_others():
    matrix, covariance = make_matrix(), np.cov(make_states().T)
    some = slice(2, 5)
    for quantize in (quantize_int8, lambda m: quantize_int4(m, covariance), lambda m: m):
        whole, part = quantize(matrix), quantize(np.ascontiguousarray(matrix[:, some]))
        cut = columns(whole, some)
        if isinstance(cut, np.ndarray):
            np.testing.assert_array_equal(cut, part)
        else:
            np.testing.assert_allclose(cut.dequantize(), part.dequantize(), atol=1e-6)


def test_a_state_is_clipped_and_restored_within_half_a_level():
    state = np.float32([[-1, -0.5, 0, 0.3, 1, 7, -7]])
    levels = quantize_state(state)
    np.testing.assert_array_equal(levels, [[1, 64, 128, 166, 255, 255, 1]])
    assert np.abs(dequantize_state(levels) - state.clip(-1, 1)).max() <= 0.5 / 127
