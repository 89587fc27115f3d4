"""The arrays of the ONNX graphs: concatenated products, biases, and the table."""

import numpy as np
import pytest

from tests.builders import assert_close, make_quantized
from textgen.engines import common
from textgen.engines.onnx.graph_weights import layer_products, prepare_weights
from textgen.errors import RunError


def test_a_product_is_the_layers_recurrent_kernel_beside_the_next_input_kernel(random_weights):
    weights = random_weights(num_layers=2, cell="lstm")
    first, last = layer_products(weights)
    np.testing.assert_array_equal(first[:, :24], weights.layers[0].recurrent_kernel)
    np.testing.assert_array_equal(first[:, 24:], weights.layers[1].input_kernel)
    np.testing.assert_array_equal(last[:, :24], weights.layers[1].recurrent_kernel)
    np.testing.assert_array_equal(last[:, 24:], weights.dense_kernel)


def test_the_columns_of_a_product_are_divided_between_a_layer_and_the_next(random_weights, parts):
    weights = random_weights(**parts)
    prepared = prepare_weights(weights)
    for index in range(weights.num_layers):
        product, bias = prepared.products[index], prepared.biases[index]
        own, following = prepared.own_columns(index), prepared.next_columns(index)
        assert product[:, own].shape[1] == sum(prepared.widths(index))
        assert product[:, following].shape[1] == sum(prepared.widths(index + 1))
        assert len(bias) == product.shape[1]
        norm = weights.layers[index + 1].norm if index + 1 < weights.num_layers else None
        assert prepared.next_norm(index) is norm


def test_the_table_has_the_first_input_product_of_every_token(random_weights, monkeypatch):
    weights = random_weights()
    layer = weights.layers[0]
    expected = weights.embedding @ layer.input_kernel + layer.bias[0]
    assert_close(prepare_weights(weights).table, expected)
    monkeypatch.setattr(common, "MAX_TABLE_FLOPS", 0)
    assert prepare_weights(weights).table is None


@pytest.mark.parametrize("weights_format", ["int8", "int4"])
def test_quantized_products_are_used_unchanged(random_weights, weights_format):
    weights = random_weights(num_layers=2)
    quantized = make_quantized(weights, weights_format)
    prepared = prepare_weights(weights, quantized)
    assert prepared.products is quantized.products
    np.testing.assert_array_equal(prepared.table, prepare_weights(weights).table)


@pytest.mark.parametrize("other", [{"num_layers": 1}, {"hidden_size": 7}, {"cell": "rnn"}], ids=str)
def test_quantized_products_of_another_shape_are_refused(random_weights, other):
    quantized = make_quantized(random_weights(**{"num_layers": 2, **other}), "int8")
    with pytest.raises(RunError, match="must have the shapes of the model's products"):
        prepare_weights(random_weights(num_layers=2), quantized)
