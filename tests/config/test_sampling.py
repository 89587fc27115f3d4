"""Settings of a request: biases, and values that depend on each other."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from textgen.config import SamplingConfig, parse_bias
from textgen.errors import ConfigError


@given(
    st.text(min_size=1),
    st.floats(allow_nan=False, allow_infinity=False),
)
def test_a_bias_is_split_at_its_last_equals_sign(text, nats):
    assert parse_bias(f"{text}={nats!r}") == (text, nats)


@pytest.mark.parametrize("pair", ["", "the", "=1", "the=", "the=x", "the=nan", "the=inf"])
def test_other_texts_are_no_bias(pair):
    with pytest.raises(ValueError):
        parse_bias(pair)
    with pytest.raises(ConfigError, match="`bias` must be TEXT=NATS"):
        SamplingConfig(bias=(pair,) if pair else ("x",))


def test_the_temperature_cannot_move_from_zero():
    with pytest.raises(ConfigError, match="`final_temperature` must be None at temperature 0"):
        SamplingConfig(temperature=0, final_temperature=0.5)
    assert SamplingConfig(temperature="auto", final_temperature=0.5).temperature == "auto"
