"""Properties of the character tokenizer."""

import json
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from textgen.errors import TokenizerError
from textgen.tokenizers.base import HEADER_FILE
from textgen.tokenizers.char import CharTokenizer

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1)


@settings(deadline=None, max_examples=60)
@given(TEXTS)
def test_decoding_gives_back_the_text(text):
    tokenizer = CharTokenizer.from_text(text)
    token_ids = tokenizer.encode(text)
    assert token_ids.dtype == np.int32
    assert len(token_ids) == len(text)
    assert tokenizer.vocab_size == len(set(text))
    assert tokenizer.decode(token_ids) == text


def test_ids_follow_the_code_points_and_unk_is_last():
    tokenizer = CharTokenizer.from_text("bbaacc😀😀\n\nx", min_count=2)
    assert tokenizer.encode("\nabc😀").tolist() == [0, 1, 2, 3, 4]
    assert tokenizer.banned_ids == (5,)
    assert tokenizer.vocab_size == 6


@pytest.mark.parametrize(("text", "start"), [("b\na ", "\n"), ("b a", " "), ("cab", "a")])
def test_a_text_begins_with_newline_else_space_else_the_first_id(text, start):
    tokenizer = CharTokenizer.from_text(text)
    assert tokenizer.decode([tokenizer.start_id]) == start


def test_encoding_in_any_chunks_equals_encoding_whole():
    text = "one\ntwo ▁ 三\n"
    tokenizer = CharTokenizer.from_text(text)
    chunks = [tokenizer.encode(text[i : i + 3]) for i in range(0, len(text), 3)]
    assert np.concatenate(chunks).tolist() == tokenizer.encode(text).tolist()


def test_streaming_gives_one_character_a_token():
    tokenizer = CharTokenizer.from_text("añ😀")
    decoder = tokenizer.decoder()
    assert [decoder.feed(i) for i in tokenizer.encode("😀ña")] == ["😀", "ñ", "a"]
    assert decoder.flush() == ""


def test_an_unknown_character_is_named_with_its_place_and_the_way_out():
    with pytest.raises(TokenizerError) as caught:
        CharTokenizer.from_text("abc").encode("ab*cab*€")
    message = str(caught.value)
    for part in ("'*'", "U+002A", "position 2", "2 different", "--unknown skip"):
        assert part in message
    assert "\n" not in message


def test_an_unknown_newline_or_surrogate_still_makes_one_line():
    for character in "\n\udc80":
        with pytest.raises(TokenizerError, match=f"U\\+{ord(character):04X}") as caught:
            CharTokenizer.from_text("abc").encode("a" + character)
        assert str(caught.value).isprintable()


def test_skip_leaves_unknown_characters_out():
    tokenizer = CharTokenizer.from_text("abc")
    assert tokenizer.decode(tokenizer.encode("a*b\udc80c", "skip")) == "abc"


def test_unk_stands_in_place_and_decodes_to_the_replacement_character():
    tokenizer = CharTokenizer.from_text("aabbx", min_count=2)
    token_ids = tokenizer.encode("axb", "unk")
    assert token_ids.tolist() == [0, tokenizer.banned_ids[0], 1]
    assert tokenizer.decode(token_ids) == "a\ufffdb"
    with pytest.raises(TokenizerError, match="'x'"):
        tokenizer.encode("axb")


def test_unk_needs_an_alphabet_that_has_it():
    with pytest.raises(TokenizerError, match="--min-count 2"):
        CharTokenizer.from_text("ab").encode("ab", "unk")


def test_no_character_frequent_enough_is_an_error():
    with pytest.raises(TokenizerError, match=r"at least 3 times.*--min-count"):
        CharTokenizer.from_text("aabb", min_count=3)
    with pytest.raises(TokenizerError, match="at least 1 times"):
        CharTokenizer.from_text("")


def test_an_alphabet_with_half_a_character_is_refused():
    with pytest.raises(TokenizerError, match=r"U\+DBFF"):
        CharTokenizer("a\udbff\udc00")


@pytest.mark.parametrize("token_id", [-1, 3])
def test_an_id_outside_the_vocabulary_is_refused(token_id):
    with pytest.raises(TokenizerError, match=rf"\[0, 3\)\. Received: {token_id}"):
        CharTokenizer.from_text("abc").decode([token_id])


def test_the_header_is_readable_and_sorted():
    header = json.loads(CharTokenizer.from_text("漢ba\n").files()[HEADER_FILE])
    assert header == {"schema_version": 1, "kind": "char", "alphabet": "\nab漢", "unk": False}


def test_different_alphabets_have_different_fingerprints():
    made = [CharTokenizer("abc"), CharTokenizer("abd"), CharTokenizer("abc", unk=True)]
    assert len({tokenizer.fingerprint() for tokenizer in made}) == 3
    assert CharTokenizer("cab").fingerprint() == made[0].fingerprint()


def test_a_megabyte_encodes_within_50_ms():
    text = "To be, or not to be.\n" * 50_000
    tokenizer = CharTokenizer.from_text(text)
    times = []
    for _ in range(5):
        began = time.perf_counter()
        tokenizer.encode(text)
        times.append(time.perf_counter() - began)
    assert min(times) < 0.05
