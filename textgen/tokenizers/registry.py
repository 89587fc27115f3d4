"""Building the tokenizer that a configuration describes, and loading the one in a folder."""

from os import PathLike
from pathlib import Path

from textgen.config import TokenizerConfig
from textgen.errors import RunError, TokenizerError, describe_value
from textgen.storage import (
    damaged_file,
    read_json_object,
    read_regular_file,
    require_known_schema,
)
from textgen.tokenizers.base import (
    HEADER_FILE,
    SCHEMA_VERSION,
    Tokenizer,
    check_text,
)
from textgen.tokenizers.char import CharTokenizer
from textgen.tokenizers.subword import MODEL_FILE, SubwordTokenizer, train_subwords

_REMEDY = "Copy the whole folder of the run again."
# Sufficient for millions of pieces.
_MAX_MODEL_BYTES = 64 * 2**20


def build_tokenizer(config: TokenizerConfig, training_text: str, alphabet_text: str) -> Tokenizer:
    """Return a new tokenizer for a corpus.

    Args:
        config: Kind and size of the tokenizer.
        training_text: The text from which subwords are learned.
        alphabet_text: The text from which a character tokenizer takes its alphabet and the counts
            for `min_count`: the whole corpus, as in nanoGPT.

    Returns:
        A `CharTokenizer` or a `SubwordTokenizer`.

    Raises:
        TokenizerError: An argument is not a string, or no vocabulary can be built from it.
        DependencyError: SentencePiece is needed, and is not installed or too old.
    """
    check_text(training_text, "training_text")
    check_text(alphabet_text, "alphabet_text")
    if config.tokenizer == "char":
        return CharTokenizer.from_text(alphabet_text, config.min_count)
    return train_subwords(training_text, config.vocab_size, config.subword_algorithm)


def load_tokenizer(folder: str | PathLike[str]) -> Tokenizer:
    """Load the tokenizer from a folder with the files of `Tokenizer.files`.

    Args:
        folder: The `tokenizer/` folder of a run directory.

    Returns:
        A tokenizer with the fingerprint of the one that was saved.

    Raises:
        RunError: A file is missing or damaged, the kind is unknown, or the files were written by
            a newer program.
        TokenizerError: `folder` is not a path.
        DependencyError: SentencePiece is needed, and is not installed.
    """
    if not isinstance(folder, str | PathLike):
        raise TokenizerError(f"`folder` must be a path. Received: {describe_value(folder)}.")
    path = Path(folder) / HEADER_FILE
    header = read_json_object(path, missing=_missing(path), remedy=_REMEDY)
    require_known_schema(path, header.get("schema_version"), SCHEMA_VERSION, _REMEDY)
    kind = header.get("kind")
    try:
        if kind == "char":
            return CharTokenizer.from_header(header)
        if kind == "subword":
            return SubwordTokenizer(_read_model(path.parent), str(header["algorithm"]))
    except KeyError as error:
        raise damaged_file(path, f"it lacks {error}", _REMEDY) from error
    except TokenizerError as error:
        raise damaged_file(path.parent, error, _REMEDY) from error
    raise RunError(
        f"The kind of the tokenizer in {path} must be char or subword. Received: {kind!r}. "
        "Copy the whole folder of the run again, or upgrade textgen."
    )


def _read_model(folder: Path) -> bytes:
    path = folder / MODEL_FILE
    return read_regular_file(
        path, max_bytes=_MAX_MODEL_BYTES, missing=_missing(path), remedy=_REMEDY
    )


def _missing(path: Path) -> str:
    return f"A tokenizer must have the file {path}, which does not exist. {_REMEDY}"
