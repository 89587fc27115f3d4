"""Limits: which numbers they accept, and how they read."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from textgen.config.limits import (
    AT_LEAST_ONE,
    BELOW_ONE,
    FINITE,
    POSITIVE,
    POSITIVE_FRACTION,
    Limits,
)


@pytest.mark.parametrize(
    "limits, accepted, refused, words",
    [
        (AT_LEAST_ONE, (1, 1.5, 1e300), (0, 0.999, -1), "at least 1"),
        (POSITIVE, (1e-300, 5), (0, -1e-300), "greater than 0"),
        (BELOW_ONE, (0, 0.999), (1, -0.001), "in [0, 1)"),
        (POSITIVE_FRACTION, (1e-9, 1), (0, 1.001), "in (0, 1]"),
        (FINITE, (-1e300, 0), (), "a finite number"),
        (Limits(maximum=65_536), (65_536, -9), (65_537,), "at most 65,536"),
        (Limits(minimum=2, maximum=3), (2, 3), (1, 4), "in [2, 3]"),
    ],
)
def test_limits_accept_and_read_as_they_say(limits, accepted, refused, words):
    assert all(limits.accepts(value) for value in accepted)
    assert not any(limits.accepts(value) for value in refused)
    assert str(limits) == words


@given(st.sampled_from([AT_LEAST_ONE, POSITIVE, BELOW_ONE, POSITIVE_FRACTION, FINITE]))
def test_nan_and_infinity_are_never_accepted(limits):
    assert not any(limits.accepts(float(value)) for value in ("nan", "inf", "-inf"))
