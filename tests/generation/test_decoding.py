"""Decoding of single tokens, compared with a decoder that reads the whole text."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from textgen.generation.decoding import MAX_PENDING, decode_next, next_pending
from textgen.tokenizers.char import CharTokenizer


@given(token_ids=st.lists(st.integers(1, 8), max_size=20))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_pieces_are_those_of_a_decoder_of_the_whole_text(tokenizer, token_ids):
    whole, single, pending = tokenizer.decoder(), tokenizer.decoder(), ()
    for number, token_id in enumerate(token_ids, start=1):
        piece, unfinished = decode_next(single, pending, token_id)
        assert piece == whole.feed(token_id)
        expected = tokenizer.decoder()
        ending = "".join(map(expected.feed, token_ids[:number])) + expected.flush()
        assert ending.endswith(piece + unfinished)
        pending = next_pending(pending, token_id, unfinished)
        assert len(pending) <= MAX_PENDING
        assert bool(pending) == bool(unfinished)


@pytest.mark.parametrize("character", ["a", "é", "漢", "😀"])
def test_the_bytes_of_a_character_are_pending_until_the_last(character):
    class ByteTokenizer:
        """One token per byte."""

        def __init__(self):
            self.content = b""

        def feed(self, token_id):
            self.content += bytes([token_id])
            try:
                text, self.content = self.content.decode(), b""
            except UnicodeDecodeError:
                return ""
            return text

        def flush(self):
            unfinished, self.content = bool(self.content), b""
            return "\ufffd" * unfinished

    *first, last = character.encode()
    decoder, pending = ByteTokenizer(), ()
    for count, byte in enumerate(first, start=1):
        assert decode_next(decoder, pending, byte) == ("", "\ufffd")
        pending = next_pending(pending, byte, "\ufffd")
        assert pending == tuple(first[:count])
    assert decode_next(decoder, pending, last) == (character, "")
    assert next_pending(pending, last, "") == ()


def test_characters_are_never_pending():
    decoder = CharTokenizer("abc").decoder()
    assert decode_next(decoder, (), 1) == ("b", "")
    assert next_pending((), 1, "") == ()
