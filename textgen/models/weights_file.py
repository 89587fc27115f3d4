"""The file of a model's weights: `model.safetensors`, checked whenever it is read.

This module knows the format, its metadata and checksums. It does NOT know what the arrays
are for, or TensorFlow: reading a model needs NumPy and safetensors alone.
"""

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from textgen.errors import RunError
from textgen.models.weights import Array, ModelWeights
from textgen.storage import tensors_sha256

WEIGHTS_SCHEMA_VERSION = 1


def serialize_weights(weights: ModelWeights, tokenizer_fingerprint: str) -> bytes:
    """Return the content of a `model.safetensors` file.

    Args:
        weights: What to store.
        tokenizer_fingerprint: sha256 of the tokenizer whose ids the model speaks.

    Returns:
        Bytes in the safetensors format; the metadata holds the schema version, the
        tokenizer's fingerprint and a hash of the tensors. Equal weights, equal bytes.

    Raises:
        RunError: A weight is NaN or infinite.
    """
    tensors = weights.to_tensors()
    _require_finite(tensors)
    metadata = {
        "schema_version": str(WEIGHTS_SCHEMA_VERSION),
        "tokenizer_sha256": tokenizer_fingerprint,
        "tensors_sha256": tensors_sha256(tensors),
        **({"residual": "true"} if weights.residual else {}),
    }
    return _with_sorted_header(save(dict(tensors), metadata))


def load_weights(path: Path | str, tokenizer_fingerprint: str) -> ModelWeights:
    """Read a file that `serialize_weights` gave, and check all that can be checked.

    Args:
        path: The `model.safetensors` file.
        tokenizer_fingerprint: sha256 of the tokenizer that will be used with it.

    Returns:
        The weights.

    Raises:
        RunError: The file is missing, damaged, newer than this program, of another
            shape, holds NaN or infinity, or belongs to another tokenizer.
    """
    path = Path(path)
    metadata, tensors = _read(path)
    _require_schema(path, metadata.get("schema_version", ""))
    if metadata.get("tensors_sha256") != tensors_sha256(tensors):
        raise _damaged(path, "its tensors do not have the sha256 they were saved with")
    if metadata.get("tokenizer_sha256") != tokenizer_fingerprint:
        raise RunError(
            f"{path} must belong to the tokenizer it is used with. Received: a tokenizer with "
            f"sha256 {tokenizer_fingerprint[:12]}…, expected "
            f"{metadata.get('tokenizer_sha256', 'none')[:12]}…. Restore the run's tokenizer folder."
        )
    _require_finite(tensors)
    return ModelWeights.from_tensors(tensors, residual="residual" in metadata)


def _with_sorted_header(content: bytes) -> bytes:
    """Put the header's keys in order: safetensors writes the metadata as its hash map lies."""
    size = int.from_bytes(content[:8], "little")
    header = json.dumps(json.loads(content[8 : 8 + size]), sort_keys=True, separators=(",", ":"))
    # The format wants the tensors to begin at a multiple of 8 bytes, filled up with spaces.
    padded = header.ljust(-(-len(header) // 8) * 8).encode()
    return len(padded).to_bytes(8, "little") + padded + content[8 + size :]


def _read(path: Path) -> tuple[dict[str, str], dict[str, Array]]:
    if not path.is_file():
        raise RunError(f"No weights at {path}. Train a model, or pass the run's folder.")
    try:
        with safe_open(path, framework="numpy") as file:
            names = file.keys()
            return file.metadata() or {}, {name: file.get_tensor(name) for name in names}
    except (SafetensorError, OSError, TypeError, ValueError, AttributeError) as error:
        raise _damaged(path, str(error)) from error


def _damaged(path: Path, why: str) -> RunError:
    return RunError(f"{path} is damaged: {why}. Restore it from a copy, or train again.")


def _require_schema(path: Path, received: str) -> None:
    if not received.isdigit():
        raise _damaged(path, "it has no schema version, so textgen did not write it")
    if int(received) > WEIGHTS_SCHEMA_VERSION:
        raise RunError(
            f"The schema version of {path} must be at most {WEIGHTS_SCHEMA_VERSION}. "
            f"Received: {received}. A newer textgen wrote it: upgrade to read it."
        )


def _require_finite(tensors: Mapping[str, Array]) -> None:
    for name, array in tensors.items():
        if not np.isfinite(array).all():
            raise RunError(
                f"The weights must be finite. Received: NaN or infinity in {name}. "
                "Training diverged: train anew with a lower --learning-rate."
            )
