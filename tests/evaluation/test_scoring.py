"""Scores equal those of a naive loop over tokens with the reference engine."""

import math
from dataclasses import replace

import numpy as np
import pytest

from textgen.engines.numpy_engine import NumpyEngine
from textgen.engines.reference_engine import ReferenceEngine
from textgen.errors import CorpusError
from textgen.evaluation import (
    EncodedText,
    encode_text,
    join_scores,
    score_carried,
    score_windows,
    surprise,
)
from textgen.evaluation.scoring import token_nats
from textgen.models.weights import ModelWeights

ALPHABET = "\nab é😀"


class CharTokenizer:
    kind = "char"
    vocab_size = len(ALPHABET)
    banned_ids = ()
    start_id = 0

    def encode(self, text, unknown="error"):
        return np.array([ALPHABET.index(c) for c in text if c in ALPHABET], np.int32)

    def decode(self, token_ids):
        return "".join(ALPHABET[i] for i in token_ids)

    def decoder(self):
        return CharDecoder()


class CharDecoder:
    def feed(self, token_id):
        return ALPHABET[token_id]

    def flush(self):
        return ""


class PairTokenizer(CharTokenizer):
    """Every character but `a` is two tokens, the first of which has no text."""

    vocab_size = 2 * len(ALPHABET)

    def encode(self, text, unknown="error"):
        size = len(ALPHABET)
        pairs = [[1] if c == "a" else [size + ALPHABET.index(c), ALPHABET.index(c)] for c in text]
        return np.array([token_id for pair in pairs for token_id in pair], np.int32)

    def decoder(self):
        return PairDecoder()


class PairDecoder(CharDecoder):
    def feed(self, token_id):
        return ALPHABET[token_id] if token_id < len(ALPHABET) else ""


def make_weights(vocab_size, hidden_size=8, num_layers=1, recurrence=1.0):
    shapes = {"embedding": (vocab_size, 4)}
    for index in range(num_layers):
        shapes[f"gru_{index}.kernel"] = (hidden_size if index else 4, 3 * hidden_size)
        shapes[f"gru_{index}.recurrent_kernel"] = (hidden_size, 3 * hidden_size)
        shapes[f"gru_{index}.bias"] = (2, 3 * hidden_size)
    shapes |= {"dense.kernel": (hidden_size, vocab_size), "dense.bias": (vocab_size,)}
    draw = np.random.default_rng(3).standard_normal
    tensors = {name: draw(shape).astype(np.float32) for name, shape in shapes.items()}
    for index in range(num_layers):
        tensors[f"gru_{index}.recurrent_kernel"] *= recurrence
    return ModelWeights.from_tensors(tensors)


def naive_nats(weights, token_ids, start_id):
    engine = ReferenceEngine(weights)
    state, previous, nats = engine.initial_state(1), start_id, []
    for token_id in token_ids:
        logits, state = engine.decode_step(np.array([previous]), state)
        exact = [float(x) for x in logits[0]]
        nats.append(math.log(math.fsum(math.exp(x) for x in exact)) - exact[token_id])
        previous = token_id
    return nats


def score_text(engine, tokenizer, text, unknown="error"):
    return score_carried(engine, encode_text(tokenizer, text, unknown), tokenizer.start_id)


def encoded(token_ids, characters, size):
    return EncodedText(token_ids=token_ids, characters=characters, bytes=size)


@pytest.mark.parametrize("num_layers", [1, 3])
def test_score_equals_a_naive_loop_over_tokens(num_layers):
    text = "aab é😀\n" * 40 + "a"
    weights, tokenizer = make_weights(6, num_layers=num_layers), CharTokenizer()
    score = score_text(NumpyEngine(weights), tokenizer, text)
    nats = naive_nats(weights, tokenizer.encode(text), 0)
    assert score.total_nats == pytest.approx(sum(nats), rel=1e-5)
    assert (score.tokens, score.characters, score.bytes) == (281, 281, len(text.encode()))


def test_a_long_text_in_lanes_has_the_score_of_one_pass():
    token_ids = np.random.default_rng(0).integers(0, 6, 20_001).astype(np.int32)
    # A weak recurrence forgets within the warm-up, so lanes and one pass must agree.
    engine = NumpyEngine(make_weights(6, recurrence=0.3))
    score = score_carried(engine, encoded(token_ids, 20_001, 20_001), 0)
    logits, _ = engine.forward(np.append(0, token_ids[:-1])[None], engine.initial_state(1))
    assert score.total_nats == pytest.approx(token_nats(logits[0], token_ids).sum(), rel=1e-5)
    assert score.tokens == 20_001


def test_skipped_characters_are_not_counted():
    engine, tokenizer = NumpyEngine(make_weights(6)), CharTokenizer()
    with_unknown = score_text(engine, tokenizer, "aXéYb", unknown="skip")
    assert with_unknown == score_text(engine, tokenizer, "aéb")
    assert (with_unknown.characters, with_unknown.bytes) == (3, 4)


def test_surprise_is_the_bits_of_each_character():
    text = "aab é😀\n" * 30
    weights, tokenizer = make_weights(6), CharTokenizer()
    pairs = surprise(NumpyEngine(weights), tokenizer, text)
    assert "".join(piece for piece, _ in pairs) == text
    nats = naive_nats(weights, tokenizer.encode(text), 0)
    np.testing.assert_allclose([bits for _, bits in pairs], np.array(nats) / np.log(2), rtol=1e-4)


def test_surprise_joins_the_tokens_of_one_character():
    text = "a é a😀"
    weights, tokenizer = make_weights(12), PairTokenizer()
    pairs = surprise(NumpyEngine(weights), tokenizer, text)
    assert [piece for piece, _ in pairs] == list(text)
    nats = naive_nats(weights, tokenizer.encode(text), 0)
    assert pairs[1][1] == pytest.approx((nats[1] + nats[2]) / math.log(2), rel=1e-4)
    assert sum(bits for _, bits in pairs) == pytest.approx(sum(nats) / math.log(2), rel=1e-4)


def test_surprise_and_score_agree_across_windows():
    text = "ab é" * 300
    engine, tokenizer = NumpyEngine(make_weights(6)), CharTokenizer()
    total = sum(bits for _, bits in surprise(engine, tokenizer, text))
    score = score_text(engine, tokenizer, text)
    assert total / len(text) == pytest.approx(score.bits_per_char, rel=1e-5)


def test_token_nats_are_exact_for_extreme_logits():
    logits = np.array([[1e4, 0.0, -1e4], [0.0, 0.0, -np.inf]], np.float32)
    nats = token_nats(logits, np.array([1, 0]))
    np.testing.assert_allclose(nats, [1e4, math.log(2)])
    assert nats.dtype == np.float64


@pytest.mark.parametrize("vocab_size", [2, 700, 70_000])
def test_token_nats_are_those_of_each_row_by_itself(vocab_size):
    logits = np.random.default_rng(2).normal(0, 3, (200, vocab_size)).astype(np.float32)
    targets = np.arange(200) % vocab_size
    rows = logits.astype(np.float64)
    expected = np.log(np.exp(rows).sum(axis=-1)) - rows[np.arange(200), targets]
    np.testing.assert_allclose(token_nats(logits, targets), expected, rtol=1e-5)


@pytest.mark.parametrize("function", [score_carried, score_windows])
def test_progress_is_reported_up_to_the_end(function):
    token_ids, shares = np.zeros(20_000, np.int32), []
    function(NumpyEngine(make_weights(6)), encoded(token_ids, 1, 1), 0, shares.append)
    assert len(shares) > 1
    assert shares == sorted(set(shares))
    assert 0 < shares[0] < shares[-1] == 1


@pytest.mark.parametrize("function", [score_text, surprise])
@pytest.mark.parametrize("text", ["", "XYZ"])
def test_a_text_without_tokens_is_refused(function, text):
    with pytest.raises(CorpusError, match="at least 1 token"):
        function(NumpyEngine(make_weights(6)), CharTokenizer(), text, unknown="skip")


@pytest.mark.parametrize("length", [1, 255, 256, 257, 9000])
def test_windows_equal_a_slow_loop_that_resets_its_state_every_256_tokens(length):
    token_ids = np.random.default_rng(1).integers(0, 6, length).astype(np.int32)
    weights = make_weights(6, num_layers=2)
    weights = replace(weights, learned_initial_state=np.full((2, 8), 0.3, np.float32))
    score = score_windows(NumpyEngine(weights), encoded(token_ids, length, 2 * length), 3)
    nats = []
    for start in range(0, length, 256):
        previous = token_ids[start - 1] if start else 3
        nats += naive_nats(weights, token_ids[start : start + 256], previous)
    assert len(nats) == score.tokens == length
    assert score.total_nats == pytest.approx(sum(nats), rel=1e-5)
    assert (score.characters, score.bytes) == (length, 2 * length)


def test_joined_scores_are_sums_over_the_texts():
    engine, tokenizer = NumpyEngine(make_weights(6)), CharTokenizer()
    parts = [score_text(engine, tokenizer, text) for text in ("aab é😀\n", "b", "ab" * 50)]
    joined = join_scores(parts)
    assert joined.total_nats == pytest.approx(sum(part.total_nats for part in parts))
    assert (joined.tokens, joined.characters, joined.bytes) == (108, 108, 112)
    mean = sum(part.loss * part.tokens for part in parts) / 108
    assert joined.loss == pytest.approx(mean)


def test_windows_of_no_text_are_refused():
    with pytest.raises(CorpusError, match="at least 1 token"):
        score_windows(NumpyEngine(make_weights(6)), encoded(np.array([], np.int32), 0, 0), 0)
