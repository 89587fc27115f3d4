"""A corpus as token ids, in memory and in a file that is checked when it is read.

The file is in the safetensors format. It contains both splits and, as metadata, their numbers of
characters and bytes, which convert a loss to bits per character. This module does NOT know where
the file is, or how it is written atomically.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import safetensors.numpy
from numpy.typing import NDArray

from textgen.arrays import IntArray
from textgen.config import TokenizerConfig, UnknownPolicy
from textgen.storage import damaged_file, read_safetensors, require_known_schema
from textgen.tokenizers import Tokenizer

CORPUS_FILE = "corpus.safetensors"
SCHEMA_VERSION = 1

_COUNTS = ("train_characters", "train_bytes", "validation_characters", "validation_bytes")
_REMEDY = "Restore it from a copy of the run, or train again."


@dataclass(frozen=True, kw_only=True, eq=False)
class TokenizedCorpus:
    """Both splits of a corpus as token ids.

    Attributes:
        train: `[time]` uint8, uint16 or int32: the smallest of them for the vocabulary.
        validation: `[time]`, the same dtype.
        train_characters: Code points of the text of `train`.
        train_bytes: UTF-8 bytes of the text of `train`.
        validation_characters: Code points of the text of `validation`.
        validation_bytes: UTF-8 bytes of the text of `validation`.
    """

    train: IntArray
    validation: IntArray
    train_characters: int
    train_bytes: int
    validation_characters: int
    validation_bytes: int

    def to_bytes(self) -> bytes:
        """Return the content of `corpus.safetensors`."""
        arrays = {"train": self.train, "validation": self.validation}
        metadata = {name: str(getattr(self, name)) for name in _COUNTS}
        metadata |= {"schema_version": str(SCHEMA_VERSION), "sha256": _digest(arrays, metadata)}
        return safetensors.numpy.save(arrays, metadata)

    @classmethod
    def load(cls, path: Path) -> Self:
        """Load a corpus from a file with the content of `to_bytes`.

        Args:
            path: The file.

        Returns:
            The corpus, with the same tokens, dtypes and counts.

        Raises:
            RunError: The file is missing or damaged, or was written by a newer program.
        """
        missing = f"The tokenized corpus {path} does not exist. {_REMEDY}"
        metadata, arrays = read_safetensors(path, missing=missing, remedy=_REMEDY)
        require_known_schema(path, metadata.get("schema_version"), SCHEMA_VERSION, _REMEDY)
        try:
            counts = {name: int(metadata[name]) for name in _COUNTS}
            sha256 = _digest(arrays, metadata)
            corpus = cls(train=arrays["train"], validation=arrays["validation"], **counts)
        except KeyError as error:
            raise damaged_file(path, f"it lacks {error}", _REMEDY) from error
        except ValueError as error:
            raise damaged_file(path, error, _REMEDY) from error
        if sha256 != metadata.get("sha256"):
            raise damaged_file(path, "its tensors do not match their sha256", _REMEDY)
        if not (_is_split(corpus.train) and _is_split(corpus.validation)):
            raise damaged_file(path, "its arrays must contain token ids, `[time]`", _REMEDY)
        return corpus


def tokenize_corpus(
    train_text: str, validation_text: str, tokenizer: Tokenizer, config: TokenizerConfig
) -> TokenizedCorpus:
    """Encode both splits, and count the characters and bytes of their texts.

    Args:
        train_text: The text to train on.
        validation_text: The text held out.
        tokenizer: The tokenizer that encodes them.
        config: `unknown` is the policy for unknown characters. If the tokenizer has an UNK
            (`min_count` is set), rare characters of the corpus itself are left out under
            `"skip"` and become UNK otherwise.

    Returns:
        The corpus. Characters that are left out are not counted, nor are their bytes.

    Raises:
        TokenizerError: A character is unknown under `"error"`.
    """
    policy = config.unknown
    if config.tokenizer == "char" and config.min_count is not None and policy == "error":
        policy = "unk"
    train, *train_counts = _encode(train_text, tokenizer, policy)
    validation, *validation_counts = _encode(validation_text, tokenizer, policy)
    return TokenizedCorpus(
        train=train,
        validation=validation,
        train_characters=train_counts[0],
        train_bytes=train_counts[1],
        validation_characters=validation_counts[0],
        validation_bytes=validation_counts[1],
    )


def _encode(text: str, tokenizer: Tokenizer, policy: UnknownPolicy) -> tuple[IntArray, int, int]:
    """Return the token ids, `[time]`, and the characters and bytes that they decode to."""
    token_ids = tokenizer.encode(text, policy)
    # Characters that are left out are not predicted, so they must not count in the denominator.
    encoded = tokenizer.decode(token_ids) if policy == "skip" else text
    num_bytes = len(encoded.encode("utf-8", "replace"))
    return token_ids.astype(_smallest_dtype(tokenizer.vocab_size)), len(encoded), num_bytes


def _smallest_dtype(vocab_size: int) -> type[np.integer[Any]]:
    if vocab_size <= 2**8:
        return np.uint8
    return np.uint16 if vocab_size <= 2**16 else np.int32


def _is_split(array: NDArray[Any]) -> bool:
    return array.dtype in (np.uint8, np.uint16, np.int32) and array.ndim == 1


def _digest(arrays: dict[str, NDArray[Any]], metadata: dict[str, str]) -> str:
    digest = hashlib.sha256("".join(f"{metadata[name]}\0" for name in _COUNTS).encode())
    for name in ("train", "validation"):
        digest.update(f"{arrays[name].dtype} {arrays[name].size}\0".encode())
        digest.update(np.ascontiguousarray(arrays[name]).data)
    return digest.hexdigest()
