"""The suffix array, compared with sorting the suffixes themselves."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from textgen.corpora.suffixes import sort_suffixes

# Two letters repeat often; the others have every width of a string's characters.
TEXTS = st.text(st.sampled_from("aab漢😀\udc80"), max_size=40) | st.builds(
    lambda part, count: part * count, st.text("ab", max_size=3), st.integers(0, 20)
)


def sort_slowly(text):
    return sorted(range(len(text)), key=lambda start: text[start:])


@given(TEXTS)
def test_the_suffixes_are_sorted(text):
    order = sort_suffixes(text)
    assert order.dtype == np.int32
    assert order.tolist() == sort_slowly(text)


@pytest.mark.parametrize(
    "text",
    ["a" * 3000, "ab" * 1500, "It was 漢字 😀😀😀 é\n" * 150, "".join(map(chr, range(999)))],
    ids=["one letter", "two letters", "a line", "all different"],
)
def test_long_repeats_are_sorted(text):
    assert sort_suffixes(text).tolist() == sort_slowly(text)


def test_a_suffix_array_computed_by_hand():
    # a, ana, anana, banana, na, nana
    assert sort_suffixes("banana").tolist() == [5, 3, 1, 0, 4, 2]
    assert sort_suffixes("").tolist() == []
