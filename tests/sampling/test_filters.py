"""Filters, compared with naive loops and hand-computed sets."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from textgen.errors import ConfigError
from textgen.sampling import (
    add_bias,
    exclude_top_choices,
    keep_min_p,
    keep_top_k,
    keep_top_n_sigma,
    keep_top_p,
    keep_typical,
    log_softmax,
    pick,
    row_uniforms,
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
def test_top_k_keeps_exactly_k_and_ties_go_to_the_lower_ids(probs, k, kept):
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
def test_top_p_is_that_of_the_naive_loop_in_every_row(logits, p):
    assert survivors(keep_top_p(logits, p)) == [naive_top_p(row, p) for row in logits]


@given(rows, st.integers(1, 7))
def test_top_k_is_that_of_a_stable_sort_in_every_row(logits, k):
    expected = [sorted(np.argsort(-row, kind="stable")[:k].tolist()) for row in logits]
    assert survivors(keep_top_k(logits, k)) == expected


@given(rows, st.integers(1, 5), st.floats(0.05, 1.0), st.floats(0.1, 3.0))
def test_top_k_top_p_temperature_and_bias_do_not_change_their_arguments(logits, k, p, temperature):
    before = logits.copy()
    for result in (keep_top_k(logits, k), keep_top_p(logits, p)):
        assert result.dtype == logits.dtype
        assert np.all((result == logits) | (result == -INF))
    np.testing.assert_allclose(scale_by_temperature(logits, temperature) * temperature, before)
    bias = np.full(logits.shape[1], 0.5, logits.dtype)
    bias[[1, 3]] = -INF
    np.testing.assert_array_equal(add_bias(logits, bias), before + bias)
    np.testing.assert_array_equal(logits, before)


def test_at_a_vanishing_temperature_only_the_most_probable_token_has_probability():
    scaled = scale_by_temperature(np.array([[1.0, 1.001, -50.0]], np.float32), 1e-300)
    assert np.isfinite(scaled).all()
    assert survivors(keep_top_p(scaled, 0.999999)) == [[1]]


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (lambda row: keep_top_k(row, 0), "top_k"),
        (lambda row: keep_top_k(row, 2.5), "top_k"),
        (lambda row: keep_top_k(row, None), "top_k"),
        (lambda row: keep_top_p(row, 0.0), "top_p"),
        (lambda row: keep_top_p(row, 1.1), "top_p"),
        (lambda row: keep_top_p(row, float("nan")), "top_p"),
        (lambda row: keep_top_p(row, [0.5]), "top_p"),
        (lambda row: keep_min_p(row, 0.0), "min_p"),
        (lambda row: keep_min_p(row, 1.5), "min_p"),
        (lambda row: keep_min_p(row, float("nan")), "min_p"),
        (lambda row: keep_typical(row, 0.0), "typical_p"),
        (lambda row: keep_typical(row, 1.5), "typical_p"),
        (lambda row: keep_typical(row, float("nan")), "typical_p"),
        (lambda row: keep_top_n_sigma(row, 0.0), "top_n_sigma"),
        (lambda row: keep_top_n_sigma(row, float("inf")), "top_n_sigma"),
        (lambda row: keep_top_n_sigma(row, float("nan")), "top_n_sigma"),
        (lambda row: exclude_top_choices(row, np.zeros(1), 0.5, 0.0), "xtc_threshold"),
        (lambda row: exclude_top_choices(row, np.zeros(1), 0.5, 1.1), "xtc_threshold"),
        (lambda row: exclude_top_choices(row, np.zeros(1), 0.0, 0.1), "xtc_probability"),
        (lambda row: exclude_top_choices(row, np.zeros(1), float("nan"), 0.1), "xtc_probability"),
        (lambda row: scale_by_temperature(row, 0.0), "temperature"),
        (lambda row: scale_by_temperature(row, "auto"), "temperature"),
        (lambda row: scale_by_temperature(row, float("nan")), "temperature"),
        (lambda row: add_bias(row, np.zeros(3, np.float32)), "bias"),
        (lambda row: add_bias(row, np.full(2, -INF, np.float32)), "bias"),
        (lambda row: add_bias(row, np.float32([0, np.nan])), "bias"),
        (lambda row: add_bias(row, np.float32([0, INF])), "bias"),
    ],
)
def test_a_value_out_of_range_or_of_another_type_is_refused_in_one_line(call, name):
    with pytest.raises(ConfigError, match=f"`{name}` must.*Received") as caught:
        call(log_row(0.5, 0.5))
    assert "\n" not in str(caught.value)


def test_log_softmax_is_computed_in_float64_along_the_last_axis():
    random = np.random.default_rng(3)
    logits = random.normal(0, 20, (3, 4, 7)).astype(np.float32)
    logits[0, 0, 2] = -INF
    before = logits.copy()
    log_probs = log_softmax(logits)
    for row, values in zip(logits.reshape(-1, 7), log_probs.reshape(-1, 7), strict=True):
        total = math.fsum(math.exp(float(x) - float(row.max())) for x in row)
        expected = [float(x) - float(row.max()) - math.log(total) for x in row]
        np.testing.assert_allclose(values, expected, rtol=1e-14, atol=1e-13)
    assert log_probs.dtype == np.float64
    np.testing.assert_array_equal(logits, before)


@pytest.mark.parametrize(
    ("probs", "p", "kept"),
    [
        ((0.5, 0.25, 0.125, 0.125), 0.5, [0, 1]),
        ((0.5, 0.25, 0.125, 0.125), 0.51, [0]),
        ((0.5, 0.25, 0.125, 0.125), 0.25, [0, 1, 2, 3]),
        ((0.1, 0.6, 0.3, 0.0), 0.1, [0, 1, 2]),
        ((0.1, 0.6, 0.3, 0.0), 0.2, [1, 2]),
        ((0.4, 0.2, 0.4, 0.0), 1.0, [0, 2]),
        ((0.25, 0.25, 0.25, 0.25), 1.0, [0, 1, 2, 3]),
    ],
)
def test_min_p_keeps_ratios_of_at_least_p(probs, p, kept):
    assert survivors(keep_min_p(log_row(*probs), p)) == [kept]


# (0.6, 0.2, 0.1, 0.1): entropy 1.0889 nats; surprises 0.511, 1.609, 2.303, 2.303; distances 0.578,
# 0.521, 1.214, 1.214, so the second token is the most typical.
@pytest.mark.parametrize(
    ("probs", "p", "kept"),
    [
        ((0.6, 0.2, 0.1, 0.1), 0.1, [1]),
        ((0.6, 0.2, 0.1, 0.1), 0.2, [1]),
        ((0.6, 0.2, 0.1, 0.1), 0.21, [0, 1]),
        ((0.6, 0.2, 0.1, 0.1), 0.8, [0, 1]),
        ((0.6, 0.2, 0.1, 0.1), 0.85, [0, 1, 2]),
        ((0.6, 0.2, 0.1, 0.1), 1.0, [0, 1, 2, 3]),
        ((0.0, 0.5, 0.0, 0.5), 0.5, [1]),
        ((0.25, 0.25, 0.25, 0.25), 0.5, [0, 1]),
    ],
)
def test_typical_keeps_the_tokens_nearest_to_the_entropy(probs, p, kept):
    assert survivors(keep_typical(log_row(*probs), p)) == [kept]


@pytest.mark.parametrize(
    ("values", "n", "kept"),
    [
        ((0.0, 2.0), 2.0, [0, 1]),
        ((0.0, 2.0), 1.99, [1]),
        # Mean 2, population standard deviation 2; divided by 3 it would be 2.31.
        ((0.0, 0.0, 4.0, 4.0), 2.0, [0, 1, 2, 3]),
        ((0.0, 0.0, 4.0, 4.0), 1.8, [2, 3]),
        ((-INF, 0.0, 2.0, -INF), 1.5, [2]),
        ((-INF, 0.0, 2.0, -INF), 2.0, [1, 2]),
        ((-INF, 5.0, -INF), 0.1, [1]),
        ((3.0, 3.0, 3.0), 0.1, [0, 1, 2]),
    ],
)
def test_top_n_sigma_measures_in_deviations_of_the_finite_logits(values, n, kept):
    logits = np.array([values], np.float32)
    assert survivors(keep_top_n_sigma(logits, n)) == [kept]
    assert survivors(keep_top_n_sigma(logits * 1e30, n)) == [kept]


@pytest.mark.parametrize(
    ("probs", "threshold", "kept"),
    [
        ((0.4, 0.3, 0.2, 0.1), 0.15, [2, 3]),
        ((0.4, 0.3, 0.2, 0.1), 0.2, [2, 3]),
        ((0.4, 0.3, 0.2, 0.1), 0.1, [3]),
        ((0.4, 0.3, 0.2, 0.1), 0.35, [0, 1, 2, 3]),
        ((0.4, 0.3, 0.2, 0.1), 0.45, [0, 1, 2, 3]),
        ((0.3, 0.4, 0.3, 0.0), 0.3, [0]),
        ((0.5, 0.5), 0.5, [0]),
        ((0.5, 0.5), 0.6, [0, 1]),
    ],
)
def test_xtc_keeps_the_least_probable_top_choice(probs, threshold, kept):
    logits = np.repeat(log_row(*probs), 3, axis=0)
    result = exclude_top_choices(logits, np.array([0.0, 0.4999, 0.5]), 0.5, threshold)
    untouched = survivors(logits)[0]
    assert survivors(result) == [kept, kept, untouched]


def naive_min_p(row, p):
    probs = np.exp(row.astype(np.float64) - row.max())
    return [i for i in range(len(row)) if probs[i] >= p * (1 - 1e-6)]


def naive_typical(row, p):
    probs = np.exp(row.astype(np.float64) - row.max())
    probs /= probs.sum()
    entropy = -sum(x * np.log(x) for x in probs)
    kept, mass = [], 0.0
    for token_id in sorted(range(len(row)), key=lambda i: (abs(-np.log(probs[i]) - entropy), i)):
        if mass >= p * (1 - 1e-6):
            break
        kept.append(token_id)
        mass += probs[token_id]
    return sorted(kept)


def naive_top_n_sigma(row, n):
    values = [float(x) for x in row]
    mean = sum(values) / len(values)
    sigma = (sum((x - mean) ** 2 for x in values) / len(values)) ** 0.5
    return [i for i, x in enumerate(values) if max(values) - x <= n * sigma * (1 + 1e-6)]


def naive_exclude(row, threshold, acts):
    probs = np.exp(row.astype(np.float64) - row.max())
    probs /= probs.sum()
    top = [i for i in range(len(row)) if probs[i] >= threshold * (1 - 1e-6)]
    if not acts or len(top) < 2:
        return list(range(len(row)))
    spared = min(top, key=lambda i: (row[i], i))
    return [i for i in range(len(row)) if i not in top or i == spared]


@given(rows, st.sampled_from([0.01, 0.05, 0.3, 0.5, 0.77, 1.0]))
def test_min_p_is_that_of_the_naive_loop_in_every_row(logits, p):
    assert survivors(keep_min_p(logits, p)) == [naive_min_p(row, p) for row in logits]


def test_typical_is_that_of_the_naive_loop_in_every_row():
    # Random logits: on a grid, tokens equally far above and below the entropy are ties, which
    # the two computations round differently.
    logits = np.random.default_rng(5).normal(0, 2, (500, 9)).astype(np.float32)
    for p in (0.01, 0.3, 0.5, 0.77, 0.9, 0.999):
        assert survivors(keep_typical(logits, p)) == [naive_typical(row, p) for row in logits]


@given(rows, st.sampled_from([0.1, 0.5, 1.0, 1.5, 3.0]))
def test_top_n_sigma_is_that_of_the_naive_loop_in_every_row(logits, n):
    assert survivors(keep_top_n_sigma(logits, n)) == [naive_top_n_sigma(row, n) for row in logits]


@given(rows, st.sampled_from([0.05, 0.1, 0.2, 0.5]), st.floats(0.01, 1.0), st.integers(0, 99))
def test_xtc_is_that_of_the_naive_loop_in_every_row(logits, threshold, probability, seed):
    uniforms = np.random.default_rng(seed).random(len(logits))
    expected = [
        naive_exclude(row, threshold, uniform < probability)
        for row, uniform in zip(logits, uniforms, strict=True)
    ]
    assert survivors(exclude_top_choices(logits, uniforms, probability, threshold)) == expected


@given(rows, st.floats(0.01, 1.0), st.floats(0.01, 5.0))
def test_filters_keep_a_token_and_do_not_change_their_arguments(logits, p, n):
    before, uniforms = logits.copy(), np.zeros(len(logits))
    for result in (
        keep_min_p(logits, p),
        keep_typical(logits, p),
        keep_top_n_sigma(logits, n),
        exclude_top_choices(logits, uniforms, 1.0, p),
    ):
        assert result.dtype == logits.dtype
        assert np.all((result == logits) | (result == -INF))
        assert np.isfinite(result).any(axis=-1).all()
    np.testing.assert_array_equal(logits, before)
    np.testing.assert_array_equal(uniforms, 0)


# By degrees of freedom: 1 seed in 1,000 is below the first value, and 1 in 1,000 above the second.
CHI_SQUARE = {1: (1.5e-6, 10.83), 2: (0.002, 13.82), 3: (0.0242, 16.27), 4: (0.09, 18.47)}


@pytest.mark.parametrize(
    ("process", "expected"),
    [
        (lambda row: keep_top_k(row, 3), (0.4, 0.25, 0.0, 0.2, 0.0, 0.0)),
        (lambda row: keep_top_p(row, 0.9), (0.4, 0.25, 0.1, 0.2, 0.0, 0.0)),
        (lambda row: keep_min_p(row, 0.5), (0.4, 0.25, 0.0, 0.2, 0.0, 0.0)),
        # Entropy 1.415 nats; surprises 0.916, 1.386, 2.303, 1.609, 3.219, 4.605.
        (lambda row: keep_typical(row, 0.4), (0.0, 0.25, 0.0, 0.2, 0.0, 0.0)),
        (lambda row: keep_typical(row, 0.6), (0.4, 0.25, 0.0, 0.2, 0.0, 0.0)),
        # The standard deviation of the logits is 1.263.
        (lambda row: keep_top_n_sigma(row, 1.5), (0.4, 0.25, 0.1, 0.2, 0.0, 0.0)),
        (
            lambda row: exclude_top_choices(row, np.zeros(1), 0.5, 0.15),
            (0.0, 0.0, 0.1, 0.2, 0.04, 0.01),
        ),
    ],
)
def test_100000_draws_follow_the_filtered_distribution(process, expected):
    logits = process(log_row(0.4, 0.25, 0.1, 0.2, 0.04, 0.01))
    uniforms = np.array(list(itertools.islice(row_uniforms(seed=3, sample_index=0), 100_000)))
    counts = np.bincount(pick(np.repeat(logits, 100_000, axis=0), uniforms), minlength=6)
    possible = np.array(expected) > 0
    assert counts[~possible].sum() == 0
    wanted = 100_000 * np.array(expected)[possible] / sum(expected)
    chi_square = float(((counts[possible] - wanted) ** 2 / wanted).sum())
    low, high = CHI_SQUARE[possible.sum() - 1]
    assert low < chi_square < high
