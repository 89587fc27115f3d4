"""The passage index, compared with substring search."""

import hashlib

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given, settings
from hypothesis import strategies as st

from textgen.corpora.passages import PASSAGES_FILE, Passage, PassageIndex
from textgen.errors import RunError
from textgen.storage import read_safetensors

TALE = "It was the best of times, it was the worst of times.\n漢字 und 😀😀😀 é\n" * 3

# Two letters repeat often; the others have every width of a string's characters.
TEXTS = st.text(st.sampled_from("aab漢😀"), max_size=40) | st.builds(
    lambda part, count: part * count, st.text("ab", max_size=3), st.integers(0, 20)
)


def longest_end(corpus, text):
    return max(n for n in range(len(text) + 1) if text[len(text) - n :] in corpus)


def longest_span(corpus, text):
    return max((longest_end(corpus, text[:end]) for end in range(len(text) + 1)), default=0)


@settings(max_examples=300)
@given(TEXTS, TEXTS)
def test_the_longest_match_equals_a_search(corpus, text):
    found = PassageIndex.build(corpus).longest_match(text)
    assert found.length == longest_span(corpus, text)
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


def test_a_text_longer_than_the_corpus_matches_the_whole_corpus():
    index = PassageIndex.build(TALE)
    assert index.longest_match("Q" + TALE + "Q") == Passage(len(TALE), 1, 0)
    long = "".join(np.random.default_rng(0).choice(list("abc"), 5000))
    assert PassageIndex.build("x" + long).longest_match(long + long) == Passage(5000, 0, 1)


@settings(max_examples=300)
@given(TEXTS, st.lists(TEXTS, max_size=8), st.integers(1, 12))
def test_a_cursor_matches_the_end_of_the_generated_text(corpus, pieces, limit):
    cursor, generated = PassageIndex.build(corpus).cursor(limit), ""
    for number, piece in enumerate(pieces):
        ends = range(max(limit, len(generated)) + 1, len(generated + piece) + 1)
        too_long = any((generated + piece)[end - limit - 1 : end] in corpus for end in ends)
        assert cursor.exceeds(piece) == too_long
        cursor.advance(piece)
        generated += piece
        expected = min(limit, longest_end(corpus, generated))
        assert cursor.reaches(expected)
        assert not cursor.reaches(expected + 1)
        if number % 2:
            assert cursor.length == expected


@given(TEXTS, TEXTS)
def test_the_matches_are_all_positions_with_a_common_ending_longest_first(corpus, text):
    index = PassageIndex.build(corpus)
    rank = index.rank(text[::-1])
    found = list(index.matches(text[::-1], range(rank, rank)))
    naive = {}
    for end in range(1, len(corpus) + 1):
        common = (n for n in range(1, end + 1) if text.endswith(corpus[end - n : end]))
        if shared := max(common, default=0):
            naive[len(corpus) - end] = shared
    assert {start: length for length, start in found} == naive
    assert len(found) == len(naive)
    lengths = [length for length, _ in found]
    assert lengths == sorted(lengths, reverse=True)
    for _, start in found:
        end = len(corpus) - start
        assert index.following(start, 3) == corpus[end : end + 3]
    assert index.match(text[::-1])[0] == max(lengths, default=0)


def save(index, folder):
    path = folder / PASSAGES_FILE
    path.write_bytes(index.to_bytes())
    return path


def order_of(index):
    return safetensors.numpy.load(index.to_bytes())["order"]


def save_order(order, text, folder):
    """Store any array as the index of `text`, with matching hashes."""
    return save(PassageIndex(text, order), folder)


@pytest.mark.parametrize("text", [TALE, "", "a"])
def test_a_saved_index_is_loaded_unchanged(text, tmp_path):
    index = PassageIndex.build(text)
    path = save(index, tmp_path)
    loaded = PassageIndex.load(path, text)
    assert order_of(loaded).dtype == np.int32
    assert np.array_equal(order_of(loaded), order_of(index))
    span = "the best of 😀 times"
    assert loaded.longest_match(span) == index.longest_match(span)
    assert path.stat().st_size <= 4 * len(text) + 500


def test_the_file_format_is_that_of_the_first_version(tmp_path):
    path = save(PassageIndex.build("abcab"), tmp_path)
    metadata, tensors = read_safetensors(path, missing="")
    # The suffixes of "bacba": a, acba, ba, bacba, cba.
    assert {name: array.tolist() for name, array in tensors.items()} == {"order": [4, 1, 3, 0, 2]}
    # Written by the first version of textgen.
    assert metadata == {
        "schema_version": "1",
        "text_sha256": hashlib.sha256(b"abcab").hexdigest(),
        "sha256": "5e62815b7e7113047629e8931e475184ed2acaf589878cb44733ae9636977dec",
    }


def test_every_damage_is_detected(tmp_path):
    path = save(PassageIndex.build(TALE), tmp_path)
    data = path.read_bytes()
    flipped = bytearray(data)
    flipped[-3] ^= 1
    renamed = data.replace(b'"order"', b'"other"')
    owner = data.index(b'"text_sha256":"') + 15
    digit = b"0" if data[owner : owner + 1] != b"0" else b"1"
    other_owner = data[:owner] + digit + data[owner + 1 :]
    for damaged in (b"", b"x" * 100, data[:-1], data[:50], bytes(flipped), renamed, other_owner):
        path.write_bytes(damaged)
        with pytest.raises(RunError, match=r"damaged.*Delete it") as caught:
            PassageIndex.load(path, TALE)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "order",
    [
        np.arange(5, dtype=np.int32),
        np.arange(6, dtype=np.int64),
        np.zeros((6, 1), np.int32),
        np.full(6, -1, np.int32),
        np.full(6, 6, np.int32),
    ],
    ids=["short", "int64", "two-axes", "negative", "too-large"],
)
def test_an_array_that_is_not_an_order_is_refused_although_its_hash_matches(order, tmp_path):
    path = save_order(order, "abcdef", tmp_path)
    with pytest.raises(RunError, match=r"damaged: `order` must contain each position"):
        PassageIndex.load(path, "abcdef")


def test_a_newer_schema_another_text_and_a_missing_file_are_errors(tmp_path):
    path = save(PassageIndex.build(TALE), tmp_path)
    with pytest.raises(RunError, match="another text"):
        PassageIndex.load(path, TALE[:-1] + "!")
    data = path.read_bytes()
    path.write_bytes(data.replace(b'"schema_version":"1"', b'"schema_version":"2"'))
    with pytest.raises(RunError, match=r"at most 1\. Received: 2"):
        PassageIndex.load(path, TALE)
    with pytest.raises(RunError, match="does not exist"):
        PassageIndex.load(tmp_path / "nothing", TALE)


@given(st.text("ab", max_size=80), st.text("ab", min_size=1, max_size=6))
def test_continuations_are_the_distinct_characters_that_follow_a_text(corpus, text):
    index = PassageIndex.build(corpus)
    full = index.full_matches(text[::-1])
    ends = [i + len(text) for i in range(len(corpus)) if corpus.startswith(text, i)]
    assert len(full) == len(ends)
    expected = {corpus[end] for end in ends if end < len(corpus)}
    assert sorted(index.continuations(full)) == sorted(expected)
