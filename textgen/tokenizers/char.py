"""Character tokenizer: one token per code point of the corpus.

A combining accent is a token of its own. This module does NOT know where the corpus comes from.
"""

from collections.abc import Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from textgen.arrays import BoolArray, IntArray, TokenIds
from textgen.config import UnknownPolicy, convert, require
from textgen.errors import TokenizerError
from textgen.tokenizers.base import (
    HEADER_FILE,
    check_encoding,
    check_text,
    check_token_ids,
    fingerprint_files,
    header_file,
)

_REPLACEMENT = 0xFFFD
_NUM_CODE_POINTS = 0x110000


class CharTokenizer:
    """Maps characters to ids in the order of their code points; UNK, if any, is the last id.

    Args:
        alphabet: The characters that have an id, in any order; duplicates are ignored.
        unk: Whether there is an UNK id for all other characters.

    Raises:
        TokenizerError: The alphabet is not a string, is empty, or contains a surrogate, which is
            half a character and cannot be stored as UTF-8.
    """

    kind = "char"

    def __init__(self, alphabet: str, unk: bool = False) -> None:
        _check_alphabet(alphabet)
        self.alphabet = "".join(sorted(set(alphabet)))
        self.unk_id = len(self.alphabet) if unk else None
        codes = code_points(self.alphabet)
        self._ids = np.full(_NUM_CODE_POINTS, -1, np.int32)
        self._ids[codes] = np.arange(len(codes), dtype=np.int32)
        self._codes = np.append(codes, np.array([_REPLACEMENT] if unk else [], np.uint32))
        self.vocab_size = len(self._codes)
        self.banned_ids: tuple[int, ...] = () if self.unk_id is None else (self.unk_id,)
        self.start_id = next((self.alphabet.index(c) for c in "\n " if c in self.alphabet), 0)

    @classmethod
    def from_text(cls, text: str, min_count: int | None = None) -> Self:
        """Return the tokenizer whose alphabet is the characters of `text`.

        Args:
            text: The whole corpus.
            min_count: Characters that occur fewer times become UNK; None: there is no UNK.

        Returns:
            The tokenizer; it has an UNK if and only if `min_count` is given.

        Raises:
            TokenizerError: `text` is not a string, or has no character that is frequent enough.
            ConfigError: `min_count` is not a positive integer.
        """
        check_text(text)
        convert(min_count, int | None, "min_count")
        threshold = 1 if min_count is None else min_count
        require(threshold >= 1, "min_count", "at least 1", min_count)
        counts = np.bincount(code_points(text), minlength=1)
        kept = np.flatnonzero(counts >= threshold)
        if not len(kept):
            times = "once" if threshold == 1 else f"{threshold} times"
            raise TokenizerError(
                f"The text must have a character that occurs at least {times}. "
                f"Received: {len(text):,} characters, none of which does. "
                "Lower `min_count`, or provide a longer corpus."
            )
        return cls("".join(map(chr, kept.tolist())), unk=min_count is not None)

    @classmethod
    def from_header(cls, header: dict[str, Any]) -> Self:
        """Return the tokenizer that `tokenizer.json` describes.

        Args:
            header: The parsed file.

        Returns:
            The tokenizer whose `files` contain this header.

        Raises:
            KeyError: A value is missing.
            TokenizerError: The alphabet is not one that `files` writes.
        """
        tokenizer = cls(header["alphabet"], bool(header["unk"]))
        if tokenizer.alphabet != header["alphabet"]:
            raise TokenizerError("The alphabet is not sorted, or contains a character twice.")
        return tokenizer

    def encode(self, text: str, unknown: UnknownPolicy = "error") -> TokenIds:
        """Return the ids of `text`, as specified by `Tokenizer.encode`.

        Args:
            text: Any text.
            unknown: What to do with a character outside the alphabet.

        Returns:
            `[time]`, one id per character; fewer under `"skip"`.

        Raises:
            TokenizerError: `text` is not a string, a character is unknown under `"error"`, or the
                alphabet has no UNK under `"unk"`.
            ConfigError: `unknown` is not an `UnknownPolicy`.
        """
        check_encoding(text, unknown)
        if unknown == "unk" and self.unk_id is None:
            raise TokenizerError(
                "`unknown=unk` needs an alphabet with an UNK token. Received: one without it. "
                "Set `unknown=skip`, or train with `min_count=2`."
            )
        token_ids: TokenIds = self._ids[code_points(text)]
        is_unknown = token_ids < 0
        if not is_unknown.any():
            return token_ids
        if unknown == "error":
            raise TokenizerError(_unknown_message(text, is_unknown))
        if unknown == "skip":
            return token_ids[~is_unknown]
        return np.where(is_unknown, np.int32(self.vocab_size - 1), token_ids)

    def decode(self, token_ids: IntArray | Sequence[int]) -> str:
        """Return the text of `token_ids`.

        Args:
            token_ids: `[time]`, any integer dtype.

        Returns:
            One character per id; UNK becomes U+FFFD.

        Raises:
            TokenizerError: `token_ids` are not integers in one axis, or one is outside the
                vocabulary.
        """
        ids = check_token_ids(token_ids, self.vocab_size)
        return self._codes[ids].astype("<u4").tobytes().decode("utf-32-le")

    def decoder(self) -> "CharDecoder":
        """Return a new decoder for one stream of tokens."""
        return CharDecoder(self.decode(np.arange(self.vocab_size)))

    def pieces(self) -> tuple[bytes, ...]:
        """Return the character of each id in UTF-8."""
        return tuple(c.encode() for c in self.decode(np.arange(self.vocab_size)))

    def files(self) -> dict[str, bytes]:
        """Return the files of a `tokenizer/` folder: name to content."""
        values = {"alphabet": self.alphabet, "unk": self.unk_id is not None}
        return {HEADER_FILE: header_file(self.kind, values)}

    def fingerprint(self) -> str:
        """Return the sha256 of `files()`."""
        return fingerprint_files(self.files())


class CharDecoder:
    """A decoder of streams in which every token is one character.

    Args:
        characters: The character of each id, in order.
    """

    def __init__(self, characters: str) -> None:
        self._characters = characters

    def feed(self, token_id: int) -> str:
        """Return the character of `token_id`."""
        return self._characters[token_id]

    def flush(self) -> str:
        """Return an empty string: no character is ever incomplete."""
        return ""


def code_points(text: str) -> NDArray[np.uint32]:
    """Return the code points of a text, `[len(text)]`, lone surrogates included."""
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), "<u4")


def _check_alphabet(alphabet: str) -> None:
    check_text(alphabet, "alphabet")
    surrogate = next((c for c in alphabet if 0xD800 <= ord(c) < 0xE000), None)
    if surrogate is not None or not alphabet:
        received = "no character" if surrogate is None else f"the surrogate {_name(surrogate)}"
        raise TokenizerError(
            "`alphabet` must have at least one character and no surrogates. "
            f"Received: {received}. Provide a corpus that is valid UTF-8."
        )


def _name(character: str) -> str:
    return f"{character!r} (U+{ord(character):04X})"


def _unknown_message(text: str, is_unknown: BoolArray) -> str:
    position = int(is_unknown.argmax())
    distinct = len(np.unique(code_points(text)[is_unknown]))
    others = "the only one" if distinct == 1 else f"one of {distinct} distinct ones"
    return (
        "Every character must be in the model's alphabet. Received: the unknown character "
        f"{_name(text[position])} at position {position}, {others}. "
        "Set `unknown=skip` to leave such characters out, or train on a text that contains them."
    )
