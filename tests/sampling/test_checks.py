"""Checks of sampling settings that arrive as arguments."""

import numpy as np
import pytest

from textgen.config import SamplingConfig
from textgen.errors import ConfigError
from textgen.sampling.checks import check_sampling


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("top_k", 0),
        ("top_k", True),
        ("top_k", 1.0),
        ("top_p", 1.5),
        ("top_p", "0.5"),
        ("top_p", []),
    ],
)
def test_the_error_is_that_of_the_configuration_at_every_call(name, value):
    with pytest.raises(ConfigError) as expected:
        SamplingConfig(**{name: value})
    for _ in range(2):
        with pytest.raises(ConfigError) as error:
            check_sampling(name, value)
        assert str(error.value) == str(expected.value)


@pytest.mark.parametrize("value", [1, np.int64(1), np.int32(7), 10**9])
def test_an_accepted_value_stays_accepted_and_an_equal_one_of_another_type_is_checked(value):
    for _ in range(2):
        check_sampling("top_k", value)
    with pytest.raises(ConfigError, match=r"`top_k` must be an integer"):
        check_sampling("top_k", float(value))


def test_none_is_refused():
    with pytest.raises(ConfigError, match=r"`top_k` must have a value\. Received: None"):
        check_sampling("top_k", None)
