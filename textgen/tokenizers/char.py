"""One token a character: the alphabet is whatever characters the corpus has.

It knows code points and nothing above them: an accent written apart from its
letter is a token of its own. It does not know where the corpus came from.
"""

from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from textgen.config import UnknownPolicy
from textgen.errors import TokenizerError
from textgen.tokenizers.base import HEADER_FILE, checked_ids, fingerprint_files, header_file

_REPLACEMENT = 0xFFFD
_NUM_CODE_POINTS = 0x110000


class CharTokenizer:
    """Characters to ids in the order of their code points; UNK, if any, is the last id.

    Args:
        alphabet: The characters that have an id; order and repeats do not matter.
        unk: Whether there is an UNK id for all other characters.

    Raises:
        TokenizerError: The alphabet is empty or has a surrogate, which is half a
            character and cannot be stored as UTF-8.
    """

    kind = "char"

    def __init__(self, alphabet: str, unk: bool = False) -> None:
        self.alphabet = "".join(sorted(set(alphabet)))
        self.unk_id = len(self.alphabet) if unk else None
        self._check_alphabet()
        codes = _code_points(self.alphabet)
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
            min_count: Characters seen fewer times become UNK; None: there is no UNK.

        Returns:
            The tokenizer; it has an UNK exactly when `min_count` is given.

        Raises:
            TokenizerError: No character of `text` is seen often enough.
        """
        counts = np.bincount(_code_points(text), minlength=1)
        kept = np.flatnonzero(counts >= (min_count or 1))
        if not len(kept):
            raise TokenizerError(
                f"The alphabet needs a character that is seen at least {min_count or 1} times. "
                f"Received: a text of {len(text):,} characters that has none. "
                "Lower --min-count, or give a longer corpus."
            )
        return cls("".join(map(chr, kept.tolist())), unk=min_count is not None)

    @classmethod
    def from_header(cls, header: dict[str, Any]) -> Self:
        """Return the tokenizer that `tokenizer.json` describes.

        Args:
            header: The parsed file.

        Returns:
            The tokenizer whose `files` wrote it.

        Raises:
            TokenizerError: The alphabet is not one that `files` can have written.
        """
        tokenizer = cls(str(header["alphabet"]), bool(header["unk"]))
        if tokenizer.alphabet != header["alphabet"]:
            raise TokenizerError("The alphabet is not sorted, or has a character twice.")
        return tokenizer

    def encode(self, text: str, unknown: UnknownPolicy = "error") -> NDArray[np.int32]:
        """Return the ids of `text`, as `Tokenizer.encode` says.

        Args:
            text: Any text.
            unknown: What to do with a character outside the alphabet.

        Returns:
            `[time]`, one id a character; fewer under `"skip"`.

        Raises:
            TokenizerError: A character is unknown under `"error"`, or `"unk"` was
                asked of an alphabet without UNK.
        """
        if unknown == "unk" and self.unk_id is None:
            raise TokenizerError(
                "`unknown=unk` needs an alphabet with an UNK token. Received: one without. "
                "Train with --min-count 2, or pass --unknown skip."
            )
        token_ids: NDArray[np.int32] = self._ids[_code_points(text)]
        is_unknown = token_ids < 0
        if not is_unknown.any():
            return token_ids
        if unknown == "error":
            raise TokenizerError(_unknown_message(text, is_unknown))
        if unknown == "skip":
            return token_ids[~is_unknown]
        return np.where(is_unknown, np.int32(self.vocab_size - 1), token_ids)

    def decode(self, token_ids: NDArray[np.integer] | list[int]) -> str:
        """Return the text of `token_ids`.

        Args:
            token_ids: `[time]`.

        Returns:
            One character an id; UNK becomes U+FFFD.

        Raises:
            TokenizerError: An id lies outside the vocabulary.
        """
        ids = checked_ids(token_ids, self.vocab_size)
        return self._codes[ids].astype("<u4").tobytes().decode("utf-32-le")

    def decoder(self) -> "CharDecoder":
        """Return a fresh decoder for one stream of tokens."""
        return CharDecoder(self.decode(np.arange(self.vocab_size)))

    def pieces(self) -> tuple[bytes, ...]:
        """Return the character of each id in UTF-8."""
        return tuple(c.encode() for c in self.decode(np.arange(self.vocab_size)))

    def files(self) -> dict[str, bytes]:
        """Return what a `tokenizer/` folder holds: file name to content."""
        values = {"alphabet": self.alphabet, "unk": self.unk_id is not None}
        return {HEADER_FILE: header_file(self.kind, values)}

    def fingerprint(self) -> str:
        """Return the sha256 over `files()`."""
        return fingerprint_files(self.files())

    def _check_alphabet(self) -> None:
        surrogate = next((c for c in self.alphabet if 0xD800 <= ord(c) < 0xE000), None)
        if surrogate is not None or not self.alphabet:
            received = "none" if surrogate is None else f"the surrogate {_name(surrogate)}"
            raise TokenizerError(
                "An alphabet must have at least one character, and whole characters only. "
                f"Received: {received}. Give a corpus that is valid UTF-8."
            )


class CharDecoder:
    """A stream in which every token is one character.

    Args:
        characters: The character of each id, in order.
    """

    def __init__(self, characters: str) -> None:
        self._characters = characters

    def feed(self, token_id: int) -> str:
        """Return the character of `token_id`."""
        return self._characters[token_id]

    def flush(self) -> str:
        """Return nothing: no character is ever unfinished."""
        return ""


def _code_points(text: str) -> NDArray[np.uint32]:
    # Surrogates pass, so that one reaches the error that names the unknown character.
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), "<u4")


def _name(character: str) -> str:
    return f"{character!r} (U+{ord(character):04X})"


def _unknown_message(text: str, is_unknown: NDArray[np.bool_]) -> str:
    position = int(is_unknown.argmax())
    distinct = len(np.unique(_code_points(text)[is_unknown]))
    others = "the only unknown one" if distinct == 1 else f"1 of {distinct} different unknown ones"
    return (
        f"The text must keep to the model's alphabet. Received: {_name(text[position])} at "
        f"position {position}, {others}. Pass --unknown skip to leave such characters out, "
        "or train on a text that has them."
    )
