"""The character tokenizer: round trips, ids, unknown characters, and its stored format."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from textgen.errors import ConfigError, TokenizerError
from textgen.tokenizers.base import HEADER_FILE
from textgen.tokenizers.char import CharTokenizer

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1)


@settings(max_examples=60)
@given(TEXTS)
def test_decoding_inverts_encoding(text):
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
def test_the_start_is_newline_else_space_else_the_first_id(text, start):
    tokenizer = CharTokenizer.from_text(text)
    assert tokenizer.decode([tokenizer.start_id]) == start


def test_chunks_have_the_ids_of_the_whole_text():
    text = "one\ntwo ▁ 三\n"
    tokenizer = CharTokenizer.from_text(text)
    chunks = [tokenizer.encode(text[i : i + 3]) for i in range(0, len(text), 3)]
    assert np.concatenate(chunks).tolist() == tokenizer.encode(text).tolist()


def test_a_stream_returns_one_character_per_token():
    tokenizer = CharTokenizer.from_text("añ😀")
    decoder = tokenizer.decoder()
    assert [decoder.feed(i) for i in tokenizer.encode("😀ña")] == ["😀", "ñ", "a"]
    assert decoder.flush() == ""


def test_the_error_names_the_unknown_character_its_position_and_a_remedy():
    with pytest.raises(TokenizerError) as caught:
        CharTokenizer.from_text("abc").encode("ab*cab*€")
    message = str(caught.value)
    for part in ("'*'", "U+002A", "position 2", "one of 2 distinct", "Set `unknown=skip`"):
        assert part in message
    assert "\n" not in message


def test_the_error_about_a_newline_or_surrogate_is_one_line():
    for character in "\n\udc80":
        with pytest.raises(TokenizerError, match=f"U\\+{ord(character):04X}") as caught:
            CharTokenizer.from_text("abc").encode("a" + character)
        assert str(caught.value).isprintable()


def test_skip_leaves_unknown_characters_out():
    tokenizer = CharTokenizer.from_text("abc")
    assert tokenizer.decode(tokenizer.encode("a*b\udc80c", "skip")) == "abc"


def test_unk_replaces_unknown_characters_and_decodes_to_u_fffd():
    tokenizer = CharTokenizer.from_text("aabbx", min_count=2)
    token_ids = tokenizer.encode("axb", "unk")
    assert token_ids.tolist() == [0, tokenizer.banned_ids[0], 1]
    assert tokenizer.decode(token_ids) == "a\ufffdb"
    with pytest.raises(TokenizerError, match="'x'"):
        tokenizer.encode("axb")


def test_the_policy_unk_needs_an_alphabet_with_unk():
    with pytest.raises(TokenizerError, match="`min_count=2`"):
        CharTokenizer.from_text("ab").encode("ab", "unk")


def test_no_character_frequent_enough_is_an_error():
    with pytest.raises(TokenizerError, match=r"at least 3 times.*Lower `min_count`"):
        CharTokenizer.from_text("aabb", min_count=3)
    with pytest.raises(TokenizerError, match="at least once"):
        CharTokenizer.from_text("")


def test_an_alphabet_with_a_surrogate_is_refused():
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


class Text(str):
    """A string whose characters cannot be read one by one in Python."""

    def __iter__(self):
        raise AssertionError("iterated over the characters")

    def __getitem__(self, index):
        raise AssertionError(f"read the character {index}")


def test_encoding_is_vectorized():
    tokenizer = CharTokenizer.from_text(Text("To be, or not to be.\n"))
    text = Text("not to be, or To be.\n" * 50)
    assert tokenizer.decode(tokenizer.encode(text)) == text
    assert tokenizer.decode(tokenizer.encode(Text("to bé"), "skip")) == "to b"


def test_wrong_types_are_refused():
    tokenizer = CharTokenizer("abc")
    for call in (
        lambda: tokenizer.encode(5),
        lambda: tokenizer.encode(b"abc"),
        lambda: tokenizer.decode("abc"),
        lambda: tokenizer.decode([0.5]),
        lambda: CharTokenizer(["a", "b"]),
        lambda: CharTokenizer.from_text(None),
    ):
        with pytest.raises(TokenizerError, match=r"must be .*Received: "):
            call()


def test_wrong_settings_are_refused():
    with pytest.raises(ConfigError, match="`unknown` must be error, skip or unk"):
        CharTokenizer("abc").encode("abcd", "ignore")
    for min_count in (0, -1, 1.5, "2"):
        with pytest.raises(ConfigError, match="`min_count` must be"):
            CharTokenizer.from_text("abc", min_count)


def test_the_fingerprint_is_that_of_the_first_version():
    # Written by the first version of textgen.
    expected = "cfc21566da4c305e7cd0e367378de9bbf09706fee7e9c6f9244bfb1412dde1dc"
    assert CharTokenizer("aé漢").fingerprint() == expected
