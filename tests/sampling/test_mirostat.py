"""Mirostat, compared with a naive loop, and its convergence to the target."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from textgen.errors import ConfigError
from textgen.sampling import keep_surprise_below, next_mu, pick, row_uniforms


def log_rows(*rows):
    with np.errstate(divide="ignore"):
        return np.log(np.array(rows)).astype(np.float32)


def survivors(logits):
    return [np.flatnonzero(np.isfinite(row)).tolist() for row in logits]


def test_a_surprise_of_at_most_mu_bits_is_kept_in_every_row():
    row = (0.5, 0.25, 0.125, 0.125, 0.0)  # 1, 2, 3 and 3 bits, and infinitely many
    mu = np.array([0.5, 1.0, 1.99, 2.0, 3.0, 99.0, -7.0])
    kept = [[0], [0], [0], [0, 1], [0, 1, 2, 3], [0, 1, 2, 3], [0]]
    assert survivors(keep_surprise_below(log_rows(*[row] * 7), mu)) == kept


def test_the_lower_id_of_the_most_probable_tokens_survives_a_bound_that_none_meets():
    logits = log_rows((0.2, 0.4, 0.4))
    assert survivors(keep_surprise_below(logits, np.array([0.1]))) == [[1]]


def test_the_bound_moves_against_the_error():
    mu, surprise = np.array([10.0, 10.0, 10.0]), np.array([5.0, 7.0, 2.0])
    assert next_mu(mu, surprise, 5.0, 0.5).tolist() == [10.0, 9.0, 11.5]
    assert mu.tolist() == [10.0, 10.0, 10.0]
    assert surprise.tolist() == [5.0, 7.0, 2.0]


@given(
    st.lists(st.lists(st.integers(-6, 6), min_size=5, max_size=5), min_size=1, max_size=4),
    st.lists(st.sampled_from([-1.0, 0.3, 1.1, 2.7, 5.3]), min_size=4, max_size=4),
)
def test_the_kept_set_is_that_of_the_naive_loop_and_arguments_do_not_change(values, bounds):
    logits = np.array(values, np.float32) / 2
    before, mu = logits.copy(), np.array(bounds[: len(values)])
    result = keep_surprise_below(logits, mu)
    for row, bound, kept in zip(logits.astype(np.float64), mu, survivors(result), strict=True):
        surprises = -np.log2(np.exp(row) / np.exp(row).sum())
        best = int(row.argmax())
        assert kept == [i for i, x in enumerate(surprises) if x <= bound or i == best]
    assert result.dtype == logits.dtype
    assert np.all((result == logits) | (result == -np.inf))
    np.testing.assert_array_equal(logits, before)
    np.testing.assert_array_equal(mu, bounds[: len(values)])


@pytest.mark.parametrize("tau", [1.0, 2.5, 4.0])
def test_the_mean_surprise_converges_to_the_target(tau):
    probs = 1.0 / np.arange(1, 501)  # Zipf's law, 6.7 bits of entropy
    logits = log_rows(probs / probs.sum())
    bits = -np.log2(probs / probs.sum())
    uniforms, mu, seen = row_uniforms(seed=1, sample_index=0), np.array([2 * tau]), []
    for _ in range(2000):
        token_ids = pick(keep_surprise_below(logits, mu), np.array([next(uniforms)]))
        seen.append(bits[token_ids])
        mu = next_mu(mu, seen[-1], tau, 0.1)
    assert abs(np.mean(seen) - tau) < max(0.05, bits.min() - tau + 0.05)


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (lambda row: keep_surprise_below(row, np.array([1.0, 2.0])), "mu"),
        (lambda row: keep_surprise_below(row, np.array(1.0)), "mu"),
        (lambda row: keep_surprise_below(row, np.array([np.nan])), "mu"),
        (lambda row: next_mu(np.ones(1), np.ones(1), 0.0, 0.1), "mirostat"),
        (lambda row: next_mu(np.ones(1), np.ones(1), float("nan"), 0.1), "mirostat"),
        (lambda row: next_mu(np.ones(1), np.ones(1), 3.0, 0.0), "mirostat_rate"),
        (lambda row: next_mu(np.ones(1), np.ones(1), 3.0, float("inf")), "mirostat_rate"),
    ],
)
def test_a_value_out_of_range_is_refused_in_one_line(call, name):
    with pytest.raises(ConfigError, match=f"`{name}`.*Received") as caught:
        call(log_rows((0.5, 0.5)))
    assert "\n" not in str(caught.value)
