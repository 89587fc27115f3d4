"""The fused kernel: outputs, states and gradients equal the reference in float64, and Keras."""

from functools import partial

import numpy as np
import pytest
import tensorflow as tf

from tests.models.recurrence.oracles import (
    CELLS,
    STATES,
    make_arguments,
    make_upstream,
    outputs_and_gradients,
    reference,
    relative_error,
    stock,
)
from textgen.models.recurrence.fused import fused_recurrence

# Errors are relative to the norm over all values of all draws. In float32 they are at most 6e-7;
# 1e-5 leaves a factor of 16 for another order of summation. In bfloat16, whose unit roundoff is
# 4e-3, they are at most 7.1e-3 with oneDNN and 9.1e-3 with Eigen, which rounds partial sums.
LIMITS = [("float32", 1e-5), ("bfloat16", 1e-2)]


def fused(cell, matmul_dtype="float32"):
    dtype = tf.as_dtype(matmul_dtype)
    return tf.function(partial(fused_recurrence, cell=cell, matmul_dtype=dtype))


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("matmul_dtype, limit", LIMITS)
@pytest.mark.parametrize(
    "time, batch, features, hidden, draws",
    [(1, 1, 9, 7, 50), (1, 3, 2, 7, 50), (5, 1, 9, 7, 50), (20, 4, 33, 33, 2), (51, 17, 5, 64, 1)],
)
def test_outputs_and_gradients_equal_the_reference_in_float64(
    cell, time, batch, features, hidden, draws, matmul_dtype, limit
):
    kernel, got, want = fused(cell, matmul_dtype), [], []
    for draw in range(draws):
        values = make_arguments(cell, time, batch, features, hidden, [time, batch, draw])
        upstream = make_upstream(cell, time, batch, hidden, [time, batch, draw, 1])
        single = [tf.constant(value, tf.float32) for value in values]
        double = [tf.cast(value, tf.float64) for value in single]
        got.append(outputs_and_gradients(kernel, single, upstream))
        want.append(outputs_and_gradients(partial(reference, cell), double, upstream))
    assert got[0][0].dtype == matmul_dtype
    # Each over all draws: in a single small one, terms may nearly cancel.
    for values, truths in zip(zip(*got, strict=True), zip(*want, strict=True), strict=True):
        assert relative_error(values, truths) < limit


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("matmul_dtype, limit", LIMITS)
def test_outputs_and_gradients_equal_those_of_keras(cell, matmul_dtype, limit):
    values = [tf.constant(v, tf.float32) for v in make_arguments(cell, 30, 5, 11, 48, 0)]
    upstream = make_upstream(cell, 30, 5, 48, 1)
    got = outputs_and_gradients(fused(cell, matmul_dtype), values, upstream)
    want = outputs_and_gradients(partial(stock, cell), values, upstream)
    for value, truth in zip(got, want, strict=True):
        assert value.shape == truth.shape
        assert relative_error([value], [truth]) < limit


@pytest.mark.parametrize("cell", CELLS)
def test_a_trace_with_unknown_time_and_batch_is_valid_for_every_size(cell):
    _, _, *weights = (tf.constant(v, tf.float32) for v in make_arguments(cell, 1, 1, 5, 8, 0))
    states = STATES[cell] * 8

    @tf.function(
        input_signature=[
            tf.TensorSpec([None, 5, None]),
            tf.TensorSpec([states, None]),
            tf.TensorSpec([None, 8, None]),
            tf.TensorSpec([states, None]),
        ]
    )
    def traced(inputs, state, *upstream):
        kernel = partial(fused_recurrence, cell=cell)
        return outputs_and_gradients(kernel, [inputs, state, *weights], upstream)

    for time, batch in ((1, 1), (3, 2), (26, 3), (75, 1)):
        inputs, state, *_ = make_arguments(cell, time, batch, 5, 8, time)
        upstream = make_upstream(cell, time, batch, 8, batch)
        got = traced(*(tf.constant(v, tf.float32) for v in (inputs, state, *upstream)))
        double = [tf.cast(v, tf.float64) for v in (inputs, state, *weights)]
        want = outputs_and_gradients(partial(reference, cell), double, upstream)
        for value, truth in zip(got, want, strict=True):
            assert relative_error([value], [truth]) < 1e-5


@pytest.mark.parametrize("cell", CELLS)
def test_one_hot_columns_of_integers_equal_those_of_floats_and_have_no_gradient(cell):
    _, state, *weights = (tf.constant(v, tf.float32) for v in make_arguments(cell, 6, 4, 9, 5, 2))
    token_ids = np.random.default_rng(2).integers(0, 9, size=(6, 4))
    upstream = make_upstream(cell, 6, 4, 5, 3)
    results = []
    for dtype in (tf.int8, tf.float32):
        columns = tf.one_hot(token_ids, 9, axis=1, dtype=dtype)
        results.append(outputs_and_gradients(fused(cell), [columns, state, *weights], upstream))
    integers, floats = results
    assert integers.pop(2) is None
    assert floats.pop(2) is not None
    for value, truth in zip(integers, floats, strict=True):
        np.testing.assert_array_equal(value, truth)


@pytest.mark.parametrize("cell", CELLS)
def test_only_the_outputs_take_the_dtype_of_the_products(cell):
    arguments = [tf.constant(v, tf.float32) for v in make_arguments(cell, 3, 2, 5, 4, 0)]
    upstream = make_upstream(cell, 3, 2, 4, 1)
    outputs, last, *gradients = outputs_and_gradients(fused(cell, "bfloat16"), arguments, upstream)
    assert outputs.dtype == tf.bfloat16
    assert {value.dtype for value in (last, *gradients)} == {tf.float32}
