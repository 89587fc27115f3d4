"""A model as ONNX graphs: one that predicts, one that generates.

This module knows how layers and the loop are connected. `graph_weights` has the arrays, `cells`
the step of a layer, `sampling` the draw. It does NOT know sessions, threads, or text.

The generation graph contains the whole loop, sampling included, as one `Scan`. In a plain model a
layer takes one product per token, see `graph_weights`: its right part is the next layer's input
for this token, and its left part is carried to the next token. If an output gate, a residual sum
or a norm is between a layer's `h` and the input of the next layer, there are two products.

A node takes 0.3 µs, which at 256 units adds up to half of the time of a token: the number of nodes
matters more than their kind.
"""

from collections.abc import Callable, Iterable, Sequence
from itertools import chain
from typing import Literal, Protocol, TypeVar

import numpy as np
from onnx import GraphProto, ValueInfoProto, helper

from textgen.engines.onnx.blocks import (
    DOUBLE,
    FLOAT,
    INT32,
    INT64,
    MICROSOFT,
    Affine,
    Block,
    Constants,
    affine,
    info,
)
from textgen.engines.onnx.cells import input_matrix, layer_step, part_widths, state_widths
from textgen.engines.onnx.graph_weights import GraphWeights
from textgen.engines.onnx.sampling import LoopGraphInputs, draw_token
from textgen.engines.quantization import columns
from textgen.models.weights import NORM_EPSILON, LayerWeights

_OPSET, _IR_VERSION = 21, 10

Predictions = Literal["all", "last"]
T = TypeVar("T")


def prediction_graph(weights: GraphWeights, predictions: Predictions) -> bytes:
    """Return the graph that reads tokens and predicts the next, layer by layer.

    Args:
        weights: The model.
        predictions: `"all"`: after every token; `"last"`: only after the last.

    Returns:
        A serialized model. Inputs: `token_ids` int64 `[time, batch]`, `state` float32
        `[num_layers, batch, state_size]`. Outputs: `logits` float32 `[time, batch,
        vocab_size]` or `[batch, vocab_size]`, and `next_state`.
    """
    graph = Block(Constants())
    states = _unstack(graph, weights)
    inputs = _join(graph, _first_inputs(graph.constants, weights)(graph, "token_ids"))
    next_states: list[list[str]] = []
    x = ""
    for index, state in enumerate(states):
        next_state, outputs = _scan_layer(graph, weights, index, state, inputs)
        next_states.append(next_state)
        x = _next_input(graph, weights, index, outputs, x)
        if predictions == "last" and len(next_states) == len(states):
            x = _last_step(graph, weights, next_state, x)
        inputs = _project_output(graph, weights, index, _next_bias(graph, weights, index))(graph, x)
    graph.op("Identity", inputs, names=["logits"])
    _stack(graph, next_states)
    time = ["time"] if predictions == "all" else []
    return _serialize(
        graph,
        [info("token_ids", INT64, "time", "batch"), _state_info("state", weights)],
        [
            info("logits", FLOAT, *time, "batch", weights.model.vocab_size),
            _state_info("next_state", weights),
        ],
    )


def generation_graph(weights: GraphWeights, graph_inputs: LoopGraphInputs) -> bytes:
    """Return the graph that reads one token per row and draws the next, in a loop.

    Args:
        weights: The model.
        graph_inputs: The optional inputs of the graph.

    Returns:
        A serialized model. Inputs: `token_ids` int64 `[batch]`, `state` float32
        `[num_layers, batch, state_size]`, `bias` float32 `[vocab_size]`, `uniforms` float64
        `[steps, batch, 1]`, `temperature` float32 `[]`, `top_k` int64 `[1]`, `top_p`,
        `min_share` (no token that top-p keeps has a smaller share of the mass) and `log_min_p`
        float64 `[]`. A greedy graph uses only the number of `uniforms`. Outputs: `drawn` int32
        `[steps, batch]`, `next_state`.
    """
    graph = Block(Constants())
    step = _Step(graph, weights, graph_inputs)
    states = _unstack(graph, weights)
    carried = _flat(
        projection.of_state(graph, state[0])
        for projection, state in zip(step.projections, states, strict=True)
    )
    finals = graph.constants.names(1 + len(_flat(states)) + len(carried))
    graph.op(
        "Scan",
        "token_ids",
        *_flat(states),
        *carried,
        "uniforms",
        names=[*finals, "drawn"],
        body=step.body(),
        num_scan_inputs=1,
    )
    rest = iter(finals[1:])
    _stack(graph, [[next(rest) for _ in state] for state in states])
    return _serialize(
        graph,
        _generation_inputs(weights, graph_inputs),
        [info("drawn", INT32, "steps", "batch"), _state_info("next_state", weights)],
    )


class Projection(Protocol):
    """The matrix products after a layer: of its state, and of its output."""

    def of_state(self, block: Block, h: str) -> list[str]:
        """Append the recurrent product of `h`, `[batch, hidden_size]`; return its parts' names."""

    def of_both(self, block: Block, h: str, x: str) -> tuple[list[str], list[str]]:
        """Append the recurrent product of `h`, and the next layer's input product of `x`.

        Args:
            block: The nodes are appended to it.
            h: Name of the state, `[batch, hidden_size]`.
            x: Name of the layer's output, `[batch, hidden_size]`.

        Returns:
            Names of the parts of both products; after the last layer the second is that of Dense.
        """


class _FusedProjection:
    """One product for both: in a plain model `x` is `h`."""

    def __init__(self, graph: Block, weights: GraphWeights, index: int) -> None:
        self._own, self._next = weights.widths(index), weights.widths(index + 1)
        own = graph.constants.add(weights.biases[index][weights.own_columns(index)])
        bias = _join(graph, [own, _generation_bias(graph, weights, index)])
        self._product = affine(graph.constants, weights.products[index], bias)

    def of_state(self, block: Block, h: str) -> list[str]:
        return self.of_both(block, h, h)[0]

    def of_both(self, block: Block, h: str, x: str) -> tuple[list[str], list[str]]:
        del x  # It is h.
        parts = block.split(self._product(block, h), [*self._own, *self._next])
        return parts[: len(self._own)], parts[len(self._own) :]


class _SeparateProjection:
    """Two products, for a model in which `x` is not `h`."""

    def __init__(self, graph: Block, weights: GraphWeights, index: int) -> None:
        self._own, self._next = weights.widths(index), weights.widths(index + 1)
        self._state = _project_state(graph, weights, index)
        bias = _generation_bias(graph, weights, index)
        self._output = _project_output(graph, weights, index, bias)

    def of_state(self, block: Block, h: str) -> list[str]:
        return block.split(self._state(block, h), self._own)

    def of_both(self, block: Block, h: str, x: str) -> tuple[list[str], list[str]]:
        next_inputs = block.split(self._output(block, x), self._next)
        return self.of_state(block, h), next_inputs


class _Step:
    """One step of the generation graph: read a token, draw the next."""

    def __init__(self, graph: Block, weights: GraphWeights, graph_inputs: LoopGraphInputs) -> None:
        self._constants, self._weights = graph.constants, weights
        self._graph_inputs = graph_inputs
        self._first = _first_inputs(graph.constants, weights)
        kind = _FusedProjection if weights.model.is_plain else _SeparateProjection
        layers = range(weights.model.num_layers)
        self.projections: list[Projection] = [kind(graph, weights, index) for index in layers]

    def body(self) -> GraphProto:
        """Return the body of the loop.

        Inputs: token, states, carried parts of products, uniform. Outputs: the same without the
        uniform, for the next step, and the drawn token.
        """
        weights, layers = self._weights, self._weights.model.layers
        token, uniform = self._constants.names(2)
        states = [self._constants.names(len(state_widths(layer))) for layer in layers]
        carried = [self._constants.names(len(part_widths(layer))) for layer in layers]
        block = Block(self._constants)
        inputs, x = self._first(block, token), ""
        next_states, next_carried = [], []
        for index, layer in enumerate(layers):
            output, state = layer_step(block, layer, inputs, carried[index], states[index])
            x = _next_input(block, weights, index, output, x)
            recurrent, inputs = self.projections[index].of_both(block, state[0], x)
            next_states.append(state)
            next_carried.append(recurrent)
        next_token = draw_token(block, inputs[0], uniform, self._graph_inputs)
        drawn = block.op("Cast", next_token, to=INT32)
        body_inputs = [*self._infos(token, states, carried), info(uniform, DOUBLE, "batch", 1)]
        outputs = self._infos(next_token, next_states, next_carried)
        outputs.append(info(drawn, INT32, "batch"))
        return helper.make_graph(block.nodes, "step", body_inputs, outputs)

    def _infos(
        self, token: str, states: Sequence[list[str]], carried: Sequence[list[str]]
    ) -> list[ValueInfoProto]:
        layers = self._weights.model.layers
        widths = _flat([*map(state_widths, layers), *map(part_widths, layers)])
        values = zip(_flat([*states, *carried]), widths, strict=True)
        return [
            info(token, INT64, "batch"),
            *(info(name, FLOAT, "batch", width) for name, width in values),
        ]


def _first_inputs(constants: Constants, weights: GraphWeights) -> Callable[[Block, str], list[str]]:
    """Return a function that appends the first layer's input product of token ids, in parts."""
    widths = weights.widths(0)
    if weights.table is None:
        embedding = constants.add(weights.embedding)
        kernel, bias = input_matrix(weights.model.layers[0])
        project = affine(constants, kernel, constants.add(bias))
        return lambda block, ids: block.split(
            project(block, block.op("Gather", embedding, ids)), widths
        )
    # One table per part is faster than a table whose rows are split.
    tables = np.split(weights.table, np.cumsum(widths)[:-1], axis=1)
    names = [constants.add(table) for table in tables]
    return lambda block, ids: [block.op("Gather", name, ids) for name in names]


def _generation_bias(graph: Block, weights: GraphWeights, index: int) -> str:
    """Return the bias of the next layer's input product; the input `bias` is added to Dense's."""
    bias = _next_bias(graph, weights, index)
    is_last = index + 1 == weights.model.num_layers
    return graph.op("Add", bias, "bias") if is_last else bias


def _next_bias(graph: Block, weights: GraphWeights, index: int) -> str:
    return graph.constants.add(weights.biases[index][weights.next_columns(index)])


def _project_output(graph: Block, weights: GraphWeights, index: int, bias: str) -> Affine:
    """Return the product of a layer's output, for the next layer or for Dense."""
    matrix = columns(weights.products[index], weights.next_columns(index))
    product, norm = affine(graph.constants, matrix, bias), weights.next_norm(index)
    if norm is None:
        return product
    scale, offset = graph.constants.add(norm.scale), graph.constants.add(norm.offset)
    return lambda block, x: product(
        block, block.op("LayerNormalization", x, scale, offset, axis=-1, epsilon=NORM_EPSILON)
    )


def _project_state(graph: Block, weights: GraphWeights, index: int) -> Affine:
    """Return the product of a layer's own state; a bias of zeros is left out, to save a node."""
    own = weights.own_columns(index)
    bias = weights.biases[index][own]
    matrix = columns(weights.products[index], own)
    return affine(graph.constants, matrix, graph.constants.add(bias) if bias.any() else "")


def _scan_layer(
    graph: Block, weights: GraphWeights, index: int, state: list[str], inputs: str
) -> tuple[list[str], str]:
    """Return a layer's last state, and its output after each token."""
    constants, layer = graph.constants, weights.model.layers[index]
    recurrent = _project_state(graph, weights, index)
    body, widths = Block(constants), part_widths(layer)
    before, last = constants.names(len(state)), constants.names(len(state))
    step_inputs, outputs = constants.names(2)
    parts = body.split(step_inputs, widths)
    own = body.split(recurrent(body, before[0]), widths)
    output, after = layer_step(body, layer, parts, own, before)
    # The outputs of a body must have different names.
    output = body.op("Identity", output) if output in after else output
    body_inputs = [*_state_parts(layer, before), info(step_inputs, FLOAT, "batch", sum(widths))]
    body_outputs = [*_state_parts(layer, after), info(output, FLOAT, "batch", layer.hidden_size)]
    step = helper.make_graph(body.nodes, "layer", body_inputs, body_outputs)
    graph.op("Scan", *state, inputs, names=[*last, outputs], body=step, num_scan_inputs=1)
    return last, outputs


def _state_parts(layer: LayerWeights, names: Sequence[str]) -> list[ValueInfoProto]:
    widths = zip(names, state_widths(layer), strict=True)
    return [info(name, FLOAT, "batch", width) for name, width in widths]


def _next_input(block: Block, weights: GraphWeights, index: int, output: str, x: str) -> str:
    """Return the input of the next layer or of Dense, given a layer's output and input `x`."""
    return block.op("Add", output, x) if index and weights.model.residual else output


def _last_step(graph: Block, weights: GraphWeights, state: list[str], x: str) -> str:
    """Return the last step of `x`; in a plain model that is the last `h`, and needs no node."""
    if weights.model.is_plain:
        return state[0]
    return graph.op("Gather", x, graph.constants.add(-1), axis=0)


def _join(graph: Block, parts: Sequence[str]) -> str:
    return graph.op("Concat", *parts, axis=-1)


def _unstack(graph: Block, weights: GraphWeights) -> list[list[str]]:
    """Return the parts of each layer's state."""
    return [
        graph.split(graph.op("Gather", "state", graph.constants.add(index)), state_widths(layer))
        for index, layer in enumerate(weights.model.layers)
    ]


def _stack(graph: Block, states: Sequence[list[str]]) -> None:
    """Append the output `next_state`, made of the parts of each layer's state."""
    axis = graph.constants.add([0])
    joined = [state[0] if len(state) == 1 else _join(graph, state) for state in states]
    rows = [graph.op("Unsqueeze", state, axis) for state in joined]
    graph.op("Concat", *rows, names=["next_state"], axis=0)


def _flat(parts: Iterable[list[T]]) -> list[T]:
    return list(chain.from_iterable(parts))


def _generation_inputs(
    weights: GraphWeights, graph_inputs: LoopGraphInputs
) -> list[ValueInfoProto]:
    by_k, by_p = graph_inputs.top_k, graph_inputs.top_p
    return [
        info("token_ids", INT64, "batch"),
        _state_info("state", weights),
        info("bias", FLOAT, weights.model.vocab_size),
        info("uniforms", DOUBLE, "steps", "batch", 1),
        *([] if graph_inputs.greedy else [info("temperature", FLOAT)]),
        *([info("top_k", INT64, 1)] if by_k else []),
        *([info("top_p", DOUBLE)] if by_p else []),
        *([info("min_share", DOUBLE)] if by_p and not by_k else []),
        *([info("log_min_p", DOUBLE)] if graph_inputs.min_p else []),
    ]


def _state_info(name: str, weights: GraphWeights) -> ValueInfoProto:
    return info(name, FLOAT, weights.model.num_layers, "batch", weights.model.state_size)


def _serialize(
    graph: Block, inputs: Sequence[ValueInfoProto], outputs: Sequence[ValueInfoProto]
) -> bytes:
    proto = helper.make_graph(graph.nodes, "textgen", inputs, outputs, graph.constants.tensors)
    opsets = [helper.make_opsetid("", _OPSET), helper.make_opsetid(MICROSOFT, 1)]
    model = helper.make_model(proto, opset_imports=opsets, ir_version=_IR_VERSION)
    return bytes(model.SerializeToString())
