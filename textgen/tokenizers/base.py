"""What a tokenizer is: the protocol that every kind of tokenizer keeps.

Also what all kinds share on disk: the header file and the fingerprint. How a
kind finds its vocabulary, and where its folder lies, is not known here.
"""

import hashlib
import json
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from textgen.config import UnknownPolicy
from textgen.errors import TokenizerError

HEADER_FILE = "tokenizer.json"
SCHEMA_VERSION = 1


class TextDecoder(Protocol):
    """Turns the tokens of one stream into text, a token at a time."""

    def feed(self, token_id: int) -> str:
        """Return the characters that `token_id` completes; may be empty."""

    def flush(self) -> str:
        """Return what an unfinished character left behind, as U+FFFD."""


class Tokenizer(Protocol):
    """Text to token ids and back.

    Attributes:
        kind: `"char"` or `"subword"`.
        vocab_size: Number of token ids.
        banned_ids: Ids that must never be generated (UNK, where there is one).
        start_id: The id that stands for "a text begins here": what an empty
            prompt and the first token of a scored text are predicted from.
    """

    kind: str
    vocab_size: int
    banned_ids: tuple[int, ...]
    start_id: int

    def encode(self, text: str, unknown: UnknownPolicy = "error") -> NDArray[np.int32]:
        """Return the ids of `text`.

        Args:
            text: Any text.
            unknown: `"error"` refuses a character outside the vocabulary, `"skip"`
                leaves it out, `"unk"` puts the UNK id in its place.

        Returns:
            `[time]`.

        Raises:
            TokenizerError: A character is unknown under `"error"`, or `"unk"` was
                asked of a tokenizer that has no UNK.
        """

    def decode(self, token_ids: NDArray[np.integer] | list[int]) -> str:
        """Return the text of `token_ids`; the inverse of `encode`."""

    def decoder(self) -> TextDecoder:
        """Return a fresh decoder for one stream of tokens."""

    def pieces(self) -> tuple[bytes, ...]:
        """Return what each id stands for, in UTF-8; a byte piece is part of a character."""

    def files(self) -> dict[str, bytes]:
        """Return what a `tokenizer/` folder holds: file name to content."""

    def fingerprint(self) -> str:
        """Return the sha256 over `files()`; weights remember whose they are by it."""


def header_file(kind: str, values: dict[str, Any]) -> bytes:
    """Return the content of `tokenizer.json`: schema version, kind, then `values`."""
    header = {"schema_version": SCHEMA_VERSION, "kind": kind, **values}
    return (json.dumps(header, ensure_ascii=False, indent=1) + "\n").encode()


def fingerprint_files(files: dict[str, bytes]) -> str:
    """Return the sha256 over names and contents, in the order of the names.

    Args:
        files: File name to content, as `Tokenizer.files` gives them.

    Returns:
        64 hexadecimal digits.
    """
    digest = hashlib.sha256()
    for name in sorted(files):
        # Lengths go in as well: no two different sets of files can run together to one.
        digest.update(f"{name}\0{len(files[name])}\0".encode())
        digest.update(files[name])
    return digest.hexdigest()


def checked_ids(token_ids: NDArray[np.integer] | list[int], vocab_size: int) -> NDArray[np.int64]:
    """Return `token_ids` as an array, once all are known to be in the vocabulary.

    Args:
        token_ids: `[time]`, what is to be decoded.
        vocab_size: One more than the largest id allowed.

    Returns:
        `[time]`.

    Raises:
        TokenizerError: An id lies outside the vocabulary.
    """
    ids = np.asarray(token_ids, np.int64)
    if ids.size and (ids.min() < 0 or ids.max() >= vocab_size):
        raise TokenizerError(
            f"A token id must lie in [0, {vocab_size}). Received: {ids.min()} to {ids.max()}. "
            "Decode with the tokenizer that encoded."
        )
    return ids
