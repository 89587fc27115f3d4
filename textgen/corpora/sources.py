"""Sources of text: files, standard input, the documentation of Python, and TFDS.

Text is decoded from UTF-8, its byte order mark is removed, and its line endings become newline
characters. This module does NOT know what the text is used for.
"""

import codecs
import sys
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from textgen.config import CorpusConfig
from textgen.corpora.documents import join_documents
from textgen.corpora.tfds import read_tfds
from textgen.errors import CorpusError, describe_value


def read_corpus(config: CorpusConfig, stdin: BinaryIO | None = None) -> str:
    """Return the text of all sources, in the given order.

    Each file and each TFDS example is a document; see `join_documents`.

    Args:
        config: `sources` are paths of UTF-8 files, `-`, `builtin:NAME` or `tfds:NAME[:SPLIT]`.
        stdin: The stream that `-` reads; None: the standard input of the process.

    Returns:
        The text, with newline characters as line endings.

    Raises:
        CorpusError: `config` is not a `CorpusConfig`, a source cannot be read or is not UTF-8,
            or all sources are blank.
        DependencyError: TFDS or TensorFlow is needed, and is not installed.
    """
    if not isinstance(config, CorpusConfig):
        raise CorpusError(
            f"`config` must be a CorpusConfig. Received: {describe_value(config)}. "
            "Pass CorpusConfig(sources=[PATH])."
        )
    text = join_documents(_read_source(source, config, stdin) for source in config.sources)
    if not text.strip():
        raise CorpusError(
            "The corpus must have at least one character that is not blank. "
            f"Received: {len(text)} blank characters from {', '.join(map(repr, config.sources))}. "
            "Pass a file that contains text."
        )
    return text


def decode_text(data: bytes, name: str) -> str:
    """Decode UTF-8, remove the byte order mark, and make all line endings newline characters.

    Args:
        data: The content of a file.
        name: Name of the file, for an error message.

    Returns:
        The text.

    Raises:
        CorpusError: `data` is not bytes, or not UTF-8; the message has the offset of the first
            invalid byte.
    """
    if not isinstance(data, bytes | bytearray):
        raise CorpusError(f"`data` must be bytes. Received: {describe_value(data)}.")
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        is_utf16 = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
        encoding = "UTF-16" if is_utf16 else "WINDOWS-1252"
        raise CorpusError(
            f"A text must be UTF-8. Received: {name}, whose byte at offset {error.start} "
            f"(0x{data[error.start]:02X}) is not. "
            f"Convert it, for example with: iconv -f {encoding} -t UTF-8 OLD > NEW"
        ) from error
    return _normalize_newlines(text.removeprefix("\ufeff"))


def _read_source(source: str, config: CorpusConfig, stdin: BinaryIO | None) -> str:
    kind, _, name = source.partition(":")
    if kind == "tfds":
        settings = config.text_feature, config.tfds_data_dir, config.document_end
        return _normalize_newlines(read_tfds(name, *settings))
    if kind == "builtin":
        text = _read_builtin(name)
    elif source == "-":
        text = decode_text((stdin or sys.stdin.buffer).read(), "standard input")
    else:
        text = decode_text(_read_file(source), repr(source))
    return join_documents([text], config.document_end)


def _read_file(source: str) -> bytes:
    path = Path(source)
    try:
        return path.read_bytes()
    except IsADirectoryError as error:
        raise CorpusError(
            f"A source must be a file. Received: the folder {source!r}. "
            "Pass the files in it, for example with a shell pattern such as FOLDER/*.txt."
        ) from error
    except FileNotFoundError as error:
        raise CorpusError(
            f"A source must be a file that exists. Received: {source!r}. "
            "Check the path, or pass - for standard input or builtin:python-docs for a "
            "text to try."
        ) from error
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise CorpusError(
            f"A source must be a readable file. Received: {source[:200]!r}, which cannot be read: "
            f"{reason}. Check its permissions, or pass - and pipe it to standard input."
        ) from error


def _normalize_newlines(text: str) -> str:
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _read_builtin(name: str) -> str:
    if name not in _BUILTINS:
        known = ", ".join(f"builtin:{known}" for known in sorted(_BUILTINS))
        raise CorpusError(
            f"A built-in text must be one of: {known}. Received: {'builtin:' + name!r}. "
            "Pass one of these, or the path of a file."
        )
    return _BUILTINS[name]()


def _python_docs() -> str:
    """Return the help topics of the running Python, about 465,000 characters."""
    try:
        from pydoc_data.topics import topics
    except ImportError as error:
        raise CorpusError(
            "builtin:python-docs needs the module pydoc_data. Received: a Python without it. "
            "Pass a text file, or install all of Python's standard library."
        ) from error
    return "\n".join(topics[name] for name in sorted(topics))


_BUILTINS: dict[str, Callable[[], str]] = {"python-docs": _python_docs}
