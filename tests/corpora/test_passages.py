"""The index of a corpus's passages, held to searching with `in`."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from textgen.corpora.passages import Passage, PassageIndex
from textgen.errors import RunError

TALE = "It was the best of times, it was the worst of times.\n漢字 und 😀😀😀 é\n" * 3

# two letters repeat a lot, the others are of every width a string can have
texts = st.text(st.sampled_from("aab漢😀"), max_size=40) | st.builds(
    lambda part, count: part * count, st.text("ab", max_size=3), st.integers(0, 20)
)


def _longest_end(corpus, text):
    return max(n for n in range(len(text) + 1) if text[len(text) - n :] in corpus)


def _longest_span(corpus, text):
    return max((_longest_end(corpus, text[:end]) for end in range(len(text) + 1)), default=0)


@given(texts)
def test_the_order_is_that_of_the_sorted_reversed_text(text):
    order = PassageIndex.build(text)._order
    backwards = text[::-1]
    assert order.dtype == np.int32
    assert order.tolist() == sorted(range(len(text)), key=lambda start: backwards[start:])


@pytest.mark.parametrize(
    "text", ["a" * 3000, "ab" * 1500, TALE * 20, "".join(map(chr, range(999)))]
)
def test_long_repeats_are_sorted_too(text):
    backwards = text[::-1]
    expected = sorted(range(len(text)), key=lambda start: backwards[start:])
    assert PassageIndex.build(text)._order.tolist() == expected


@settings(max_examples=300)
@given(texts, texts)
def test_the_longest_match_is_the_one_that_searching_finds(corpus, text):
    found = PassageIndex.build(corpus).longest_match(text)
    assert found.length == _longest_span(corpus, text)
    span = text[found.begin : found.begin + found.length]
    assert corpus[found.position : found.position + found.length] == span
    if found.length:
        firsts = (b for b in range(len(text)) if text[b : b + found.length] in corpus)
        assert found.begin == next(firsts)


def test_a_longest_match_worked_by_hand():
    index = PassageIndex.build("the cat sat on the mat")
    assert index.longest_match("a dog sat on the sofa") == Passage(12, 5, 7)
    assert index.longest_match("XYZ") == index.longest_match("") == Passage(0, 0, 0)
    assert PassageIndex.build("").longest_match("anything") == Passage(0, 0, 0)


def test_a_text_that_goes_on_beyond_the_corpus_matches_the_whole_corpus():
    index = PassageIndex.build(TALE)
    assert index.longest_match("Q" + TALE + "Q") == Passage(len(TALE), 1, 0)
    long = "".join(np.random.default_rng(0).choice(list("abc"), 5000))
    assert PassageIndex.build("x" + long).longest_match(long + long) == Passage(5000, 0, 1)


@settings(max_examples=300)
@given(texts, st.lists(texts, max_size=8), st.integers(1, 12))
def test_a_cursor_knows_the_match_at_the_end_of_what_was_written(corpus, pieces, limit):
    cursor, written = PassageIndex.build(corpus).cursor(limit), ""
    for number, piece in enumerate(pieces):
        ends = range(max(limit, len(written)) + 1, len(written + piece) + 1)
        too_long = any((written + piece)[end - limit - 1 : end] in corpus for end in ends)
        assert cursor.exceeds(piece) == too_long
        cursor.advance(piece)
        written += piece
        expected = min(limit, _longest_end(corpus, written))
        assert cursor.reaches(expected)
        assert not cursor.reaches(expected + 1)
        if number % 2:
            assert cursor.length == expected


@given(texts, texts)
def test_the_matches_are_all_places_that_end_alike_best_first(corpus, text):
    index = PassageIndex.build(corpus)
    slot = index.slot(text[::-1])
    found = list(index.matches(text[::-1], range(slot, slot)))
    naive = {}
    for end in range(1, len(corpus) + 1):
        alike = (n for n in range(1, end + 1) if text.endswith(corpus[end - n : end]))
        if shared := max(alike, default=0):
            naive[len(corpus) - end] = shared
    assert {start: length for length, start in found} == naive
    assert len(found) == len(naive)
    lengths = [length for length, _ in found]
    assert lengths == sorted(lengths, reverse=True)
    for _, start in found:
        end = len(corpus) - start
        assert index.following(start, 3) == corpus[end : end + 3]
    assert index.match(text[::-1])[0] == max(lengths, default=0)


@pytest.mark.parametrize("text", [TALE, "", "a"])
def test_what_is_stored_comes_back(text):
    index = PassageIndex.build(text)
    data = index.to_bytes()
    loaded = PassageIndex.from_bytes(data, text)
    assert loaded._order.dtype == np.int32
    assert np.array_equal(loaded._order, index._order)
    assert loaded.longest_match("the best of 😀 times") == index.longest_match(
        "the best of 😀 times"
    )
    assert len(data) <= 4 * len(text) + 500


def test_every_damage_is_noticed():
    data = PassageIndex.build(TALE).to_bytes()
    flipped = bytearray(data)
    flipped[-3] ^= 1
    renamed = data.replace(b'"order"', b'"other"')
    owner = data.index(b'"text_sha256":"') + 15
    digit = b"0" if data[owner : owner + 1] != b"0" else b"1"
    reowned = data[:owner] + digit + data[owner + 1 :]
    for damaged in (b"", b"x" * 100, data[:-1], data[:50], bytes(flipped), renamed, reowned):
        with pytest.raises(RunError, match="damaged") as caught:
            PassageIndex.from_bytes(damaged, TALE)
        assert "\n" not in str(caught.value)


def test_a_newer_schema_and_another_text_are_errors():
    data = PassageIndex.build(TALE).to_bytes()
    newer = data.replace(b'"schema_version":"1"', b'"schema_version":"2"')
    with pytest.raises(RunError, match=r"at most 1\. Received: 2"):
        PassageIndex.from_bytes(newer, TALE)
    with pytest.raises(RunError, match="another text"):
        PassageIndex.from_bytes(data, TALE[:-1] + "!")


@given(st.text("ab", max_size=80), st.text("ab", min_size=1, max_size=6))
def test_what_follows_a_text_in_the_corpus_is_told_once_each(corpus, text):
    index = PassageIndex.build(corpus)
    whole = index.whole_matches(text[::-1])
    ends = [i + len(text) for i in range(len(corpus)) if corpus.startswith(text, i)]
    assert len(whole) == len(ends)
    expected = {corpus[end] for end in ends if end < len(corpus)}
    assert sorted(index.continuations(whole)) == sorted(expected)
