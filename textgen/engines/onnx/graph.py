"""A model as ONNX graphs: one that reads tokens, one that writes them.

This module knows how layers and the loop stand together; what a layer computes stands in
`onnx_cells`, how a token is drawn in `onnx_drawing`. It does NOT know sessions, threads, or text.

The writing graph holds the whole loop, sampling included, as one `Scan`. In a plain model a
layer costs it one product a token: all that a layer's state `h` is multiplied with stands side
by side,

    h @ [U | K] + [c | b]    U, c: its own recurrent kernel and bias
                             K, b: the kernel and bias of the next layer, or of the head

The right part is used for this token, the left part carried to the next. Where an output gate,
a sum or a norm makes the next layer read something else than `h`, these are two products. The
first layer's input product is a row of the table `embedding @ kernel + bias`.

A node costs 0.3 µs, so at 256 units nodes are half of a token's time: few are worth more than
cheap ones.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, Literal, Protocol

import numpy as np
from onnx import GraphProto, TensorProto, ValueInfoProto, helper

from textgen.engines.numpy_layers import normalise
from textgen.engines.onnx.blocks import (
    DOUBLE,
    FLOAT,
    INT64,
    MICROSOFT,
    Affine,
    Block,
    Constants,
    affine,
    info,
)
from textgen.engines.onnx.cells import (
    input_matrix,
    layer_step,
    part_widths,
    recurrent_matrix,
    state_widths,
)
from textgen.engines.onnx.sampling import Draw, draw_token
from textgen.engines.quantization import Array, Matrix, columns
from textgen.models.weights import NORM_EPSILON, LayerWeights, ModelWeights, NormWeights

OPSET, IR_VERSION = 21, 10

Predictions = Literal["all", "last"]


@dataclass(frozen=True, kw_only=True, eq=False)
class GraphWeights:
    """A model's arrays in the form that the graphs hold.

    Attributes:
        model: The weights as they were trained.
        embedding: float32 `[vocab_size, embedding_dim]`, normalised if the first layer does so.
        table: float32 `[vocab_size, width]`, the first layer's input product of each token;
            None: it is computed for the tokens that come.
        products: `[U | K]` of each layer, output gates included.
        biases: `[c | b]` of each layer, float32.
    """

    model: ModelWeights
    embedding: Array
    table: Array | None
    products: tuple[Matrix, ...]
    biases: tuple[Array, ...]

    def widths(self, index: int) -> list[int]:
        """Return the widths of the parts of a layer's products; past the last: the head's."""
        if index == self.model.num_layers:
            return [self.model.vocab_size]
        return part_widths(self.model.layers[index])

    def recurrent(self, index: int) -> slice:
        """Return the columns of a product that belong to the layer itself."""
        return slice(0, sum(self.widths(index)))

    def onward(self, index: int) -> slice:
        """Return the columns of a product that belong to the next layer, or to the head."""
        return slice(sum(self.widths(index)), None)

    def norm_above(self, index: int) -> NormWeights | None:
        """Return the norm through which the next layer reads, if there is one."""
        above = self.model.layers[index + 1 : index + 2]
        return above[0].norm if above else None


def prepare_weights(
    model: ModelWeights, quantize: Callable[[Array, int], Matrix], table_flops: int
) -> GraphWeights:
    """Return a model's arrays in the form that the graphs hold.

    Args:
        model: The weights.
        quantize: Gives a product's matrix, of the layer with that index, its form. The first
            layer's table stays in float32: a token reads one row of it.
        table_flops: Above this many operations the first layer gets no table.

    Returns:
        The arrays.
    """
    first, *others = model.layers
    embedding = model.embedding if first.norm is None else normalise(first.norm, model.embedding)
    kernel, bias = input_matrix(first)
    tabulate = 2 * embedding.size * len(bias) <= table_flops
    onward = [*map(input_matrix, others), (model.dense_kernel, model.dense_bias)]
    both = list(zip(map(recurrent_matrix, model.layers), onward, strict=True))
    return GraphWeights(
        model=model,
        embedding=embedding,
        table=embedding @ kernel + bias if tabulate else None,
        products=tuple(
            quantize(np.hstack([own, above]), index)
            for index, ((own, _), (above, _)) in enumerate(both)
        ),
        biases=tuple(np.concatenate([own, above]) for (_, own), (_, above) in both),
    )


def reading_graph(weights: GraphWeights, predictions: Predictions) -> bytes:
    """Return the graph that reads tokens, layer by layer.

    Args:
        weights: The model.
        predictions: `"all"`: after every token; `"last"`: after the last.

    Returns:
        A serialised model. Inputs: `token_ids` int64 `[time, batch]`, `state` float32
        `[num_layers, batch, state_size]`. Outputs: `logits` float32 `[time, batch,
        vocab_size]` or `[batch, vocab_size]`, and `next_state`.
    """
    graph = Block(Constants())
    states = _unstack(graph, weights)
    inputs = _join(graph, _first_inputs(graph.constants, weights)(graph, "token_ids"))
    next_states, x = [], ""
    for index, state in enumerate(states):
        next_state, outputs = _read_layer(graph, weights, index, state, inputs)
        next_states.append(next_state)
        x = _pass_on(graph, weights, index, outputs, x)
        if predictions == "last" and len(next_states) == len(states):
            x = _last_step(graph, weights, next_state, x)
        inputs = _onward(graph, weights, index, _onward_bias(graph, weights, index))(graph, x)
    graph.op("Identity", inputs, names=["logits"])
    _stack(graph, next_states)
    time = ["time"] if predictions == "all" else []
    return _serialise(
        graph,
        [info("token_ids", INT64, "time", "batch"), _state_info("state", weights)],
        [
            info("logits", FLOAT, *time, "batch", weights.model.vocab_size),
            _state_info("next_state", weights),
        ],
    )


def writing_graph(weights: GraphWeights, draw: Draw) -> bytes:
    """Return the graph that reads a token a row and draws the next, over and over.

    Args:
        weights: The model.
        draw: Which of the inputs below there are.

    Returns:
        A serialised model. Inputs: `token_ids` int64 `[batch]`, `state` float32
        `[num_layers, batch, state_size]`, `bias` float32 `[vocab_size]`, `uniforms` float64
        `[steps, batch, 1]`, `temperature` float32 `[]`, `top_k` int64 `[1]`, `top_p`,
        `least_share` (of the mass, which no token that top-p keeps falls below) and
        `log_min_p` float64 `[]`. A greedy graph takes `uniforms` for their number alone.
        Outputs: `written` int32 `[steps, batch]`, `next_state`.
    """
    graph = Block(Constants())
    step = _Step(graph, weights, draw)
    states = _unstack(graph, weights)
    carried = _flat(
        products.recurrent(graph, state[0])
        for products, state in zip(step.products, states, strict=True)
    )
    finals = graph.constants.names(1 + len(_flat(states)) + len(carried))
    graph.op(
        "Scan",
        "token_ids",
        *_flat(states),
        *carried,
        "uniforms",
        names=[*finals, "written"],
        body=step.body(),
        num_scan_inputs=1,
    )
    rest = iter(finals[1:])
    _stack(graph, [[next(rest) for _ in state] for state in states])
    return _serialise(
        graph,
        _writing_inputs(weights, draw),
        [info("written", TensorProto.INT32, "steps", "batch"), _state_info("next_state", weights)],
    )


class _Products(Protocol):
    """The products of a layer's state and of what the layer passes on."""

    def recurrent(self, block: Block, h: str) -> list[str]:
        """Return the parts of the recurrent product of `h`."""

    def both(self, block: Block, h: str, x: str) -> tuple[list[str], list[str]]:
        """Return those, and the parts of the product of `x` for the next layer or the head."""


class _FusedProducts:
    """One product for both, in a plain model, where `x` is `h`."""

    def __init__(self, graph: Block, weights: GraphWeights, index: int) -> None:
        self._own, self._next = weights.widths(index), weights.widths(index + 1)
        own = graph.constants.add(weights.biases[index][weights.recurrent(index)])
        bias = _join(graph, [own, _writing_bias(graph, weights, index)])
        self._product = affine(graph.constants, weights.products[index], bias)

    def recurrent(self, block: Block, h: str) -> list[str]:
        return self.both(block, h, h)[0]

    def both(self, block: Block, h: str, x: str) -> tuple[list[str], list[str]]:
        del x  # It is h.
        parts = block.split(self._product(block, h), [*self._own, *self._next])
        return parts[: len(self._own)], parts[len(self._own) :]


class _SeparateProducts:
    """Two products, where `x` is not `h`."""

    def __init__(self, graph: Block, weights: GraphWeights, index: int) -> None:
        self._own, self._next = weights.widths(index), weights.widths(index + 1)
        self._recurrent = _recurrent(graph, weights, index)
        self._onward = _onward(graph, weights, index, _writing_bias(graph, weights, index))

    def recurrent(self, block: Block, h: str) -> list[str]:
        return block.split(self._recurrent(block, h), self._own)

    def both(self, block: Block, h: str, x: str) -> tuple[list[str], list[str]]:
        onward = block.split(self._onward(block, x), self._next)
        return self.recurrent(block, h), onward


class _Step:
    """One token of the writing graph: read it, draw the next."""

    def __init__(self, graph: Block, weights: GraphWeights, draw: Draw) -> None:
        self._constants, self._weights, self._draw = graph.constants, weights, draw
        self._first = _first_inputs(graph.constants, weights)
        kind = _FusedProducts if weights.model.is_plain else _SeparateProducts
        layers = range(weights.model.num_layers)
        self.products: list[_Products] = [kind(graph, weights, index) for index in layers]

    def body(self) -> GraphProto:
        """Return the loop's body: token, states and carried parts in and out, a uniform in."""
        weights, layers = self._weights, self._weights.model.layers
        token, uniform = self._constants.names(2)
        states = [self._constants.names(len(state_widths(layer))) for layer in layers]
        carried = [self._constants.names(len(part_widths(layer))) for layer in layers]
        block = Block(self._constants)
        onward, x = self._first(block, token), ""
        next_states, next_carried = [], []
        for index, layer in enumerate(layers):
            passed, state = layer_step(block, layer, onward, carried[index], states[index])
            x = _pass_on(block, weights, index, passed, x)
            recurrent, onward = self.products[index].both(block, state[0], x)
            next_states.append(state)
            next_carried.append(recurrent)
        next_token = draw_token(block, onward[0], uniform, self._draw)
        written = block.op("Cast", next_token, to=TensorProto.INT32)
        inputs = [*self._infos(token, states, carried), info(uniform, DOUBLE, "batch", 1)]
        outputs = self._infos(next_token, next_states, next_carried)
        outputs.append(info(written, TensorProto.INT32, "batch"))
        return helper.make_graph(block.nodes, "step", inputs, outputs)

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
    """Return what turns token ids into the first layer's input product, in its parts."""
    widths = weights.widths(0)
    if weights.table is None:
        embedding = constants.add(weights.embedding)
        kernel, bias = input_matrix(weights.model.layers[0])
        project = affine(constants, kernel, constants.add(bias))
        return lambda block, ids: block.split(
            project(block, block.op("Gather", embedding, ids)), widths
        )
    # Two tables cost less than one whose rows are cut in two.
    tables = np.split(weights.table, np.cumsum(widths)[:-1], axis=1)
    names = [constants.add(table) for table in tables]
    return lambda block, ids: [block.op("Gather", name, ids) for name in names]


def _writing_bias(graph: Block, weights: GraphWeights, index: int) -> str:
    """Return the bias of a layer's onward product; the input `bias` is added to the head's."""
    bias = _onward_bias(graph, weights, index)
    is_head = index + 1 == weights.model.num_layers
    return graph.op("Add", bias, "bias") if is_head else bias


def _onward_bias(graph: Block, weights: GraphWeights, index: int) -> str:
    return graph.constants.add(weights.biases[index][weights.onward(index)])


def _onward(graph: Block, weights: GraphWeights, index: int, bias: str) -> Affine:
    """Return the product of what a layer passes on, for the next layer or for the head."""
    matrix = columns(weights.products[index], weights.onward(index))
    product, norm = affine(graph.constants, matrix, bias), weights.norm_above(index)
    if norm is None:
        return product
    scale, offset = graph.constants.add(norm.scale), graph.constants.add(norm.offset)
    return lambda block, x: product(
        block, block.op("LayerNormalization", x, scale, offset, axis=-1, epsilon=NORM_EPSILON)
    )


def _recurrent(graph: Block, weights: GraphWeights, index: int) -> Affine:
    """Return the product of a layer's own state; a bias of zeros would cost a node."""
    own = weights.recurrent(index)
    bias = weights.biases[index][own]
    matrix = columns(weights.products[index], own)
    return affine(graph.constants, matrix, graph.constants.add(bias) if bias.any() else "")


def _read_layer(
    graph: Block, weights: GraphWeights, index: int, state: list[str], inputs: str
) -> tuple[list[str], str]:
    """Return a layer's last state, and what it passes on after each token."""
    constants, layer = graph.constants, weights.model.layers[index]
    recurrent = _recurrent(graph, weights, index)
    body, widths = Block(constants), part_widths(layer)
    before, last = constants.names(len(state)), constants.names(len(state))
    step_inputs, outputs = constants.names(2)
    parts = body.split(step_inputs, widths)
    own = body.split(recurrent(body, before[0]), widths)
    output, after = layer_step(body, layer, parts, own, before)
    # A name is given once.
    output = body.op("Identity", output) if output in after else output
    read = [*_state_parts(layer, before), info(step_inputs, FLOAT, "batch", sum(widths))]
    give = [*_state_parts(layer, after), info(output, FLOAT, "batch", layer.hidden_size)]
    step = helper.make_graph(body.nodes, "layer", read, give)
    graph.op("Scan", *state, inputs, names=[*last, outputs], body=step, num_scan_inputs=1)
    return last, outputs


def _state_parts(layer: LayerWeights, names: Sequence[str]) -> list[ValueInfoProto]:
    widths = zip(names, state_widths(layer), strict=True)
    return [info(name, FLOAT, "batch", width) for name, width in widths]


def _pass_on(block: Block, weights: GraphWeights, index: int, outputs: str, x: str) -> str:
    """Return what the next layer or the head reads, where the layer itself read `x`."""
    return block.op("Add", outputs, x) if index and weights.model.residual else outputs


def _last_step(graph: Block, weights: GraphWeights, state: list[str], x: str) -> str:
    """Return the last of the steps in `x`, of a plain model its last `h`."""
    if weights.model.is_plain:
        return state[0]
    return graph.op("Gather", x, graph.constants.add(-1), axis=0)


def _join(graph: Block, parts: Sequence[str]) -> str:
    return graph.op("Concat", *parts, axis=-1)


def _unstack(graph: Block, weights: GraphWeights) -> list[list[str]]:
    return [
        graph.split(graph.op("Gather", "state", graph.constants.add(index)), state_widths(layer))
        for index, layer in enumerate(weights.model.layers)
    ]


def _stack(graph: Block, states: Sequence[list[str]]) -> None:
    axis = graph.constants.add([0])
    joined = [state[0] if len(state) == 1 else _join(graph, state) for state in states]
    rows = [graph.op("Unsqueeze", state, axis) for state in joined]
    graph.op("Concat", *rows, names=["next_state"], axis=0)


def _flat(parts: Iterable[list[Any]]) -> list[Any]:
    return list(chain.from_iterable(parts))


def _writing_inputs(weights: GraphWeights, draw: Draw) -> list[ValueInfoProto]:
    return [
        info("token_ids", INT64, "batch"),
        _state_info("state", weights),
        info("bias", FLOAT, weights.model.vocab_size),
        info("uniforms", DOUBLE, "steps", "batch", 1),
        *([] if draw.greedy else [info("temperature", FLOAT)]),
        *([info("top_k", INT64, 1)] if draw.top_k else []),
        *([info("top_p", DOUBLE)] if draw.top_p else []),
        *([info("least_share", DOUBLE)] if draw.top_p and not draw.top_k else []),
        *([info("log_min_p", DOUBLE)] if draw.min_p else []),
    ]


def _state_info(name: str, weights: GraphWeights) -> ValueInfoProto:
    return info(name, FLOAT, weights.model.num_layers, "batch", weights.model.state_size)


def _serialise(
    graph: Block, inputs: Sequence[ValueInfoProto], outputs: Sequence[ValueInfoProto]
) -> bytes:
    proto = helper.make_graph(graph.nodes, "textgen", inputs, outputs, graph.constants.tensors)
    opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid(MICROSOFT, 1)]
    model = helper.make_model(proto, opset_imports=opsets, ir_version=IR_VERSION)
    return model.SerializeToString()
