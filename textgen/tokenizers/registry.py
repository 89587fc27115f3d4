"""Which kind of tokenizer to make, and which kind lies in a folder.

SentencePiece is imported only when a subword tokenizer is made or loaded, so that
a character model starts without it.
"""

import json
from pathlib import Path
from typing import Any

from textgen.config import TokenizerConfig
from textgen.errors import RunError, TokenizerError
from textgen.tokenizers.base import HEADER_FILE, SCHEMA_VERSION, Tokenizer
from textgen.tokenizers.char import CharTokenizer


def build_tokenizer(config: TokenizerConfig, training_text: str, alphabet_text: str) -> Tokenizer:
    """Return a new tokenizer for a corpus.

    Args:
        config: Its kind and size.
        training_text: What subwords are learned from.
        alphabet_text: What the character alphabet, and the counts for
            `min_count`, are taken from: the whole corpus, as nanoGPT does it.

    Returns:
        A `CharTokenizer` or a `SubwordTokenizer`.

    Raises:
        TokenizerError: There is nothing to build a vocabulary from.
    """
    if config.tokenizer == "char":
        return CharTokenizer.from_text(alphabet_text, config.min_count)
    from textgen.tokenizers.subword import train_subwords

    return train_subwords(training_text, config.vocab_size, config.subword_algorithm)


def load_tokenizer(folder: Path) -> Tokenizer:
    """Return the tokenizer whose `files()` lie in `folder`.

    Args:
        folder: The `tokenizer/` folder of a run directory.

    Returns:
        A tokenizer with the fingerprint of the one that was saved.

    Raises:
        RunError: A file is missing or damaged, the kind is unknown, or the schema
            is newer than this program.
    """
    header = _read_header(folder)
    kind = header.get("kind")
    try:
        if kind == "char":
            return CharTokenizer.from_header(header)
        if kind == "subword":
            return _load_subword(folder, header)
    except (KeyError, TokenizerError) as error:
        raise _damaged(folder, error) from error
    raise RunError(
        f"The tokenizer in {str(folder)!r} must be of the kind char or subword. "
        f"Received: {kind!r}. Copy the folder of the run again, or upgrade textgen."
    )


def _load_subword(folder: Path, header: dict[str, Any]) -> Tokenizer:
    from textgen.tokenizers.subword import MODEL_FILE, SubwordTokenizer

    return SubwordTokenizer(_read(folder / MODEL_FILE), str(header["algorithm"]))


def _read_header(folder: Path) -> dict[str, Any]:
    try:
        header = json.loads(_read(folder / HEADER_FILE))
    except ValueError as error:
        raise _damaged(folder, error) from error
    version = header.get("schema_version") if isinstance(header, dict) else None
    if not isinstance(version, int):
        raise _damaged(folder, "it has no schema_version")
    if version > SCHEMA_VERSION:
        raise RunError(
            f"The schema_version of the tokenizer in {str(folder)!r} must be at most "
            f"{SCHEMA_VERSION}. Received: {version}. A newer textgen wrote it: upgrade to read it."
        )
    return dict(header)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise RunError(
            f"A tokenizer needs the file {str(path)!r}, which cannot be read: {error.strerror}. "
            "Copy the whole folder of the run again."
        ) from error


def _damaged(folder: Path, reason: object) -> RunError:
    return RunError(
        f"The tokenizer in {str(folder)!r} is damaged: {reason}. "
        "Copy the whole folder of the run again."
    )
