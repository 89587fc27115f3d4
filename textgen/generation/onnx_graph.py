"""A model as ONNX graphs: one that reads tokens, one that writes them.

This module knows operators. It does NOT know sessions, threads, or text.

The writing graph holds the whole loop, sampling included, as one `Scan`, and a layer costs it
one product a token: all that a layer's state `h` is multiplied with stands side by side,

    h @ [U | K] + [c | b]    U, c: its own recurrent kernel and bias
                             K, b: the kernel and bias of the next layer, or of the head

The right part is used for this token, the left part carried to the next. The first layer's
input product is a row of the table `embedding @ kernel + bias`.

A node costs 0.3 µs, so at 256 units nodes are half of a token's time: few are worth more than
cheap ones.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any, Literal

import numpy as np
from onnx import GraphProto, NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

from textgen.generation.quantization import (
    STATE_SCALE,
    STATE_ZERO,
    Array,
    Int4Matrix,
    Int8Matrix,
    Matrix,
    columns,
)
from textgen.models.weights import ModelWeights

OPSET, IR_VERSION = 21, 10
MICROSOFT = "com.microsoft"
# MatMulNBits then reads a state in 8 bits, a scale a block; without it in float32, slower.
ACCURACY_LEVEL = 4

FLOAT, DOUBLE, INT64 = TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.INT64

Predictions = Literal["all", "last"]


@dataclass(frozen=True, kw_only=True)
class Draw:
    """What stands between the logits and a token: which inputs the writing graph has.

    Attributes:
        greedy: The most probable token is taken; there are no uniforms and no temperature.
        top_k: There is an input `top_k`.
        top_p: There is an input `top_p`, and without `top_k` an input `least_share`.
        min_p: There is an input `log_min_p`.
    """

    greedy: bool = False
    top_k: bool = False
    top_p: bool = False
    min_p: bool = False


@dataclass(frozen=True, kw_only=True, eq=False)
class GraphWeights:
    """A model's arrays in the form that the graphs hold.

    Attributes:
        model: The weights as they were trained.
        table: float32 `[vocab_size, 3 * hidden_size]`, the first layer's input product of
            each token; None: it is computed for the tokens that come.
        products: `[U | K]` of each layer.
        biases: `[c | b]` of each layer, float32.
    """

    model: ModelWeights
    table: Array | None
    products: tuple[Matrix, ...]
    biases: tuple[Array, ...]

    @property
    def recurrent(self) -> slice:
        """Columns of a product that belong to the layer itself."""
        return slice(0, 3 * self.model.hidden_size)

    @property
    def onward(self) -> slice:
        """Columns of a product that belong to the next layer, or to the head."""
        return slice(3 * self.model.hidden_size, None)

    @property
    def gates(self) -> list[int]:
        """Widths of the update and reset gates together, and of the candidate."""
        return [2 * self.model.hidden_size, self.model.hidden_size]


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
    first = model.gru[0]
    kernels = [*(layer.kernel for layer in model.gru[1:]), model.dense_kernel]
    biases = [*(layer.bias[0] for layer in model.gru[1:]), model.dense_bias]
    tabulate = 2 * model.embedding.size * first.bias.shape[1] <= table_flops
    return GraphWeights(
        model=model,
        table=model.embedding @ first.kernel + first.bias[0] if tabulate else None,
        products=tuple(
            quantize(np.hstack([layer.recurrent_kernel, kernel]), index)
            for index, (layer, kernel) in enumerate(zip(model.gru, kernels, strict=True))
        ),
        biases=tuple(
            np.concatenate([layer.bias[1], bias])
            for layer, bias in zip(model.gru, biases, strict=True)
        ),
    )


def reading_graph(weights: GraphWeights, predictions: Predictions) -> bytes:
    """Return the graph that reads tokens, layer by layer.

    Args:
        weights: The model.
        predictions: `"all"`: after every token; `"last"`: after the last.

    Returns:
        A serialised model. Inputs: `token_ids` int64 `[time, batch]`, `state` float32
        `[num_layers, batch, hidden_size]`. Outputs: `logits` float32 `[time, batch,
        vocab_size]` or `[batch, vocab_size]`, and `next_state`.
    """
    graph = _Block(_Constants())
    states = _unstack(graph, weights)
    inputs = _join(graph, _first_inputs(graph.constants, weights)(graph, "token_ids"))
    next_states = []
    for index, h in enumerate(states):
        next_h, outputs = _read_layer(graph, weights, index, h, inputs)
        next_states.append(next_h)
        only_last = predictions == "last" and len(next_states) == len(states)
        inputs = _onward(graph, weights, index)(graph, next_h if only_last else outputs)
    graph.op("Identity", inputs, names=["logits"])
    _stack(graph, next_states)
    time = ["time"] if predictions == "all" else []
    return _serialise(
        graph,
        [_info("token_ids", INT64, "time", "batch"), _state_info("state", weights)],
        [
            _info("logits", FLOAT, *time, "batch", weights.model.vocab_size),
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
        `[num_layers, batch, hidden_size]`, `bias` float32 `[vocab_size]`, `uniforms` float64
        `[steps, batch, 1]`, `temperature` float32 `[]`, `top_k` int64 `[1]`, `top_p`,
        `least_share` (of the mass, which no token that top-p keeps falls below) and
        `log_min_p` float64 `[]`. A greedy graph takes `uniforms` for their number alone.
        Outputs: `written` int32 `[steps, batch]`, `next_state`.
    """
    graph = _Block(_Constants())
    step = _Step(graph, weights, draw)
    states = _unstack(graph, weights)
    carried = [part for index, h in enumerate(states) for part in step.product(graph, index, h)[:2]]
    finals = graph.constants.names(1 + 3 * len(states))
    graph.op(
        "Scan",
        "token_ids",
        *states,
        *carried,
        "uniforms",
        names=[*finals, "written"],
        body=step.body(),
        num_scan_inputs=1,
    )
    _stack(graph, finals[1 : 1 + len(states)])
    return _serialise(
        graph,
        _writing_inputs(weights, draw),
        [_info("written", TensorProto.INT32, "steps", "batch"), _state_info("next_state", weights)],
    )


class _Constants:
    """A model's constants, seen by its graph and by the loops in it, and names for values."""

    def __init__(self) -> None:
        self.tensors: list[TensorProto] = []
        self._numbers = count()

    def names(self, number: int) -> list[str]:
        return [f"v{next(self._numbers)}" for _ in range(number)]

    def add(self, value: Any, dtype: type | None = None) -> str:
        (name,) = self.names(1)
        self.tensors.append(numpy_helper.from_array(np.array(value, dtype, order="C"), name))
        return name


class _Block:
    """Nodes in the order in which they run: a graph's, or a loop body's."""

    def __init__(self, constants: _Constants) -> None:
        self.constants = constants
        self.nodes: list[NodeProto] = []

    def op(
        self, kind: str, *inputs: str, names: list[str] | None = None, domain: str = "", **also: Any
    ) -> str:
        """Append a node and return the name of its first value."""
        names = names or self.constants.names(1)
        self.nodes.append(helper.make_node(kind, inputs, names, domain=domain, **also))
        return names[0]

    def split(self, value: str, widths: Sequence[int]) -> list[str]:
        names = self.constants.names(len(widths))
        self.op("Split", value, self.constants.add(widths, np.int64), names=names, axis=-1)
        return names


# `x @ matrix + bias` as nodes of a block; the constants are the model's, added once.
_Affine = Callable[[_Block, str], str]


class _Step:
    """One token of the writing graph: read it, draw the next."""

    def __init__(self, graph: _Block, weights: GraphWeights, draw: Draw) -> None:
        self._constants, self._weights, self._draw = graph.constants, weights, draw
        self._first = _first_inputs(graph.constants, weights)
        self._products = [
            _affine(graph.constants, matrix, bias)
            for matrix, bias in zip(weights.products, _biases(graph, weights), strict=True)
        ]

    def product(self, block: _Block, index: int, h: str) -> list[str]:
        """Return the carried parts of a layer's product, and the parts used for this token."""
        gates = self._weights.gates
        last = index + 1 == len(self._products)
        onward = [self._weights.model.vocab_size] if last else gates
        return block.split(self._products[index](block, h), [*gates, *onward])

    def body(self) -> GraphProto:
        """Return the loop's body: token, states and carried parts in and out, a uniform in."""
        token, uniform, *states = self._constants.names(2 + len(self._products))
        carried = self._constants.names(2 * len(states))
        block = _Block(self._constants)
        onward = self._first(block, token)
        next_states, next_carried = [], []
        for index, h in enumerate(states):
            recurrent = carried[2 * index : 2 * index + 2]
            next_states.append(_gru_step(block, self._weights, onward, recurrent, h))
            parts = self.product(block, index, next_states[index])
            next_carried += parts[:2]
            onward = parts[2:]
        next_token = _draw_token(block, onward[0], uniform, self._draw)
        written = block.op("Cast", next_token, to=TensorProto.INT32)
        inputs = [*self._infos(token, states, carried), _info(uniform, DOUBLE, "batch", 1)]
        outputs = self._infos(next_token, next_states, next_carried)
        outputs.append(_info(written, TensorProto.INT32, "batch"))
        return helper.make_graph(block.nodes, "step", inputs, outputs)

    def _infos(
        self, token: str, states: Sequence[str], carried: Sequence[str]
    ) -> list[ValueInfoProto]:
        widths = [self._weights.model.hidden_size] * len(states) + self._weights.gates * len(states)
        values = zip([*states, *carried], widths, strict=True)
        return [
            _info(token, INT64, "batch"),
            *(_info(name, FLOAT, "batch", width) for name, width in values),
        ]


def _draw_token(block: _Block, logits: str, uniform: str, draw: Draw) -> str:
    """Draw as `sampling.pick` does, after the processors in their order."""
    if draw.greedy:
        return block.op("ArgMax", logits, axis=1, keepdims=0)
    add = block.constants.add
    logits = block.op("Div", logits, "temperature")
    peak = block.op("ReduceMax", logits, add([1]), keepdims=1)
    shifted = block.op("Cast", block.op("Sub", logits, peak), to=DOUBLE)
    weights = block.op("Exp", shifted)
    if draw.top_k or draw.top_p:
        kept = _keep_sorted(block, logits, peak, weights, draw)
        weights = block.op("Where", kept, weights, add(0.0))
    if draw.min_p:
        kept = block.op("GreaterOrEqual", shifted, "log_min_p")
        weights = block.op("Where", kept, weights, add(0.0))
    cumulative, total = _cumulate(block, weights)
    passed = block.op("Greater", cumulative, block.op("Mul", uniform, total))
    passed = block.op("Cast", passed, to=TensorProto.UINT8)
    return block.op("ArgMax", passed, axis=1, keepdims=0)


def _keep_sorted(block: _Block, logits: str, peak: str, weights: str, draw: Draw) -> str:
    """Return which tokens top-k and top-p keep; of equals `TopK` puts the lower id first."""
    add = block.constants.add
    total = "" if draw.top_k else block.op("ReduceSum", weights, add([1]), keepdims=1)
    k = "top_k" if draw.top_k else _count_candidates(block, weights, total)
    values, ids = block.constants.names(2)
    # Unsorted it takes 21 µs instead of 73 for 40 of 66 in 64 rows.
    block.op("TopK", logits, k, names=[values, ids], axis=1, sorted=int(draw.top_p))
    if draw.top_p:
        kept = _keep_mass(block, block.op("Sub", values, peak), total)
    else:
        kept = block.op("GreaterOrEqual", ids, add(0))
    false = numpy_helper.from_array(np.array([False]))
    none = block.op("ConstantOfShape", block.op("Shape", logits), value=false)
    return block.op("ScatterElements", none, ids, kept, axis=1)


def _count_candidates(block: _Block, weights: str, total: str) -> str:
    """Return how many tokens of a row top-p keeps at most, for sorting all takes far longer.

    All tokens of less than `least_share` = (1 - top_p) / (2 vocab_size) have together less than
    1 - top_p, so before each of them the mass has reached top_p.
    """
    add = block.constants.add
    candidates = block.op("GreaterOrEqual", weights, block.op("Mul", "least_share", total))
    counts = block.op("ReduceSum", block.op("Cast", candidates, to=INT64), add([1]))
    return block.op("ReduceMax", counts, add([0]), keepdims=0)


def _keep_mass(block: _Block, shifted: str, total: str) -> str:
    """Return which of the sorted tokens have less than `top_p` of the mass before them.

    `total` is the mass, where it is not that of the sorted tokens alone.
    """
    probs = block.op("Cast", block.op("Exp", shifted), to=DOUBLE)
    mass, sorted_total = _cumulate(block, probs)
    before = block.op("Sub", mass, probs)
    return block.op("Less", before, block.op("Mul", "top_p", total or sorted_total))


def _cumulate(block: _Block, values: str) -> tuple[str, str]:
    """Return the sums of a row from its beginning, and the last of them."""
    cumulative = block.op("CumSum", values, block.constants.add(1))
    return cumulative, block.op("Gather", cumulative, block.constants.add([-1]), axis=1)


def _gru_step(
    block: _Block, weights: GraphWeights, inputs: Sequence[str], recurrent: Sequence[str], h: str
) -> str:
    """Return the next state; `inputs` and `recurrent` are gates and candidate, biases added."""
    gates = block.op("Sigmoid", block.op("Add", inputs[0], recurrent[0]))
    z, r = block.split(gates, [weights.model.hidden_size] * 2)
    candidate = block.op("Tanh", block.op("Add", inputs[1], block.op("Mul", r, recurrent[1])))
    return block.op("Add", candidate, block.op("Mul", z, block.op("Sub", h, candidate)))


def _first_inputs(
    constants: _Constants, weights: GraphWeights
) -> Callable[[_Block, str], list[str]]:
    """Return what turns token ids into the first layer's input product, in its two parts."""
    if weights.table is None:
        embedding = constants.add(weights.model.embedding)
        first = weights.model.gru[0]
        project = _affine(constants, first.kernel, constants.add(first.bias[0]))
        return lambda block, ids: block.split(
            project(block, block.op("Gather", embedding, ids)), weights.gates
        )
    # Two tables cost less than one whose rows are cut in two.
    tables = np.split(weights.table, weights.gates[:1], axis=1)
    names = [constants.add(table) for table in tables]
    return lambda block, ids: [block.op("Gather", name, ids) for name in names]


def _affine(constants: _Constants, matrix: Matrix, bias: str) -> _Affine:
    """Return what multiplies with a matrix in its own form."""
    if isinstance(matrix, Int8Matrix):
        return _affine_int8(constants, matrix, bias)
    if isinstance(matrix, Int4Matrix):
        return _affine_int4(constants, matrix, bias)
    name = constants.add(matrix)
    return lambda block, x: block.op("Add", block.op("MatMul", x, name), bias)


def _affine_int8(constants: _Constants, matrix: Int8Matrix, bias: str) -> _Affine:
    values, scales = constants.add(matrix.values), constants.add(matrix.scales)
    scale, zero = constants.add(STATE_SCALE), constants.add(STATE_ZERO)

    def affine(block: _Block, x: str) -> str:
        levels = block.op("QuantizeLinear", x, scale, zero)
        inputs = (levels, values, scale, scales, zero, "", bias)
        return block.op("MatMulIntegerToFloat", *inputs, domain=MICROSOFT)

    return affine


def _affine_int4(constants: _Constants, matrix: Int4Matrix, bias: str) -> _Affine:
    packed, scales = constants.add(matrix.packed), constants.add(matrix.scales.reshape(-1))
    attributes: dict[str, Any] = {
        "K": matrix.rows,
        "N": len(matrix.scales),
        "bits": 4,
        "block_size": matrix.block_size,
        "accuracy_level": ACCURACY_LEVEL,
    }
    return lambda block, x: block.op(
        "MatMulNBits", x, packed, scales, "", "", bias, domain=MICROSOFT, **attributes
    )


def _biases(graph: _Block, weights: GraphWeights) -> list[str]:
    """Return the layers' biases, the head's with the input `bias` added."""
    add = graph.constants.add
    *others, last = weights.biases
    head = graph.op("Add", add(last[weights.onward]), "bias")
    joined = graph.op("Concat", add(last[weights.recurrent]), head, axis=0)
    return [*(add(bias) for bias in others), joined]


def _read_layer(
    graph: _Block, weights: GraphWeights, index: int, h: str, inputs: str
) -> tuple[str, str]:
    """Return a layer's last state, and its states after each token."""
    constants, size = graph.constants, weights.model.hidden_size
    matrix = columns(weights.products[index], weights.recurrent)
    recurrent = _affine(constants, matrix, constants.add(weights.biases[index][weights.recurrent]))
    body = _Block(constants)
    before, step_inputs, last, outputs = constants.names(4)
    parts = body.split(step_inputs, weights.gates)
    gates = body.split(recurrent(body, before), weights.gates)
    after = _gru_step(body, weights, parts, gates, before)
    output = body.op("Identity", after)
    read = [_info(before, FLOAT, "batch", size), _info(step_inputs, FLOAT, "batch", 3 * size)]
    give = [_info(name, FLOAT, "batch", size) for name in (after, output)]
    step = helper.make_graph(body.nodes, "layer", read, give)
    graph.op("Scan", h, inputs, names=[last, outputs], body=step, num_scan_inputs=1)
    return last, outputs


def _onward(graph: _Block, weights: GraphWeights, index: int) -> _Affine:
    """Return the product of a layer's states for the next layer, or for the head."""
    matrix = columns(weights.products[index], weights.onward)
    bias = graph.constants.add(weights.biases[index][weights.onward])
    return _affine(graph.constants, matrix, bias)


def _join(graph: _Block, parts: Sequence[str]) -> str:
    return graph.op("Concat", *parts, axis=-1)


def _unstack(graph: _Block, weights: GraphWeights) -> list[str]:
    layers = range(weights.model.num_layers)
    return [graph.op("Gather", "state", graph.constants.add(index)) for index in layers]


def _stack(graph: _Block, states: Sequence[str]) -> None:
    axis = graph.constants.add([0])
    rows = [graph.op("Unsqueeze", state, axis) for state in states]
    graph.op("Concat", *rows, names=["next_state"], axis=0)


def _writing_inputs(weights: GraphWeights, draw: Draw) -> list[ValueInfoProto]:
    return [
        _info("token_ids", INT64, "batch"),
        _state_info("state", weights),
        _info("bias", FLOAT, weights.model.vocab_size),
        _info("uniforms", DOUBLE, "steps", "batch", 1),
        *([] if draw.greedy else [_info("temperature", FLOAT)]),
        *([_info("top_k", INT64, 1)] if draw.top_k else []),
        *([_info("top_p", DOUBLE)] if draw.top_p else []),
        *([_info("least_share", DOUBLE)] if draw.top_p and not draw.top_k else []),
        *([_info("log_min_p", DOUBLE)] if draw.min_p else []),
    ]


def _info(name: str, kind: int, *shape: int | str) -> ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, shape)


def _state_info(name: str, weights: GraphWeights) -> ValueInfoProto:
    return _info(name, FLOAT, weights.model.num_layers, "batch", weights.model.hidden_size)


def _serialise(
    graph: _Block, inputs: Sequence[ValueInfoProto], outputs: Sequence[ValueInfoProto]
) -> bytes:
    proto = helper.make_graph(graph.nodes, "textgen", inputs, outputs, graph.constants.tensors)
    opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid(MICROSOFT, 1)]
    model = helper.make_model(proto, opset_imports=opsets, ir_version=IR_VERSION)
    return model.SerializeToString()
