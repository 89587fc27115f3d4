"""Limits of what one call may ask for."""

import pytest

from textgen.config import (
    LengthPenalty,
    NumAlternatives,
    NumBeams,
    NumSamples,
    Passes,
    check_argument,
)
from textgen.errors import ConfigError


@pytest.mark.parametrize(
    "hint, low, high",
    [(NumSamples, 1, 100_000), (NumAlternatives, 0, 1_000), (NumBeams, 1, 512), (Passes, 1, 1_000)],
)
def test_counts_are_limited_on_both_sides(hint, low, high):
    assert [check_argument(value, hint, "count") for value in (low, high)] == [low, high]
    for value in (low - 1, high + 1, 1.5, "1", None, True):
        with pytest.raises(ConfigError, match="`count` must be"):
            check_argument(value, hint, "count")


@pytest.mark.parametrize("value", [-0.1, float("inf"), float("nan"), "1"])
def test_a_length_penalty_is_a_finite_number_of_at_least_0(value):
    assert check_argument(0, LengthPenalty, "length_penalty") == 0
    with pytest.raises(ConfigError, match="`length_penalty` must be"):
        check_argument(value, LengthPenalty, "length_penalty")
