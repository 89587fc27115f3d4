"""Where the text comes from: files, standard input, Python's own documentation, TFDS.

A source is text by the time it leaves this module: UTF-8 decoded, no byte order
mark, every line ended by a plain newline. What the text is used for is not known here.
"""

import codecs
import sys
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from textgen.config import CorpusConfig
from textgen.corpora.documents import join_documents
from textgen.corpora.tfds import read_tfds
from textgen.errors import CorpusError


def read_corpus(config: CorpusConfig, stdin: BinaryIO | None = None) -> str:
    """Return the text of all sources, one after the other.

    Each file is a document, and each example of TFDS; see `join_documents`.

    Args:
        config: `sources` are paths of UTF-8 files, `-`, `builtin:NAME` or
            `tfds:NAME[:SPLIT]`.
        stdin: What `-` reads; None: the standard input of the process.

    Returns:
        The text, every line ended by a plain newline.

    Raises:
        CorpusError: A source cannot be read or is not UTF-8, or all are blank.
    """
    text = join_documents(_read_source(source, config, stdin) for source in config.sources)
    if not text.strip():
        raise CorpusError(
            "The corpus is empty: it must have at least one character that is not blank. "
            f"Received: {len(text)} blank characters from {', '.join(map(repr, config.sources))}. "
            "Name a file that has text in it."
        )
    return text


def _read_source(source: str, config: CorpusConfig, stdin: BinaryIO | None) -> str:
    kind, _, name = source.partition(":")
    if kind == "tfds":
        features = config.text_feature, config.tfds_data_dir, config.document_end
        return _plain_newlines(read_tfds(name, *features))
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
            "Name the files in it, for example with a pattern that the shell expands."
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
            f"The source {source[:200]!r} cannot be read: {reason}. "
            "Check its permissions, or pass - and feed it to standard input."
        ) from error


def decode_text(data: bytes, name: str) -> str:
    """Read bytes as UTF-8, a byte order mark left out and every line end a newline.

    Args:
        data: The bytes of the file.
        name: What to call it in an error.

    Returns:
        The text.

    Raises:
        CorpusError: The bytes are not UTF-8; the message has the offset of the first.
    """
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        utf16 = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
        guess = "UTF-16" if utf16 else "WINDOWS-1252"
        raise CorpusError(
            f"A text must be UTF-8. Received: {name}, whose byte at offset {error.start} "
            f"(0x{data[error.start]:02X}) is not. "
            f"Convert it, for example with: iconv -f {guess} -t UTF-8 OLD > NEW"
        ) from error
    return _plain_newlines(text.removeprefix("\ufeff"))


def _plain_newlines(text: str) -> str:
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
    """Return the topics of `help()`, about 465,000 characters, from the running Python."""
    try:
        from pydoc_data.topics import topics
    except ImportError as error:
        raise CorpusError(
            "builtin:python-docs needs the module pydoc_data. Received: a Python that was "
            "installed without it. Give a text file, or install the full Python."
        ) from error
    return "\n".join(topics[name] for name in sorted(topics))


_BUILTINS: dict[str, Callable[[], str]] = {"python-docs": _python_docs}
