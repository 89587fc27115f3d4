"""Checks of types and limits, and the way back from JSON values."""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import pytest

from textgen.config import (
    CorpusConfig,
    DynamicConfig,
    ModelConfig,
    SamplingConfig,
    TokenizerConfig,
    TrainingConfig,
    check_setting,
    check_settings,
    choices_of,
    convert,
    describe_setting,
    from_values,
)
from textgen.config.limits import Limits
from textgen.errors import ConfigError

CONFIGS = [
    CorpusConfig,
    DynamicConfig,
    ModelConfig,
    SamplingConfig,
    TokenizerConfig,
    TrainingConfig,
]


@dataclass(frozen=True, kw_only=True)
class Example:
    count: Annotated[int | None, Limits(minimum=1)] = None
    share: Annotated[float | Literal["auto"], Limits(above=0, below=1)] = 0.5
    words: tuple[str, ...] = ()
    on: bool = False

    def __post_init__(self):
        check_settings(self)


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"count": 1.0}, "`count` must be an integer, or None. Received: 1.0 (float)."),
        ({"count": True}, "`count` must be an integer, or None. Received: True (bool)."),
        ({"count": 0}, "`count` must be at least 1. Received: 0."),
        ({"share": "0.5"}, "`share` must be a number or auto. Received: '0.5'."),
        (
            {"share": "Auto"},
            "`share` must be a number or auto. Received: 'Auto'. Did you mean auto?",
        ),
        ({"share": 1}, "`share` must be in (0, 1). Received: 1."),
        ({"share": float("inf")}, "`share` must be in (0, 1). Received: inf."),
        ({"words": "a"}, "`words` must be a list, each entry a string. Received: 'a'."),
        ({"words": [1]}, "`words` must be a list, each entry a string. Received: [1] (list)."),
        ({"on": 1}, "`on` must be True or False. Received: 1 (int)."),
    ],
)
def test_a_wrong_value_is_described(settings, message):
    with pytest.raises(ConfigError) as caught:
        Example(**settings)
    assert str(caught.value) == message


def test_numpy_numbers_lists_and_paths_become_plain_values():
    example = Example(count=np.int32(3), share=np.float32(0.25), words=["a"], on=np.bool_(True))
    assert example == Example(count=3, share=0.25, words=("a",), on=True)
    assert [type(value) for value in (example.count, example.share, example.on)] == [
        int,
        float,
        bool,
    ]
    assert convert(Path("a/b"), str, "source") == "a/b"


def test_one_setting_is_checked_as_in_its_class():
    check_setting(Example, "count", 4)
    check_setting(Example, "count", None)
    with pytest.raises(ConfigError, match="`count` must be at least 1"):
        check_setting(Example, "count", 0)


def test_a_setting_is_described_with_its_limits_and_choices():
    assert describe_setting(Example, "count") == ("an integer of at least 1, or None", ())
    assert describe_setting(Example, "share") == ("a number in (0, 1) or auto", ("auto",))
    assert choices_of(ModelConfig, "cell") == ("gru", "lstm", "rnn")


def test_json_values_give_the_configuration_back():
    assert from_values(Example, {"words": ["a", "b"], "count": 2}) == Example(
        words=("a", "b"), count=2
    )


@pytest.mark.parametrize("cls", CONFIGS, ids=lambda cls: cls.__name__)
def test_every_number_has_limits(cls):
    for field in fields(cls):
        value = field.default
        if isinstance(value, float) or (isinstance(value, int) and not isinstance(value, bool)):
            with pytest.raises(ConfigError, match=f"`{field.name}`"):
                cls(**{field.name: float("nan")})


@pytest.mark.parametrize("cls", CONFIGS, ids=lambda cls: cls.__name__)
@pytest.mark.parametrize("value", [object(), {}, b"bytes"], ids=["object", "dict", "bytes"])
def test_every_setting_refuses_other_types(cls, value):
    for field in fields(cls):
        with pytest.raises(ConfigError, match=f"`{field.name}` must be"):
            cls(**{field.name: value})
