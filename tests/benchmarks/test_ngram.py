"""The n-gram baseline, compared with values computed by hand and a slow model of dictionaries."""

import math
from collections import Counter, defaultdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.ngram import NgramModel, ngram_nats_per_char
from textgen.errors import ConfigError, CorpusError

texts = st.text(st.sampled_from("aaab漢😀"), min_size=1, max_size=60)
contexts = st.text("ab漢?", max_size=6)
orders = st.integers(1, 5)
smoothings = st.sampled_from(["witten-bell", "kneser-ney"])


def slow_prob(text, order, smoothing, context, char):
    """Return P(char | context) from the definition, without tables kept between calls."""
    alphabet = set(text)
    prob = 1 / (len(alphabet) + 1)
    for k in range(1, min(order, len(context) + 1) + 1):
        counts = Counter(text[i : i + k] for i in range(len(text) - k + 1))
        if smoothing == "kneser-ney" and k < order:
            longer = {text[i : i + k + 1] for i in range(len(text) - k)}
            counts = Counter(gram[1:] for gram in longer)
        discount = slow_discounts(counts)
        before = context[len(context) - k + 1 :]
        followers = {c: counts[before + c] for c in alphabet if counts[before + c]}
        if not followers:
            continue
        total, count = sum(followers.values()), followers.get(char, 0)
        if smoothing == "witten-bell":
            prob = (count + len(followers) * prob) / (total + len(followers))
        else:
            passed = sum(discount[min(c, 3)] for c in followers.values())
            prob = (count - discount[min(count, 3)] + passed * prob) / total
    return prob


def slow_discounts(counts):
    n = defaultdict(int, Counter(counts.values()))
    scale = n[1] / (n[1] + 2 * n[2]) if n[1] else 0
    discounts = {0: 0.0}
    for c in (1, 2, 3):
        discounts[c] = min(max(c - (c + 1) * scale * n[c + 1] / max(n[c], 1), 0.1), c)
    return discounts


def test_witten_bell_equals_probabilities_computed_by_hand():
    model = NgramModel.fit("aab", 2, "witten-bell")
    # Order 1: N = 3, T = 2; after "a": N = 2, T = 2; nothing follows "b".
    assert model.probs("") == pytest.approx([8 / 15, 5 / 15, 2 / 15])
    assert model.probs("a") == pytest.approx([31 / 60, 25 / 60, 4 / 60])
    assert model.probs("b") == pytest.approx([8 / 15, 5 / 15, 2 / 15])


def test_kneser_ney_equals_probabilities_computed_by_hand():
    model = NgramModel.fit("aabab", 2, "kneser-ney")
    # Discounts 1/3 and 2 at order 1, where "a" follows two characters and "b" one; 1/2 and 2 at
    # order 2, which has "aa" and "ba" once and "ab" twice.
    assert model.probs("") == pytest.approx([7 / 27, 13 / 27, 7 / 27])
    assert model.probs("a") == pytest.approx([62 / 162, 65 / 162, 35 / 162])
    assert model.probs("b") == pytest.approx([34 / 54, 13 / 54, 7 / 54])


def test_the_mean_is_over_all_characters_with_the_training_text_as_context():
    # "a" after the "b" of the training text, "b" after "a", the unknown "c" after "b".
    nats = -math.log(8 / 15 * 25 / 60 * 2 / 15) / 3
    assert ngram_nats_per_char("aab", "abc", 2, "witten-bell") == pytest.approx(nats)
    # "b" has probability 25/60 after the "a" of the training text, and 5/15 without a context.
    nats = -math.log(NgramModel.fit("aaba", 2, "witten-bell").probs("a")[1])
    assert ngram_nats_per_char("aaba", "b", 2, "witten-bell") == pytest.approx(nats)
    assert NgramModel.fit("aaba", 2, "witten-bell").nats("b")[0] != pytest.approx(nats)


@settings(max_examples=300)
@given(texts, contexts, orders, smoothings)
def test_probabilities_are_positive_and_sum_to_one(text, context, order, smoothing):
    probs = NgramModel.fit(text, order, smoothing).probs(context)
    assert len(probs) == len(set(text)) + 1
    assert np.all(probs > 0)
    assert probs.sum() == pytest.approx(1, abs=1e-12)


@settings(max_examples=300)
@given(texts, contexts, orders, smoothings)
def test_probabilities_equal_those_of_the_slow_model(text, context, order, smoothing):
    model = NgramModel.fit(text, order, smoothing)
    expected = [
        slow_prob(text, order, smoothing, context, char) for char in [*model.alphabet, None]
    ]
    assert model.probs(context) == pytest.approx(expected)


@given(texts, st.text("ab漢?", min_size=1, max_size=12), orders, smoothings)
def test_the_mean_equals_that_of_the_characters_scored_one_by_one(text, held_out, order, smoothing):
    model = NgramModel.fit(text, order, smoothing)
    indices = [model.alphabet.find(char) for char in held_out]
    one_by_one = [
        -math.log(model.probs(text + held_out[:i])[index]) for i, index in enumerate(indices)
    ]
    mean = ngram_nats_per_char(text, held_out, order, smoothing)
    assert mean == pytest.approx(np.mean(one_by_one))


@given(smoothings, st.permutations("abcdefgh"))
def test_a_periodic_text_scores_near_zero_if_the_context_determines_it(smoothing, letters):
    text = "".join(letters) * 40
    nats = [ngram_nats_per_char(text, text[:80], order, smoothing) for order in (1, 2, 3)]
    assert nats[0] == pytest.approx(math.log(8), abs=0.02)
    assert max(nats[1:]) < 0.1 * math.log(9)


@pytest.mark.parametrize("smoothing", ["witten-bell", "kneser-ney"])
def test_an_order_longer_than_the_text_changes_nothing(smoothing):
    nats = [ngram_nats_per_char("abcab", "bca", order, smoothing) for order in (6, 7, 20)]
    assert nats[0] == pytest.approx(nats[1]) == pytest.approx(nats[2])


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (("ab", "a", 0, "witten-bell"), ConfigError, "at least 1. Received: 0"),
        (("ab", "a", 2, "katz"), ConfigError, "witten-bell, kneser-ney. Received: 'katz'"),
        (("", "a", 2, "witten-bell"), CorpusError, "training text"),
        (("ab", "", 2, "kneser-ney"), CorpusError, "validation text"),
    ],
)
def test_invalid_arguments_are_refused(arguments, error, message):
    with pytest.raises(error, match=message):
        ngram_nats_per_char(*arguments)
