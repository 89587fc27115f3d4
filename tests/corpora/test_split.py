"""Properties of the split into training and validation text."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from textgen.corpora import split_text
from textgen.errors import CorpusError

DATA = Path(__file__).parents[2].parent / "shared" / "data"


@given(st.text(min_size=20), st.floats(0.1, 0.9))
def test_the_parts_joined_are_the_text_and_both_have_something(text, fraction):
    training, validation = split_text(text, fraction)
    assert training + validation == text
    assert len(training) == int(len(text) * (1 - fraction))
    assert training and validation


def test_the_end_is_held_out():
    assert split_text("0123456789", 0.2) == ("01234567", "89")


def test_a_million_characters_split_as_nanogpt_splits_them():
    training, validation = split_text("x" * 1_115_394, 0.1)
    assert (len(training), len(validation)) == (1_003_854, 111_540)


def test_tinyshakespeare_splits_as_nanogpt_splits_it():
    path = DATA / "tinyshakespeare" / "input.txt"
    if not path.exists():
        pytest.skip(f"needs {path.name} of the shared test data")
    training, validation = split_text(path.read_text("utf-8"), 0.1)
    assert (len(training), len(validation)) == (1_003_854, 111_540)
    assert validation.startswith("?\n\nGREMIO:\nGood morrow, neighbour Baptista.")


@pytest.mark.parametrize(("text", "fraction"), [("", 0.1), ("a", 0.5), ("abc", 0.9)])
def test_a_part_without_a_character_is_an_error(text, fraction):
    with pytest.raises(CorpusError, match=rf"{len(text)} characters.*--validation-fraction"):
        split_text(text, fraction)
