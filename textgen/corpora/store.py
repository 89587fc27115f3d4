"""A corpus as token ids, in memory and as one file that is checked when read.

The file is safetensors: two arrays, and counts of characters and bytes as metadata,
from which losses become bits per character. Where it lies, and how it is written
without leaving half a file, is the caller's business.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import safetensors.numpy
from numpy.typing import NDArray
from safetensors import SafetensorError

from textgen.config import TokenizerConfig, UnknownPolicy
from textgen.errors import RunError
from textgen.storage import require_known_schema, safetensors_metadata
from textgen.tokenizers import Tokenizer

CORPUS_FILE = "corpus.safetensors"
SCHEMA_VERSION = 1

_COUNTS = ("train_characters", "train_bytes", "validation_characters", "validation_bytes")


@dataclass(frozen=True, kw_only=True, eq=False)
class TokenizedCorpus:
    """Both splits of a corpus as token ids.

    Attributes:
        train: `[time]` uint8, uint16 or int32: the smallest that holds the vocabulary.
        validation: `[time]`, the same dtype.
        train_characters: Code points that `train` stands for.
        train_bytes: UTF-8 bytes that `train` stands for.
        validation_characters: Code points that `validation` stands for.
        validation_bytes: UTF-8 bytes that `validation` stands for.
    """

    train: NDArray[np.integer]
    validation: NDArray[np.integer]
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
        """Return the corpus that was stored.

        Args:
            path: The file that holds what `to_bytes` gave.

        Returns:
            The corpus; every token and count as it was.

        Raises:
            RunError: The file is missing, damaged or comes from a newer program.
        """
        try:
            return cls.from_bytes(path.read_bytes())
        except OSError as error:
            raise RunError(
                f"The corpus {str(path)!r} cannot be read: {error.strerror}. "
                "Copy the run again, or start it anew."
            ) from error

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Rebuild what `to_bytes` gave.

        Args:
            data: The content of `corpus.safetensors`.

        Returns:
            The corpus; every token and count as it was.

        Raises:
            RunError: The content is damaged or comes from a newer program.
        """
        try:
            arrays = safetensors.numpy.load(data)
            metadata = safetensors_metadata(data)
            require_known_schema(CORPUS_FILE, int(metadata["schema_version"]), SCHEMA_VERSION)
            counts = {name: int(metadata[name]) for name in _COUNTS}
            corpus = cls(train=arrays["train"], validation=arrays["validation"], **counts)
        except (SafetensorError, KeyError, TypeError, ValueError) as error:
            raise _damaged(" ".join(str(error).split())) from error
        if _digest(arrays, metadata) != metadata.get("sha256"):
            raise _damaged("its sha256 is not the one that was written")
        return corpus


def tokenize_corpus(
    train_text: str, validation_text: str, tokenizer: Tokenizer, config: TokenizerConfig
) -> TokenizedCorpus:
    """Return both splits as token ids, with what they stand for.

    Args:
        train_text: The text to train on.
        validation_text: The text held out.
        tokenizer: What encodes them.
        config: `unknown` says what to do with an unknown character. Where the
            tokenizer has an UNK (`min_count` given), rare characters of the corpus
            itself are left out under `"skip"` and become UNK otherwise.

    Returns:
        The corpus. A character left out counts neither as character nor as bytes.

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


def _encode(
    text: str, tokenizer: Tokenizer, policy: UnknownPolicy
) -> tuple[NDArray[np.integer], int, int]:
    token_ids = tokenizer.encode(text, policy)
    # A text with characters left out costs fewer nats: it must not count as the whole.
    stands_for = tokenizer.decode(token_ids) if policy == "skip" else text
    num_bytes = len(stands_for.encode("utf-8", "replace"))
    return token_ids.astype(_smallest_dtype(tokenizer.vocab_size)), len(stands_for), num_bytes


def _smallest_dtype(vocab_size: int) -> type[np.integer]:
    if vocab_size <= 2**8:
        return np.uint8
    return np.uint16 if vocab_size <= 2**16 else np.int32


def _digest(arrays: dict[str, NDArray[np.integer]], metadata: dict[str, str]) -> str:
    digest = hashlib.sha256("".join(f"{metadata[name]}\0" for name in _COUNTS).encode())
    for name in ("train", "validation"):
        digest.update(f"{arrays[name].dtype} {arrays[name].size}\0".encode())
        digest.update(np.ascontiguousarray(arrays[name]).data)
    return digest.hexdigest()


def _damaged(reason: str) -> RunError:
    return RunError(f"{CORPUS_FILE} is damaged: {reason}. Copy the run again, or start it anew.")
