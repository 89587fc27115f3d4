"""Drawing: frequencies, edges of the CDF, and the random streams."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from textgen.errors import ConfigError
from textgen.sampling import pick, pick_greedy, row_uniforms


def take(iterator, count):
    return list(itertools.islice(iterator, count))


def test_100000_draws_follow_softmax():
    logits = np.array([[2.0, 0.0, -1.0, 1.0, -np.inf, 0.5]], np.float32)
    probs = np.exp(logits[0].astype(np.float64))
    probs /= probs.sum()
    uniforms = np.array(take(row_uniforms(seed=3, sample_index=0), 100_000))
    counts = np.bincount(pick(np.repeat(logits, 100_000, axis=0), uniforms), minlength=6)
    assert counts[4] == 0
    expected = 100_000 * probs[probs > 0]
    chi_square = float(((counts[probs > 0] - expected) ** 2 / expected).sum())
    # 4 degrees of freedom: 1 seed in 1,000 is above 18.47, and 1 in 1,000 below 0.09.
    assert 0.09 < chi_square < 18.47


@given(
    st.lists(st.sampled_from([-np.inf, -800.0, -30.0, 0.0, 2.5]), min_size=1, max_size=8),
    st.integers(0, 7),
    st.sampled_from([0.0, 2.0**-53, 0.3, 0.5, 1 - 2.0**-53]),
)
def test_a_token_of_probability_0_is_never_drawn(values, top, uniform):
    logits = np.array([values], np.float32)
    logits[0, top % len(values)] = 3.0
    probability = np.exp(logits[0].astype(np.float64) - 3.0)
    assert probability[pick(logits, np.array([uniform]))[0]] > 0


def test_the_largest_uniform_draws_the_last_possible_token():
    last = 1 - 2.0**-53
    for size in range(1, 200):
        logits = np.zeros((1, size + 1), np.float32)
        logits[0, size] = -np.inf
        assert pick(logits, np.array([last])).tolist() == [size - 1]
        assert pick(logits, np.array([0.0])).tolist() == [0]


def test_pick_inverts_the_cumulative_distribution():
    logits = np.log(np.array([[0.25, 0.5, 0.25]] * 5))
    uniforms = np.array([0.0, 0.2499, 0.2501, 0.7499, 0.7501])
    assert pick(logits, uniforms).tolist() == [0, 0, 1, 1, 2]


def test_greedy_ties_go_to_the_lower_id():
    logits = np.array([[0, 5, 5, 1], [-np.inf, -3, -np.inf, -3]], np.float32)
    token_ids = pick_greedy(logits)
    assert token_ids.tolist() == [1, 1]
    assert token_ids.dtype == np.int32


def test_samples_and_seeds_have_different_streams_in_the_unit_interval():
    streams = [
        tuple(take(row_uniforms(seed, index), 300))
        for seed in (0, 1, 2**64 - 1)
        for index in (0, 1)
    ]
    assert len(set(streams)) == 6
    assert all(0 <= value < 1 for values in streams for value in values)


def test_uniforms_are_philox_keyed_by_seed_and_sample_index():
    words = np.random.Philox(key=np.array([5, 2], np.uint64)).random_raw(300)
    expected = (words >> np.uint64(11)) * 2.0**-53
    assert take(row_uniforms(seed=5, sample_index=2), 300) == expected.tolist()


@pytest.mark.parametrize(
    ("seed", "index", "name"),
    [
        (-1, 0, "seed"),
        (2**64, 0, "seed"),
        (1.5, 0, "seed"),
        (0, -1, "sample_index"),
        (0, 2**64, "sample_index"),
    ],
)
def test_a_seed_or_index_out_of_range_is_refused_at_once(seed, index, name):
    with pytest.raises(ConfigError, match=rf"`{name}` must be .*Received: "):
        row_uniforms(seed, index)
