import codecs

import numpy as np
import pytest

from textgen.models.weights import ModelWeights

PIECES = (b"", b"a", b"b ", b"\xc3", b"\xa9", b"\xf0\x9f", b"\x98\x80", b"z\xc3", b"\n")


def make_weights(vocab_size=9, embedding_dim=5, hidden_size=6, num_layers=1, seed=0):
    shapes = {"embedding": (vocab_size, embedding_dim)}
    for index in range(num_layers):
        inputs = hidden_size if index else embedding_dim
        shapes[f"gru_{index}.kernel"] = (inputs, 3 * hidden_size)
        shapes[f"gru_{index}.recurrent_kernel"] = (hidden_size, 3 * hidden_size)
        shapes[f"gru_{index}.bias"] = (2, 3 * hidden_size)
    shapes |= {"dense.kernel": (hidden_size, vocab_size), "dense.bias": (vocab_size,)}
    draw = np.random.default_rng(seed).standard_normal
    tensors = {name: draw(shape).astype(np.float32) for name, shape in shapes.items()}
    return ModelWeights.from_tensors(tensors)


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


@pytest.fixture
def random_weights():
    return make_weights


@pytest.fixture
def tokenizer():
    return PieceTokenizer()
