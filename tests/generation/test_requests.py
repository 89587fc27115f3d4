"""Requests: defaults, and the checks of their types and limits."""

from typing import get_args

import numpy as np
import pytest

from textgen.config import SamplingConfig
from textgen.errors import ConfigError
from textgen.generation import Request
from textgen.generation.requests import FinishReason
from textgen.generation.stopping import StopReason


def test_a_request_has_the_default_settings_and_is_the_first_sample():
    assert Request() == Request(prompt="", sampling=SamplingConfig(), sample_index=0)


def test_numpy_integers_become_python_integers():
    request = Request(sample_index=np.int64(3))
    assert request == Request(sample_index=3)
    assert type(request.sample_index) is int


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("prompt", None),
        ("prompt", b"bytes"),
        ("sampling", {"top_k": 3}),
        ("sampling", None),
        ("sample_index", -1),
        ("sample_index", 2**63),
        ("sample_index", 1.0),
        ("sample_index", True),
    ],
)
def test_a_wrong_type_or_index_is_refused_in_one_line(name, value):
    with pytest.raises(ConfigError, match=rf"`{name}` must be .*Received: ") as error:
        Request(**{name: value})
    assert "\n" not in str(error.value)


def test_every_reason_of_a_stop_condition_is_a_finish_reason():
    assert set(get_args(FinishReason)) == {"length", "constraint", *get_args(StopReason)}
