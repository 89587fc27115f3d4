"""Files that are whole or not there: written beside, flushed, renamed.

A machine that dies while a file is being replaced leaves the old content or the
new, never a part of either.
"""

import hashlib
import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from textgen.errors import RunError


def write_atomically(path: Path, content: bytes) -> None:
    """Replace the file at `path` by `content` in one step.

    Args:
        path: The file; its folder is made when missing.
        content: All that the file will hold.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, beside = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        Path(beside).chmod(0o666 & ~_umask())
        Path(beside).replace(path)
    except BaseException:
        Path(beside).unlink(missing_ok=True)
        raise
    _flush_folder(path.parent)


def write_json_atomically(path: Path, values: Any) -> None:
    """Replace the file at `path` by `values` as indented JSON."""
    text = json.dumps(values, indent=2, ensure_ascii=False)
    write_atomically(path, (text + "\n").encode())


def tensors_sha256(tensors: Mapping[str, NDArray[np.generic]]) -> str:
    """Return a hash over names, dtypes, shapes and contents, whatever their order."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        array = np.ascontiguousarray(tensors[name])
        digest.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        digest.update(array.data.cast("B") if array.size else b"")
    return digest.hexdigest()


def safetensors_metadata(data: bytes) -> dict[str, str]:
    """Return the metadata of a safetensors file: eight bytes of length, then JSON."""
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    return dict(header["__metadata__"])


def require_known_schema(name: str, version: int, newest: int) -> None:
    """Refuse the file `name`, by a `RunError`, if its schema is newer than the `newest` known."""
    if version > newest:
        raise RunError(
            f"The schema_version of {name} must be at most {newest}. "
            f"Received: {version}. A newer textgen wrote it: upgrade to read it."
        )


def _umask() -> int:
    """Return the process's umask; mkstemp makes files that only their owner can read."""
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _flush_folder(folder: Path) -> None:
    """Make the rename itself durable; a platform that cannot open a folder is left alone."""
    if os.name == "nt":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
