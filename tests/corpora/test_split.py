"""The split into training and validation text."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from textgen.corpora import split_text
from textgen.errors import ConfigError, CorpusError


@given(st.text(min_size=20), st.floats(0.1, 0.9))
def test_the_parts_are_not_empty_and_joined_are_the_text(text, fraction):
    training, validation = split_text(text, fraction)
    assert training + validation == text
    assert len(training) == int(len(text) * (1 - fraction))
    assert training and validation


def test_the_end_is_held_out():
    assert split_text("0123456789", 0.2) == ("01234567", "89")


def test_a_million_characters_split_as_nanogpt_splits_them():
    training, validation = split_text("x" * 1_115_394, 0.1)
    assert (len(training), len(validation)) == (1_003_854, 111_540)


@pytest.mark.parametrize(
    ("text", "fraction", "sizes"), [("", 0.1, (0, 0)), ("a", 0.5, (0, 1)), ("abc", 0.9, (0, 3))]
)
def test_an_empty_part_is_an_error(text, fraction, sizes):
    received = "{} for training and {} for validation".format(*sizes)
    with pytest.raises(CorpusError, match=rf"Received: {received}.*`validation_fraction`"):
        split_text(text, fraction)


@pytest.mark.parametrize("text", [5, None, b"bytes", ["a", "b"]])
def test_a_value_that_is_not_a_string_is_refused(text):
    with pytest.raises(CorpusError, match=r"`text` must be a string\. Received: "):
        split_text(text, 0.5)


@pytest.mark.parametrize("fraction", [0, 1, -0.1, 1.5, float("nan"), "0.1", None])
def test_a_fraction_outside_its_limits_is_refused(fraction):
    with pytest.raises(ConfigError, match="`validation_fraction` must be"):
        split_text("abc", fraction)
