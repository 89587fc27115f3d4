"""Files that are replaced atomically and checked when they are read.

A file is written under a temporary name, flushed to disk and renamed: a crash while a file is
being replaced leaves the old content or the new one, never a mixture.

Only regular files are read, and of bounded size, so that a named pipe cannot block and a sparse
file cannot exhaust memory. This module does NOT know what the files mean.
"""

import hashlib
import json
import logging
import os
import stat
import tempfile
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from textgen.errors import RunError

MAX_JSON_BYTES = 64 * 2**20

_log = logging.getLogger("textgen")
_REMEDY = "Restore it from a copy."
_MAX_REASON_LENGTH = 300
_KINDS = {
    stat.S_IFDIR: "a directory",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFSOCK: "a socket",
}


def write_atomically(path: Path, content: bytes) -> None:
    """Replace the file at `path` with `content`, atomically.

    Args:
        path: The file; its folder is created if it is missing.
        content: The whole new content.

    Raises:
        OSError: The file cannot be written; the old one, if any, is unchanged.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).chmod(0o666 & ~_umask())
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    _flush_folder(path.parent)


def is_temporary(name: str, targets: Iterable[str]) -> bool:
    """Return whether `write_atomically` uses `name` while it writes one of the files `targets`."""
    return any(name.startswith(f".{target}.") for target in targets)


def write_json_atomically(path: Path, values: Any) -> None:
    """Replace the file at `path` with `values` as indented JSON, as `write_atomically` does."""
    text = json.dumps(values, indent=2, ensure_ascii=False)
    write_atomically(path, (text + "\n").encode())


def write_if_possible(path: Path, content: bytes) -> None:
    """Replace the file at `path` with `content`, or log once that the file cannot be written.

    For results that can be computed again, so that a read-only run directory remains usable.
    """
    try:
        write_atomically(path, content)
    except OSError as error:
        _note_unwritable(path, error.strerror or str(error))


def read_regular_file(path: Path, *, max_bytes: int, missing: str, remedy: str = _REMEDY) -> bytes:
    """Read a regular file.

    Args:
        path: The file.
        max_bytes: Maximum size; a larger file is refused before it is read.
        missing: Message of the error if there is no file.
        remedy: What to do about a damaged file, as the last sentence of the error.

    Returns:
        The content.

    Raises:
        RunError: The file is missing, too large, not a regular file, or cannot be read.
    """
    _require_regular(path, missing, remedy)
    try:
        # Must not block either if a named pipe has replaced the file since the check.
        handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | _BINARY)
        with os.fdopen(handle, "rb") as file:
            size = os.fstat(handle).st_size
            content = file.read(max_bytes + 1) if size <= max_bytes else b""
    except OSError as error:
        raise _unreadable(path, error) from error
    if max(size, len(content)) > max_bytes:
        size = max(size, len(content))
        raise damaged_file(path, f"it must have at most {max_bytes:,} bytes, not {size:,}", remedy)
    return content


def read_json_object(path: Path, *, missing: str, remedy: str = _REMEDY) -> dict[str, Any]:
    """Read a JSON file that contains one object.

    Args:
        path: The file, at most 64 MiB.
        missing: Message of the error if there is no file.
        remedy: What to do about a damaged file, as the last sentence of the error.

    Returns:
        The object. No key appears twice, at any depth.

    Raises:
        RunError: The file is missing, too large, not a regular file, or not JSON in UTF-8, or it
            contains anything but an object.
    """
    content = read_regular_file(path, max_bytes=MAX_JSON_BYTES, missing=missing, remedy=remedy)
    try:
        return parse_json_object(content)
    except ValueError as error:
        raise damaged_file(path, error, remedy) from error


def parse_json_object(content: bytes) -> dict[str, Any]:
    """Return the object in a JSON text; raises `ValueError` if it contains anything else."""
    try:
        # Also raises ValueError for a number with more than 4,300 digits.
        values = json.loads(content.decode(), object_pairs_hook=_without_duplicates)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    if not isinstance(values, dict):
        raise ValueError("it must contain a JSON object")
    return values


def read_safetensors(
    path: Path, *, missing: str, remedy: str = _REMEDY
) -> tuple[dict[str, str], dict[str, NDArray[Any]]]:
    """Read a safetensors file.

    Args:
        path: The file; the tensors that its header describes must fill it exactly.
        missing: Message of the error if there is no file.
        remedy: What to do about a damaged file, as the last sentence of the error.

    Returns:
        The metadata, empty if there is none, and the tensors by name. Hashes are not checked.

    Raises:
        RunError: The file is missing, damaged, not a regular file, or does not fit in memory.
    """
    _require_regular(path, missing, remedy)
    try:
        with safe_open(path, framework="numpy") as file:
            names = file.keys()
            return file.metadata() or {}, {name: file.get_tensor(name) for name in names}
    except PermissionError as error:
        raise _unreadable(path, error) from error
    except MemoryError as error:
        raise damaged_file(path, "its tensors do not fit in memory", remedy) from error
    # safetensors raises the last three for dtypes that NumPy lacks, unless ml_dtypes is imported.
    except (SafetensorError, OSError, TypeError, ValueError, AttributeError) as error:
        raise damaged_file(path, error, remedy) from error


def require_known_schema(
    path: Path | str, received: object, newest: int, remedy: str = _REMEDY
) -> int:
    """Check the schema version of a file.

    Args:
        path: The file, for the message.
        received: The file's `schema_version`: an integer, or its digits as a string.
        newest: The latest schema that this program knows.
        remedy: What to do about a file without a version, as the last sentence of the error.

    Returns:
        The version.

    Raises:
        RunError: The version is missing, not a number, or later than `newest`.
    """
    version = int(received) if isinstance(received, str) and _is_number(received) else received
    if not isinstance(version, int) or isinstance(version, bool):
        raise damaged_file(path, "it has no schema_version", remedy)
    if version > newest:
        raise RunError(
            f"The schema_version of {path} must be at most {newest}. "
            f"Received: {version}. A newer textgen wrote it: upgrade to read it."
        )
    return version


def damaged_file(path: Path | str, reason: object, remedy: str = _REMEDY) -> RunError:
    """Return the error about a file whose content is not as textgen wrote it."""
    words = " ".join(str(reason).split()).rstrip(".")
    if len(words) > _MAX_REASON_LENGTH:
        words = f"{words[:_MAX_REASON_LENGTH]}…"
    return RunError(f"{path} is damaged: {words}. {remedy}")


def tensors_sha256(tensors: Mapping[str, NDArray[np.generic]]) -> str:
    """Return a hash of names, dtypes, shapes and contents, independent of their order."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        array = np.ascontiguousarray(tensors[name])
        digest.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        digest.update(array.data.cast("B") if array.size else b"")
    return digest.hexdigest()


_BINARY: int = getattr(os, "O_BINARY", 0)


@cache
def _note_unwritable(path: Path, reason: str) -> None:
    _log.warning("%s cannot be written (%s): its content is used, but not stored", path, reason)


def _require_regular(path: Path, missing: str, remedy: str) -> None:
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        raise RunError(missing) from None
    # ValueError: the path contains a null character.
    except (OSError, ValueError) as error:
        raise _unreadable(path, error) from error
    if not stat.S_ISREG(mode):
        kind = _KINDS.get(stat.S_IFMT(mode), "a special file")
        raise damaged_file(path, f"it must be a regular file, not {kind}", remedy)


def _unreadable(path: Path, error: OSError | ValueError) -> RunError:
    reason = getattr(error, "strerror", None) or str(error)
    return RunError(f"{path} cannot be read: {reason}. Check the file and its permissions.")


def _without_duplicates(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for key, value in pairs:
        if key in values:
            raise ValueError(f"it contains the key {key!r} twice")
        values[key] = value
    return values


def _is_number(text: str) -> bool:
    """Return whether a string is a number of at most nine ASCII digits."""
    return text.isascii() and text.isdigit() and len(text) < 10


def _umask() -> int:
    """Return the process's umask: mkstemp creates files that only their owner can read."""
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _flush_folder(folder: Path) -> None:
    """Make the rename itself durable, on platforms that can open a folder."""
    if os.name == "nt":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
