"""Builders that several test modules share: random models of every kind, and a tokenizer of bytes."""

import codecs
from itertools import product

import numpy as np

from textgen.models.weights import GATES, ModelWeights

PARTS = ("output_gate", "initial_state", "residual", "layer_norm")


def all_models():
    """Every kind of model, each as arguments of `make_weights` by its name."""
    models = {}
    for cell, num_layers in product(("gru", "lstm", "rnn"), (1, 3)):
        names = PARTS if num_layers > 1 else PARTS[:2]
        for values in product((False, True), repeat=len(names)):
            parts = dict(zip(names, values, strict=True))
            words = [cell, str(num_layers), *(name for name, value in parts.items() if value)]
            models[" ".join(words)] = {"cell": cell, "num_layers": num_layers, **parts}
    return models


MODELS = all_models()
# Tracing takes a second, so TensorFlow gets the plain ones and those with everything.
FEW_MODELS = {name: parts for name, parts in MODELS.items() if len(name.split()) in (2, 6)}

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
    """Weights as large as trained ones: a random model that neither saturates nor is flat."""
    weights = make_weights(vocab_size, 8, hidden_size, **parts)
    tensors = {
        name: array / np.float32(len(array) ** 0.5) if name.endswith("kernel") else array
        for name, array in weights.to_tensors().items()
    }
    tensors["dense.kernel"] *= 4
    return ModelWeights.from_tensors(tensors, residual=weights.residual)


class PieceDecoder:
    def __init__(self):
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def feed(self, token_id):
        return self._decoder.decode(PIECES[token_id])

    def flush(self):
        return self._decoder.decode(b"", final=True)


class PieceTokenizer:
    """Nine pieces, some of them parts of a character; id 0 is UNK and banned."""

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
