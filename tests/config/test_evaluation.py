"""Settings of dynamic evaluation."""

import pytest

from textgen.config import DynamicConfig
from textgen.errors import ConfigError


@pytest.mark.parametrize(
    "settings",
    [
        {"segment": 0},
        {"learning_rate": -1e-9},
        {"learning_rate": float("inf")},
        {"clip_norm": 0},
        {"pull": 1.001},
        {"pull": -0.001},
    ],
)
def test_values_out_of_range_are_refused_by_name(settings):
    (name,) = settings
    with pytest.raises(ConfigError, match=f"`{name}` must be"):
        DynamicConfig(**settings)


def test_values_at_the_limits_are_accepted():
    config = DynamicConfig(segment=1, learning_rate=0, clip_norm=None, pull=1)
    assert (config.segment, config.pull, config.clip_norm) == (1, 1, None)
