"""The tokenizer protocol, and the functions that its implementations share.

These check arguments, write the header file and compute the fingerprint. This module does NOT know
how a tokenizer finds its vocabulary, or where its folder is.
"""

import hashlib
import json
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from textgen.arrays import Int64Array, IntArray, TokenIds
from textgen.config import TokenizerConfig, UnknownPolicy, check_setting
from textgen.errors import TokenizerError, describe_value

HEADER_FILE = "tokenizer.json"
SCHEMA_VERSION = 1


class TextDecoder(Protocol):
    """Decodes one stream of tokens, one token at a time."""

    def feed(self, token_id: int) -> str:
        """Return the characters that `token_id` completes, possibly none."""

    def flush(self) -> str:
        """Return U+FFFD if the last character is incomplete, else an empty string."""


class Tokenizer(Protocol):
    """Text to token ids and back.

    Attributes:
        kind: `"char"` or `"subword"`.
        vocab_size: Number of token ids.
        banned_ids: Ids that must never be generated: UNK, if there is one.
        start_id: The id that precedes a text: it replaces an empty prompt, and the first token of
            a scored text is predicted from it.
    """

    kind: str
    vocab_size: int
    banned_ids: tuple[int, ...]
    start_id: int

    def encode(self, text: str, unknown: UnknownPolicy = "error") -> TokenIds:
        """Return the ids of `text`.

        Args:
            text: Any text.
            unknown: What to do with a character outside the vocabulary: `"error"` raises,
                `"skip"` leaves it out, `"unk"` replaces it with the UNK id.

        Returns:
            `[time]`.

        Raises:
            TokenizerError: `text` is not a string, a character is unknown under `"error"`, or
                the tokenizer has no UNK under `"unk"`.
            ConfigError: `unknown` is none of the three.
        """

    def decode(self, token_ids: IntArray | Sequence[int]) -> str:
        """Return the text of `token_ids`; the inverse of `encode`.

        Args:
            token_ids: `[time]`, any integer dtype.

        Returns:
            The text; UNK becomes U+FFFD.

        Raises:
            TokenizerError: `token_ids` are not integers in one axis, or one is outside the
                vocabulary.
        """

    def decoder(self) -> TextDecoder:
        """Return a new decoder for one stream of tokens."""

    def pieces(self) -> tuple[bytes, ...]:
        """Return the UTF-8 bytes of each id; those of one id may be a part of a character."""

    def files(self) -> dict[str, bytes]:
        """Return the files of a `tokenizer/` folder: name to content."""

    def fingerprint(self) -> str:
        """Return the sha256 of `files()`, which is stored with the weights of a model."""


def header_file(kind: str, values: dict[str, Any]) -> bytes:
    """Return the content of `tokenizer.json`: schema version, kind, then `values`."""
    header = {"schema_version": SCHEMA_VERSION, "kind": kind, **values}
    return (json.dumps(header, ensure_ascii=False, indent=1) + "\n").encode()


def fingerprint_files(files: dict[str, bytes]) -> str:
    """Return the sha256 of the names and contents of files, independent of their order.

    Args:
        files: File name to content, as `Tokenizer.files` returns them.

    Returns:
        64 hexadecimal digits.
    """
    digest = hashlib.sha256()
    for name in sorted(files):
        # With the lengths, no two sets of files are hashed as the same bytes.
        digest.update(f"{name}\0{len(files[name])}\0".encode())
        digest.update(files[name])
    return digest.hexdigest()


def check_text(text: object, name: str = "text") -> None:
    """Raise unless an argument is a string.

    Args:
        text: The argument.
        name: Its name, for the message.

    Raises:
        TokenizerError: It is not a `str`.
    """
    if not isinstance(text, str):
        raise TokenizerError(f"`{name}` must be a string. Received: {describe_value(text)}.")


def check_encoding(text: object, unknown: object) -> None:
    """Raise unless the arguments of `encode` are valid.

    Args:
        text: The argument `text`.
        unknown: The argument `unknown`.

    Raises:
        TokenizerError: `text` is not a `str`.
        ConfigError: `unknown` is not an `UnknownPolicy`.
    """
    check_text(text)
    check_setting(TokenizerConfig, "unknown", unknown)


def check_token_ids(token_ids: IntArray | Sequence[int], vocab_size: int) -> Int64Array:
    """Return token ids as an array, after checking them.

    Args:
        token_ids: `[time]`, the argument of `decode`.
        vocab_size: One more than the largest accepted id.

    Returns:
        `[time]`.

    Raises:
        TokenizerError: The ids are not integers in one axis, or one is outside the vocabulary.
    """
    try:
        received = np.asarray(token_ids)
    except ValueError:  # A list of lists of different lengths.
        received = np.array(None)
    # An empty list becomes a float64 array.
    if received.ndim != 1 or (received.size and received.dtype.kind not in "iu"):
        raise TokenizerError(
            "`token_ids` must be integers in one axis. "
            f"Received: {describe_value(token_ids)}. Pass a list of ids, or one row of a batch."
        )
    if received.size and (received.min() < 0 or received.max() >= vocab_size):
        raise TokenizerError(
            f"A token id must be in [0, {vocab_size}). "
            f"Received: {received.min()} to {received.max()}. "
            "Decode with the tokenizer that encoded the text."
        )
    return received.astype(np.int64)
