"""Builders for several test modules: random models, quantized weights, draws, a tokenizer."""

import codecs
from itertools import product

import numpy as np

from textgen.engines.quantization import quantize_int4, quantize_int8
from textgen.models.quantized import QuantizedWeights
from textgen.models.weights import GATES, ModelWeights
from textgen.sampling import StepContext, build_processors, pick, pick_greedy
from textgen.storage import tensors_sha256

PARTS = ("output_gate", "initial_state", "residual", "layer_norm")


def all_models():
    """Return the arguments of `make_weights` for every kind of model, by name."""
    models = {}
    for cell, num_layers in product(("gru", "lstm", "rnn"), (1, 3)):
        names = PARTS if num_layers > 1 else PARTS[:2]
        for values in product((False, True), repeat=len(names)):
            parts = dict(zip(names, values, strict=True))
            words = [cell, str(num_layers), *(name for name, value in parts.items() if value)]
            models[" ".join(words)] = {"cell": cell, "num_layers": num_layers, **parts}
    return models


MODELS = all_models()
# Tracing takes a second, so TensorFlow is tested with plain models and those with every part.
FEW_MODELS = {name: parts for name, parts in MODELS.items() if len(name.split()) in (2, 6)}

# Random changes of the logits that each draw is tried with, the unchanged logits included.
NUM_MOVES = 9

PIECES = (b"", b"a", b"b ", b"\xc3", b"\xa9", b"\xf0\x9f", b"\x98\x80", b"z\xc3", b"\n")


def layer_shapes(cell, inputs, hidden_size, output_gate, layer_norm):
    width = len(GATES[cell]) * hidden_size
    shapes = {
        "kernel": (inputs, width),
        "recurrent_kernel": (hidden_size, width),
        "bias": (2 if cell == "gru" else 1, width),
    }
    if output_gate:
        shapes["output_gate.kernel"] = (inputs, hidden_size)
        shapes["output_gate.recurrent_kernel"] = (hidden_size, hidden_size)
        shapes["output_gate.bias"] = (hidden_size,)
    if layer_norm:
        shapes |= {"norm.scale": (inputs,), "norm.offset": (inputs,)}
    return shapes


def make_weights(
    vocab_size=9,
    embedding_dim=5,
    hidden_size=6,
    num_layers=1,
    seed=0,
    cell="gru",
    output_gate=False,
    residual=False,
    layer_norm=False,
    initial_state=False,
):
    shapes = {"embedding": (vocab_size, embedding_dim)}
    for index in range(num_layers):
        inputs = hidden_size if index else embedding_dim
        parts = layer_shapes(cell, inputs, hidden_size, output_gate, layer_norm and index > 0)
        shapes |= {f"{cell}_{index}.{name}": shape for name, shape in parts.items()}
    shapes |= {"dense.kernel": (hidden_size, vocab_size), "dense.bias": (vocab_size,)}
    if initial_state:
        shapes["first_state"] = (num_layers, hidden_size * (2 if cell == "lstm" else 1))
    draw = np.random.default_rng(seed).standard_normal
    tensors = {name: draw(shape).astype(np.float32) for name, shape in shapes.items()}
    return ModelWeights.from_tensors(tensors, residual=residual)


def make_lively_weights(vocab_size=23, hidden_size=48, **parts):
    """Return random weights as large as trained ones: the model is neither saturated nor flat."""
    weights = make_weights(vocab_size, 8, hidden_size, **parts)
    tensors = {
        name: array / np.float32(len(array) ** 0.5) if name.endswith("kernel") else array
        for name, array in weights.to_tensors().items()
    }
    tensors["dense.kernel"] *= 4
    return ModelWeights.from_tensors(tensors, residual=weights.residual)


def assert_close(actual, expected, rtol=1e-4, atol=1e-5):
    """Fail unless two arrays are equal up to float32 rounding."""
    np.testing.assert_allclose(actual, expected, rtol=rtol, atol=atol)


def with_exact_inputs(weights):
    """Return weights whose first input product is exact, in whatever order a machine sums it."""
    tensors = weights.to_tensors()
    for name in ("embedding", f"{weights.cell}_0.kernel", f"{weights.cell}_0.bias"):
        tensors[name] = np.rint(tensors[name] * 64) / np.float32(64)
    return ModelWeights.from_tensors(tensors, residual=weights.residual)


def make_quantized(weights, weights_format):
    """Return quantized weights that are the same on every machine: int4 is not calibrated."""
    from textgen.engines.onnx.graph_weights import layer_products

    quantize = {
        "int8": quantize_int8,
        "int4": lambda matrix: quantize_int4(matrix, np.eye(len(matrix))),
    }
    return QuantizedWeights(
        weights_format=weights_format,
        products=tuple(map(quantize[weights_format], layer_products(weights))),
        weights_sha256=tensors_sha256(weights.to_tensors()),
    )


def run_block(block, inputs, outputs):
    """Run the nodes of an ONNX block.

    Args:
        block: The nodes.
        inputs: Arrays by the names of the inputs.
        outputs: Names of the values to return.

    Returns:
        Their arrays, in that order.
    """
    import onnxruntime
    from onnx import helper

    infos = [
        helper.make_tensor_value_info(
            name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape
        )
        for name, array in inputs.items()
    ]
    results = [helper.make_empty_tensor_value_info(name) for name in outputs]
    graph = helper.make_graph(block.nodes, "test", infos, results, block.constants.tensors)
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    return session.run(list(outputs), inputs)


def draw_step_by_step(engine, token_ids, state, uniforms, sampling, bias=None):
    """Draw as `run_loop` must, with single steps of the engine, the processors, and `pick`."""
    drawn = []
    for step_uniforms in uniforms:
        logits, state = engine.decode_step(token_ids, state)
        token_ids = draw(logits, step_uniforms, sampling, bias)
        drawn.append(token_ids)
    return np.array(drawn), state


def draw(logits, uniforms, sampling, bias=None):
    """Draw one token per row with the processors of `sampling`."""
    context = StepContext(
        history=np.full((len(logits), 1), -1, np.int32),
        temperature=sampling.temperature,
        uniforms=np.zeros(len(logits)),
        max_surprise=np.zeros(len(logits)),
    )
    for process in build_processors(sampling, bias):
        logits = process(logits, context)
    return pick(logits, uniforms) if sampling.temperature else pick_greedy(logits)


def find_safe_draws(make_model, make_engine, batch, steps, sampling, bias=None, noise=1e-4):
    """Return a model, a start and uniforms whose draws no float rounding can change.

    Two ways to sum the same product differ by rounding, and so do two machines. They must draw
    the same tokens nevertheless, where small changes of the logits do not change a draw.

    Args:
        make_model: Takes a seed and returns a model.
        make_engine: Takes a model and returns the engine that draws step by step.
        batch: Number of rows; row `i` starts with token `i`.
        steps: Number of tokens to draw for each row.
        sampling: How tokens are drawn.
        bias: `[vocab_size]`, added to the logits.
        noise: Largest change of a logit that must not change a draw, nats.

    Returns:
        The model, the arguments of `run_loop` up to the uniforms, and the uniforms.
    """
    for seed in range(100):
        model = make_model(seed)
        engine = make_engine(model)
        start = np.arange(batch, dtype=np.int32), engine.initial_state(batch)
        uniforms = make_safe_uniforms(engine, *start, steps, sampling, bias, noise)
        if uniforms is not None:
            return model, start, uniforms
    raise AssertionError("Every model draws tokens that rounding can change.")


def make_safe_uniforms(engine, token_ids, state, steps, sampling, bias=None, noise=1e-4):
    """Return uniforms `[steps, batch]` as in `find_safe_draws`; None if there are none."""
    random = np.random.default_rng(4)
    uniforms = np.empty((steps, len(token_ids)))
    for step in range(steps):
        logits, state = engine.decode_step(token_ids, state)
        moves = noise * random.uniform(-1, 1, (NUM_MOVES, *logits.shape)).astype(np.float32)
        moves[0] = 0
        moved = (logits + moves).reshape(-1, logits.shape[-1])
        unsafe = np.arange(len(logits))
        for _ in range(100):
            uniforms[step, unsafe] = random.random(len(unsafe))
            drawn = draw(moved, np.tile(uniforms[step], NUM_MOVES), sampling, bias)
            drawn = drawn.reshape(NUM_MOVES, -1)
            token_ids, unsafe = drawn[0], np.flatnonzero((drawn != drawn[0]).any(axis=0))
            if not len(unsafe):
                break
        if len(unsafe):
            return None
    return uniforms


class PieceDecoder:
    """Decodes the tokens of `PieceTokenizer`."""

    def __init__(self):
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def feed(self, token_id):
        return self._decoder.decode(PIECES[token_id])

    def flush(self):
        return self._decoder.decode(b"", final=True)


class PieceTokenizer:
    """A tokenizer of nine pieces, some of them parts of a character; id 0 is UNK, and banned."""

    kind = "subword"
    vocab_size = len(PIECES)
    banned_ids = (0,)
    start_id = 8

    def encode(self, text, unknown="error"):
        content, token_ids = text.encode(), []
        while content:
            found = [i for i in range(1, len(PIECES)) if content.startswith(PIECES[i])]
            best = max(found, key=lambda token_id: len(PIECES[token_id]))
            token_ids.append(best)
            content = content[len(PIECES[best]) :]
        return np.array(token_ids, np.int32)

    def decode(self, token_ids):
        return b"".join(PIECES[i] for i in token_ids).decode(errors="replace")

    def decoder(self):
        return PieceDecoder()

    def pieces(self):
        return PIECES
