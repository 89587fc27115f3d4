"""Constants, nodes and products of ONNX graphs, run by ONNX Runtime."""

import numpy as np
import pytest

from tests.builders import assert_close, run_block
from textgen.engines.onnx.blocks import FLOAT, Block, Constants, affine, info
from textgen.engines.quantization import (
    dequantize_state,
    quantize_int4,
    quantize_int8,
    quantize_state,
)


@pytest.fixture
def block():
    return Block(Constants())


def make_arrays(rows=48, width=7, seed=0):
    random = np.random.default_rng(seed)
    matrix = random.standard_normal((rows, width)).astype(np.float32)
    # Not near the middle between two 8-bit levels, which CPUs may round differently.
    x = random.integers(-127, 128, (3, rows)) + random.uniform(-0.4, 0.4, (3, rows))
    x = (x / 127).astype(np.float32)
    return matrix, x, random.standard_normal(width).astype(np.float32)


def product(block, matrix, x, bias):
    name = affine(block.constants, matrix, "" if bias is None else block.constants.add(bias))
    (result,) = run_block(block, {"x": x}, [name(block, "x")])
    return result


def test_names_are_unique(block):
    names = [*block.constants.names(3), block.constants.add(1.0), *block.constants.names(2)]
    assert len(set(names)) == 6


def test_a_constant_keeps_its_value_and_dtype(block):
    matrix = np.arange(6, dtype=np.int8).reshape(2, 3).T
    name = block.op("Identity", block.constants.add(matrix))
    other = block.op("Identity", block.constants.add([1, 2], np.int64))
    result, numbers = run_block(block, {}, [name, other])
    np.testing.assert_array_equal(result, matrix)
    assert (result.dtype, numbers.dtype) == (np.int8, np.int64)


def test_split_cuts_the_last_axis(block):
    x = np.arange(12, dtype=np.float32).reshape(2, 6)
    parts = run_block(block, {"x": x}, block.split("x", [1, 2, 3]))
    for part, expected in zip(parts, np.split(x, [1, 3], axis=1), strict=True):
        np.testing.assert_array_equal(part, expected)


def test_a_single_part_needs_no_node(block):
    assert block.split("x", [6]) == ["x"]
    assert not block.nodes


@pytest.mark.parametrize("biased", [False, True])
def test_a_float32_product_equals_numpy(block, biased):
    matrix, x, bias = make_arrays()
    expected = x @ matrix + (bias if biased else 0)
    assert_close(product(block, matrix, x, bias if biased else None), expected)


@pytest.mark.parametrize("biased", [False, True])
def test_an_int8_product_equals_that_of_dequantized_matrix_and_states(block, biased):
    matrix, x, bias = make_arrays()
    quantized = quantize_int8(matrix)
    expected = dequantize_state(quantize_state(x)) @ quantized.dequantize()
    expected = expected + (bias if biased else 0)
    assert_close(product(block, quantized, x, bias if biased else None), expected)


@pytest.mark.parametrize("biased", [False, True])
def test_an_int4_product_equals_that_of_the_dequantized_matrix_up_to_the_8_bits_of_states(
    block, biased
):
    matrix, x, bias = make_arrays(rows=200)
    quantized = quantize_int4(matrix, np.eye(200))
    expected = x @ quantized.dequantize() + (bias if biased else 0)
    actual = product(block, quantized, x, bias if biased else None)
    # Each of 200 values has a random error of at most half of a 127th of the largest.
    assert np.abs(actual - expected).max() < 4 * np.sqrt(200 / 12) / 127 * matrix.std()


def test_a_description_has_name_type_and_sizes():
    described = info("state", FLOAT, 2, "batch", 5)
    sizes = described.type.tensor_type.shape.dim
    assert (described.name, described.type.tensor_type.elem_type) == ("state", FLOAT)
    assert [size.dim_param or size.dim_value for size in sizes] == [2, "batch", 5]
