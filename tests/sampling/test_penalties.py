"""Penalties, compared with naive loops and hand-computed values."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from textgen.errors import ConfigError
from textgen.sampling import (
    forbid_repeated_ngrams,
    penalize_dry,
    penalize_frequency,
    penalize_presence,
    penalize_repetition,
)

INF = np.inf
VOCAB = 4
WINDOW = 12


def as_history(*rows, window=WINDOW):
    """Rows right-aligned in a window, -1 before the first token."""
    return np.array([[-1] * (window - len(row)) + list(row) for row in rows], np.int32)


token_rows = st.lists(st.lists(st.integers(0, VOCAB - 1), max_size=WINDOW), min_size=1, max_size=4)


def logits_for(histories, seed=0):
    draw = np.random.default_rng(seed).normal(0, 2, (len(histories), VOCAB))
    return draw.astype(np.float32)


def assert_pure(function, logits, history, *values):
    """Return the result; fail if an argument, the dtype or the shape changed."""
    logits_before, history_before = logits.copy(), history.copy()
    result = function(logits, history, *values)
    np.testing.assert_array_equal(logits, logits_before)
    np.testing.assert_array_equal(history, history_before)
    assert result.dtype == logits.dtype
    assert result.shape == logits.shape
    return result


def test_repetition_divides_positive_and_multiplies_negative_logits_once():
    logits = np.array([[3.0, -3.0, 0.0, -INF, 5.0], [3.0, -3.0, 0.0, 1.0, 5.0]], np.float32)
    history = as_history([0, 0, 1, 2, 3, 0], [4])
    assert penalize_repetition(logits, history, 1.5).tolist() == [
        [2.0, -4.5, 0.0, -INF, 5.0],
        [3.0, -3.0, 0.0, 1.0, np.float32(5 / 1.5)],
    ]
    assert penalize_repetition(logits, as_history([], []), 1.5).tolist() == logits.tolist()


def test_presence_counts_once_and_frequency_every_time():
    logits = np.array([[1.0, 2.0, 3.0, -INF], [1.0, 2.0, 3.0, 4.0]], np.float32)
    history = as_history([1, 1, 3, 1], [0])
    assert penalize_presence(logits, history, 0.5).tolist() == [[1, 1.5, 3, -INF], [0.5, 2, 3, 4]]
    assert penalize_frequency(logits, history, 0.5).tolist() == [[1, 0.5, 3, -INF], [0.5, 2, 3, 4]]
    assert penalize_frequency(logits, history, -2.0).tolist() == [[1, 8, 3, -INF], [3, 2, 3, 4]]


@pytest.mark.parametrize(
    ("tokens", "n", "forbidden"),
    [
        ([0, 1, 2, 0, 1], 3, [2]),
        ([0, 1, 2, 0, 1, 3, 0, 1], 3, [2, 3]),
        ([0, 1, 2, 0, 1], 2, [2]),
        ([0, 1, 2, 0, 1], 4, []),
        ([2, 0, 1, 2, 0, 1], 4, [2]),
        ([1, 1], 2, [1]),
        ([1], 2, []),
        ([], 2, []),
        ([0, 2, 2], 1, [0, 2]),
        ([0, 1, 2, 3], 1, []),  # nothing would be left
        ([0, 1], 99, []),
    ],
)
def test_a_token_that_would_repeat_an_ngram_is_forbidden(tokens, n, forbidden):
    logits = np.arange(1, 5, dtype=np.float32)[None]
    result = forbid_repeated_ngrams(logits, as_history(tokens), n)
    assert result.tolist() == [[-INF if i in forbidden else i + 1.0 for i in range(4)]]


def test_a_row_without_a_possible_token_left_does_not_change_and_its_neighbor_does():
    logits = np.array([[1.0, -INF, 2.0, -INF], [1.0, -INF, 2.0, -INF]], np.float32)
    result = forbid_repeated_ngrams(logits, as_history([0, 2], [0]), 1)
    assert result.tolist() == [[1.0, -INF, 2.0, -INF], [-INF, -INF, 2.0, -INF]]


@pytest.mark.parametrize(
    ("tokens", "breakers", "penalties"),
    [
        # "0 1 2" occurs before 3: three tokens match, one more than allowed.
        ([0, 1, 2, 3, 0, 1, 2], (), {3: 0.8 * 1.75}),
        ([1, 2, 3, 0, 1, 2], (), {3: 0.8}),
        ([2, 3, 0, 1, 2], (), {}),
        ([0, 1, 2, 3, 0, 1, 2], (0,), {3: 0.8}),
        ([0, 1, 2, 3, 0, 1, 2], (1,), {}),
        ([0, 1, 2, 3, 0, 1, 2], (2,), {}),
        ([0, 1, 2, 3, 0, 1, 2], (3,), {}),
        # Matches of several lengths precede 3: the longest counts.
        ([1, 2, 3, 0, 1, 2, 3, 0, 1, 2], (), {3: 0.8 * 1.75**4}),
        ([0, 1, 2, 3, 3, 1, 2, 3, 0, 1, 2], (), {3: 0.8 * 1.75}),
        ([1, 2, 0, 1, 2, 3, 1, 2], (), {0: 0.8, 3: 0.8}),
        ([1, 1, 1, 1], (), {1: 0.8 * 1.75}),
        ([1, 1], (), {}),
        ([1], (), {}),
        ([], (), {}),
    ],
)
def test_dry_penalizes_the_tokens_that_extend_a_repetition(tokens, breakers, penalties):
    logits = np.zeros((1, 4), np.float32)
    result = penalize_dry(logits, as_history(tokens), 0.8, 1.75, 2, breakers)
    expected = [[-penalties.get(i, 0.0) for i in range(4)]]
    np.testing.assert_allclose(result, expected, rtol=1e-6)


@pytest.mark.parametrize("base", [1e-300, 0.5, 1.0, 1.0001, 2.0, 1e6, 1e300])
@pytest.mark.parametrize("multiplier", [1e-300, 0.8, 1e300])
def test_dry_never_overflows(multiplier, base):
    history = np.zeros((2, 1024), np.int32)
    logits = np.array([[1.0, 2.0], [-INF, 2.0]], np.float32)
    result = penalize_dry(logits, history, multiplier, base, 2)
    assert result[0, 0] <= 1.0
    assert result[0, 0] >= 1.0 - 1e6
    assert result[:, 1].tolist() == [2.0, 2.0]
    assert result[1, 0] == -INF


def test_a_dry_penalty_is_at_most_a_million():
    history = np.zeros((1, 1024), np.int32)
    result = penalize_dry(np.zeros((1, 2), np.float32), history, 0.8, 1.75, 2)
    np.testing.assert_allclose(result, [[-1e6, 0.0]], rtol=1e-6)


def naive_repetition(row, tokens, penalty):
    for token_id in set(tokens):
        row[token_id] *= penalty if row[token_id] < 0 else 1 / penalty


def naive_presence(row, tokens, alpha):
    for token_id in set(tokens):
        row[token_id] -= alpha


def naive_frequency(row, tokens, alpha):
    for token_id in tokens:
        row[token_id] -= alpha


def naive_ngrams(row, tokens, n):
    known = {tuple(tokens[i : i + n]) for i in range(len(tokens) - n + 1)}
    prefix = tuple(tokens[len(tokens) - n + 1 :])
    forbidden = [i for i in range(len(row)) if (*prefix, i) in known]
    if len(tokens) >= n and len(forbidden) < len(row):
        row[forbidden] = -INF


def naive_dry(row, tokens, multiplier, base, allowed_length, breakers):
    longest = {}
    for place in range(len(tokens) - 1):
        follower, length = tokens[place + 1], 0
        while length <= place:
            old, new = tokens[place - length], tokens[len(tokens) - 1 - length]
            if old != new or old in breakers:
                break
            length += 1
        if follower not in breakers:
            longest[follower] = max(length, longest.get(follower, 0))
    for token_id, length in longest.items():
        if length >= allowed_length:
            row[token_id] -= multiplier * base ** (length - allowed_length)


@given(
    token_rows,
    st.sampled_from(
        [
            (penalize_repetition, naive_repetition, 1.3),
            (penalize_repetition, naive_repetition, 0.7),
            (penalize_presence, naive_presence, 0.4),
            (penalize_frequency, naive_frequency, -0.4),
            (forbid_repeated_ngrams, naive_ngrams, 1),
            (forbid_repeated_ngrams, naive_ngrams, 2),
            (forbid_repeated_ngrams, naive_ngrams, 3),
            (penalize_dry, naive_dry, 0.8, 1.75, 2, ()),
            (penalize_dry, naive_dry, 0.5, 1.2, 1, (0,)),
            (penalize_dry, naive_dry, 0.5, 0.5, 2, (3, 1)),
        ]
    ),
)
def test_penalties_are_those_of_the_naive_loop_in_every_row_and_arguments_do_not_change(
    token_rows, case
):
    function, naive, *values = case
    logits = logits_for(token_rows)
    expected = logits.astype(np.float64)
    for row, tokens in zip(expected, token_rows, strict=True):
        naive(row, tokens, *values)
    result = assert_pure(function, logits, as_history(*token_rows), *values)
    np.testing.assert_allclose(result, expected, rtol=1e-5, atol=1e-5)


def test_dry_is_that_of_the_naive_loop_on_a_long_repetitive_history():
    rng = np.random.default_rng(2)
    phrase = rng.integers(0, 30, 17)
    tokens = np.concatenate([rng.integers(0, 30, 600), *[phrase] * 3, rng.integers(0, 3, 300)])
    tokens = np.concatenate([tokens, phrase[:9]]).astype(np.int32)
    for breakers in ((), (int(phrase[4]),)):
        expected = np.zeros(30)
        naive_dry(expected, tokens.tolist(), 0.8, 1.75, 2, breakers)
        result = penalize_dry(np.zeros((1, 30), np.float32), tokens[None], 0.8, 1.75, 2, breakers)
        assert (expected < 0).any()
        np.testing.assert_allclose(result[0], expected, rtol=1e-5)


NAN = float("nan")


@pytest.mark.parametrize(
    ("function", "values", "name"),
    [
        (penalize_repetition, (0.0,), "repetition_penalty"),
        (penalize_repetition, (NAN,), "repetition_penalty"),
        (penalize_repetition, (INF,), "repetition_penalty"),
        (penalize_presence, (NAN,), "presence_penalty"),
        (penalize_presence, (INF,), "presence_penalty"),
        (penalize_frequency, (-INF,), "frequency_penalty"),
        (forbid_repeated_ngrams, (0,), "no_repeat_ngram"),
        (penalize_dry, (0.0, 1.75, 2), "dry_multiplier"),
        (penalize_dry, (NAN, 1.75, 2), "dry_multiplier"),
        (penalize_dry, (0.8, 0.0, 2), "dry_base"),
        (penalize_dry, (0.8, INF, 2), "dry_base"),
        (penalize_dry, (0.8, 1.75, 0), "dry_allowed_length"),
    ],
)
def test_a_value_out_of_range_is_refused_in_one_line(function, values, name):
    with pytest.raises(ConfigError, match=f"`{name}` must be.*Received") as caught:
        function(np.zeros((1, 4), np.float32), as_history([1, 2]), *values)
    assert "\n" not in str(caught.value)
