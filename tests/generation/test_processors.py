import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from textgen.config import SamplingConfig
from textgen.errors import ConfigError
from textgen.generation import (
    ban_tokens,
    build_processors,
    keep_top_k,
    keep_top_p,
    scale_by_temperature,
)

INF = np.inf


def log_row(*probs):
    with np.errstate(divide="ignore"):
        return np.log(np.array([probs])).astype(np.float32)


def survivors(logits):
    return [np.flatnonzero(np.isfinite(row)).tolist() for row in logits]


@pytest.mark.parametrize(
    ("probs", "p", "kept"),
    [
        ((0.5, 0.25, 0.125, 0.125), 0.5, [0]),
        ((0.5, 0.25, 0.125, 0.125), 0.51, [0, 1]),
        ((0.5, 0.25, 0.125, 0.125), 0.75, [0, 1]),
        ((0.5, 0.25, 0.125, 0.125), 0.8, [0, 1, 2]),
        ((0.5, 0.25, 0.125, 0.125), 0.875, [0, 1, 2]),
        ((0.5, 0.25, 0.125, 0.125), 1.0, [0, 1, 2, 3]),
        ((0.1, 0.2, 0.7), 0.7, [2]),
        ((0.1, 0.2, 0.7), 0.9, [1, 2]),
        ((0.25, 0.25, 0.25, 0.25), 0.5, [0, 1]),
        ((0.25, 0.25, 0.25, 0.25), 1e-9, [0]),
        ((0.0, 0.5, 0.0, 0.5), 0.6, [1, 3]),
        ((0.0, 0.5, 0.0, 0.5), 1.0, [1, 3]),
    ],
)
def test_top_p_keeps_the_hand_computed_set(probs, p, kept):
    assert survivors(keep_top_p(log_row(*probs), p)) == [kept]


@pytest.mark.parametrize(
    ("probs", "k", "kept"),
    [
        ((0.1, 0.4, 0.2, 0.3), 1, [1]),
        ((0.1, 0.4, 0.2, 0.3), 2, [1, 3]),
        ((0.2, 0.2, 0.4, 0.2), 2, [0, 2]),
        ((0.2, 0.2, 0.4, 0.2), 3, [0, 1, 2]),
        ((0.25, 0.25, 0.25, 0.25), 3, [0, 1, 2]),
        ((0.0, 0.6, 0.0, 0.4), 3, [1, 3]),
        ((0.3, 0.7), 2, [0, 1]),
        ((0.3, 0.7), 99, [0, 1]),
    ],
)
def test_top_k_keeps_exactly_k_and_prefers_lower_ids(probs, k, kept):
    assert survivors(keep_top_k(log_row(*probs), k)) == [kept]


def naive_top_p(row, p):
    probs = np.exp(row.astype(np.float64) - row.max())
    probs /= probs.sum()
    kept, mass = [], 0.0
    for token_id in sorted(range(len(row)), key=lambda i: (-row[i], i)):
        if mass >= p * (1 - 1e-6):
            break
        kept.append(token_id)
        mass += probs[token_id]
    return sorted(kept)


rows = st.lists(st.lists(st.integers(-6, 6), min_size=5, max_size=5), min_size=1, max_size=4).map(
    lambda values: np.array(values, np.float32) / 2
)


@given(rows, st.sampled_from([0.01, 0.3, 0.5, 0.77, 0.9, 0.999]))
def test_top_p_equals_the_naive_loop_in_every_row(logits, p):
    assert survivors(keep_top_p(logits, p)) == [naive_top_p(row, p) for row in logits]


@given(rows, st.integers(1, 7))
def test_top_k_equals_a_stable_sort_in_every_row(logits, k):
    expected = [sorted(np.argsort(-row, kind="stable")[:k].tolist()) for row in logits]
    assert survivors(keep_top_k(logits, k)) == expected


@given(rows, st.integers(1, 5), st.floats(0.05, 1.0), st.floats(0.1, 3.0))
def test_processors_are_pure_and_keep_surviving_values(logits, k, p, temperature):
    before = logits.copy()
    for result in (keep_top_k(logits, k), keep_top_p(logits, p)):
        assert result.dtype == logits.dtype
        assert np.all((result == logits) | (result == -INF))
    np.testing.assert_allclose(scale_by_temperature(logits, temperature) * temperature, before)
    assert ban_tokens(logits, (1, 3)).tolist() == [
        [-INF if i in (1, 3) else x for i, x in enumerate(row)] for row in before.tolist()
    ]
    np.testing.assert_array_equal(logits, before)


def test_a_vanishing_temperature_leaves_the_most_probable_token_alone():
    scaled = scale_by_temperature(np.array([[1.0, 1.001, -50.0]], np.float32), 1e-300)
    assert np.isfinite(scaled).all()
    assert survivors(keep_top_p(scaled, 0.999999)) == [[1]]


def test_steps_print_their_order_and_greedy_needs_only_the_ban():
    config = SamplingConfig(temperature=0.5, top_k=40, top_p=0.9)
    assert [str(step) for step in build_processors(config, (0, 2))] == [
        "ban_tokens((0, 2))",
        "scale_by_temperature(0.5)",
        "keep_top_k(40)",
        "keep_top_p(0.9)",
    ]
    greedy = SamplingConfig(temperature=0, top_k=3, top_p=0.5)
    assert [step.name for step in build_processors(greedy, (1,))] == ["ban_tokens"]
    assert build_processors(greedy) == ()


def test_top_p_measures_mass_among_the_tokens_that_top_k_left():
    config = SamplingConfig(temperature=1.0, top_k=2, top_p=0.6)
    logits = log_row(0.4, 0.2, 0.2, 0.2)
    for step in build_processors(config):
        logits = step(logits)
    assert survivors(logits) == [[0]]


@pytest.mark.parametrize(
    "call",
    [
        lambda row: keep_top_k(row, 0),
        lambda row: keep_top_p(row, 0.0),
        lambda row: keep_top_p(row, 1.1),
        lambda row: keep_top_p(row, float("nan")),
        lambda row: scale_by_temperature(row, 0.0),
        lambda row: scale_by_temperature(row, float("nan")),
        lambda row: ban_tokens(row, (2,)),
        lambda row: ban_tokens(row, (-1,)),
        lambda row: ban_tokens(row, (0, 1)),
    ],
)
def test_a_value_out_of_range_is_refused_in_one_line(call):
    with pytest.raises(ConfigError, match="Received") as caught:
        call(log_row(0.5, 0.5))
    assert "\n" not in str(caught.value)
