"""The two graphs of a model: inputs, outputs, and the number of nodes in the loop."""

import onnx
import pytest

from textgen.engines.onnx.graph import generation_graph, prediction_graph
from textgen.engines.onnx.graph_weights import prepare_weights
from textgen.engines.onnx.sampling import LoopGraphInputs

BASE_INPUTS = ["token_ids", "state", "bias", "uniforms"]


def load(content):
    model = onnx.load_from_string(content)
    onnx.checker.check_model(model)
    return model.graph


def sizes(value):
    return [size.dim_param or size.dim_value for size in value.type.tensor_type.shape.dim]


def loop_nodes(graph):
    (scan,) = (node for node in graph.node if node.op_type == "Scan")
    return next(a.g for a in scan.attribute if a.name == "body").node


@pytest.mark.parametrize(
    ("predictions", "shape"), [("all", ["time", "batch", 9]), ("last", ["batch", 9])]
)
def test_a_prediction_graph_has_the_documented_inputs_and_outputs(
    random_weights, predictions, shape
):
    weights = prepare_weights(random_weights(num_layers=2, cell="lstm"))
    graph = load(prediction_graph(weights, predictions))
    assert {value.name: sizes(value) for value in graph.input} == {
        "token_ids": ["time", "batch"],
        "state": [2, "batch", 12],
    }
    assert {value.name: sizes(value) for value in graph.output} == {
        "logits": shape,
        "next_state": [2, "batch", 12],
    }


@pytest.mark.parametrize(
    ("graph_inputs", "more"),
    [
        ({"greedy": True}, []),
        ({}, ["temperature"]),
        ({"top_k": True}, ["temperature", "top_k"]),
        ({"top_p": True}, ["temperature", "top_p", "min_share"]),
        ({"top_k": True, "top_p": True}, ["temperature", "top_k", "top_p"]),
        ({"min_p": True}, ["temperature", "log_min_p"]),
    ],
    ids=str,
)
def test_a_generation_graph_has_only_the_inputs_that_it_uses(random_weights, graph_inputs, more):
    weights = prepare_weights(random_weights())
    graph = load(generation_graph(weights, LoopGraphInputs(**graph_inputs)))
    assert [value.name for value in graph.input] == BASE_INPUTS + more
    assert {value.name: sizes(value) for value in graph.output} == {
        "drawn": ["steps", "batch"],
        "next_state": [1, "batch", 6],
    }


def test_a_plain_layer_has_one_product_per_token_and_other_layers_two(random_weights):
    for more, expected in (({}, 3), ({"residual": True}, 6), ({"output_gate": True}, 6)):
        weights = prepare_weights(random_weights(num_layers=3, **more))
        nodes = loop_nodes(load(generation_graph(weights, LoopGraphInputs(greedy=True))))
        assert sum(node.op_type == "MatMul" for node in nodes) == expected


def test_equal_weights_give_equal_graphs(random_weights):
    first, second = (prepare_weights(random_weights(num_layers=2)) for _ in range(2))
    assert prediction_graph(first, "all") == prediction_graph(second, "all")
    assert prediction_graph(first, "all") != prediction_graph(first, "last")
