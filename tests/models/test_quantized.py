"""Quantized matrices and weights: accepted arrays, dequantization, and columns."""

import numpy as np
import pytest

from textgen.errors import RunError
from textgen.models.quantized import Int4Matrix, Int8Matrix, QuantizationLoss, QuantizedWeights


def int8_matrix(rows=3, columns=2):
    values = np.arange(rows * columns, dtype=np.int8).reshape(rows, columns)
    return Int8Matrix(values=values, scales=np.arange(1, columns + 1, dtype=np.float32))


def int4_matrix(rows=6, columns=2):
    packed = np.arange(columns * 16, dtype=np.uint8).reshape(columns, 2, 8)[:, : -(-rows // 16)]
    return Int4Matrix(rows=rows, packed=packed, scales=np.ones(packed.shape[:2], np.float32))


def test_an_int8_matrix_is_its_values_times_the_scales_of_their_columns():
    matrix = int8_matrix()
    np.testing.assert_array_equal(matrix.dequantize(), [[0, 2], [2, 6], [4, 10]])
    assert matrix.shape == (3, 2)


def test_an_int4_matrix_is_its_levels_minus_8_low_half_first():
    packed = np.array([[[0x18, 0xF0] + [0x88] * 6]], np.uint8)
    matrix = Int4Matrix(rows=5, packed=packed, scales=np.float32([[0.5]]))
    np.testing.assert_array_equal(matrix.dequantize()[:, 0], [0, -3.5, -4, 3.5, 0])
    assert matrix.shape == (5, 1)
    assert matrix.block_size == 16


@pytest.mark.parametrize("matrix", [int8_matrix(3, 5), int4_matrix(20, 5)], ids=["int8", "int4"])
def test_columns_are_those_of_the_whole_matrix(matrix):
    part = matrix.columns(slice(1, 4))
    assert type(part) is type(matrix)
    np.testing.assert_array_equal(part.dequantize(), matrix.dequantize()[:, 1:4])


@pytest.mark.parametrize(
    ("values", "scales", "message"),
    [
        (np.zeros((3, 2), np.int16), np.ones(2, np.float32), "`values` .*int8"),
        (np.zeros(3, np.int8), np.ones(2, np.float32), "`values` .*any, any"),
        (np.zeros((0, 2), np.int8), np.ones(2, np.float32), "`values`"),
        (np.zeros((3, 2), np.int8), np.ones(3, np.float32), r"`scales` .*\[2\]"),
        (np.zeros((3, 2), np.int8), np.ones(2), "`scales` .*float32"),
        (np.zeros((3, 2), np.int8), np.float32([1, np.nan]), "must be finite"),
    ],
)
def test_an_int8_matrix_of_other_arrays_is_refused(values, scales, message):
    with pytest.raises(RunError, match=message):
        Int8Matrix(values=values, scales=scales)


@pytest.mark.parametrize(
    ("rows", "packed", "scales", "message"),
    [
        (6, (2, 1, 8), (2, 2), r"`scales` .*\[2, 1\]"),
        (17, (2, 1, 8), (2, 1), r"`packed` .*\[any, 2, any\]"),
        (0, (2, 1, 8), (2, 1), "`packed`"),
        (6, (2, 8), (2, 1), "`packed`"),
        (6, (2, 1, 0), (2, 1), "`packed`"),
    ],
)
def test_an_int4_matrix_of_other_shapes_is_refused(rows, packed, scales, message):
    with pytest.raises(RunError, match=message):
        Int4Matrix(rows=rows, packed=np.zeros(packed, np.uint8), scales=np.ones(scales, np.float32))


@pytest.mark.parametrize(
    ("weights_format", "products"),
    [
        ("int8", ()),
        ("int8", (int4_matrix(),)),
        ("int4", (int4_matrix(), int8_matrix())),
        ("int8", (int8_matrix(3), int8_matrix(4))),
    ],
)
def test_products_must_have_one_format_and_the_same_number_of_rows(weights_format, products):
    with pytest.raises(RunError, match=f"Weights in {weights_format} must be .*Received: "):
        QuantizedWeights(weights_format=weights_format, products=products, weights_sha256="a")


def test_the_increase_is_the_loss_after_quantization_minus_that_before():
    assert QuantizationLoss(float32=1.5, quantized=1.75).increase == 0.25
