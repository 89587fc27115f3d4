"""The file of a model's weights, `model.safetensors`, and its checks.

This module knows the format, its metadata and checksums. It does NOT know how the arrays are
used, nor TensorFlow: reading a model needs NumPy and safetensors only.
"""

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from safetensors.numpy import save

from textgen.arrays import Float32Array
from textgen.errors import RunError
from textgen.models.weights import ModelWeights
from textgen.storage import damaged_file, read_safetensors, require_known_schema, tensors_sha256

WEIGHTS_SCHEMA_VERSION = 1


def serialize_weights(weights: ModelWeights, tokenizer_fingerprint: str) -> bytes:
    """Return the content of a `model.safetensors` file.

    Args:
        weights: The weights.
        tokenizer_fingerprint: sha256 of the tokenizer that the model was trained with.

    Returns:
        Bytes in the safetensors format; the metadata contains the schema version, the
        tokenizer's fingerprint and a hash of the tensors. Equal weights give equal bytes.

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
    return with_sorted_header(save(dict(tensors), metadata))


def load_weights(path: Path | str, tokenizer_fingerprint: str) -> ModelWeights:
    """Load the weights from a file with the content of `serialize_weights`.

    Args:
        path: The `model.safetensors` file.
        tokenizer_fingerprint: sha256 of the tokenizer that the weights will be used with.

    Returns:
        The weights.

    Raises:
        RunError: The file is missing or damaged, has a newer schema, does not contain the tensors
            of one model, contains NaN or infinity, or belongs to another tokenizer.
    """
    path = Path(path)
    missing = f"No weights at {path}. Train a model, or pass the run directory."
    metadata, tensors = read_safetensors(path, missing=missing)
    require_known_schema(path, metadata.get("schema_version"), WEIGHTS_SCHEMA_VERSION)
    if metadata.get("tensors_sha256") != tensors_sha256(tensors):
        raise damaged_file(path, "its tensors do not match their sha256")
    if metadata.get("tokenizer_sha256") != tokenizer_fingerprint:
        expected = metadata.get("tokenizer_sha256", "none")
        raise RunError(
            f"{path} must be used with the tokenizer it was trained with, sha256 "
            f"{expected[:12]}…. Received: sha256 {tokenizer_fingerprint[:12]}…. "
            "Restore the tokenizer folder of the run."
        )
    _require_finite(tensors)
    return ModelWeights.from_tensors(tensors, residual="residual" in metadata)


def with_sorted_header(content: bytes) -> bytes:
    """Return the file with sorted header keys: safetensors writes them in hash map order."""
    size = int.from_bytes(content[:8], "little")
    header = json.dumps(json.loads(content[8 : 8 + size]), sort_keys=True, separators=(",", ":"))
    # The tensors must begin at a multiple of 8 bytes; the header is padded with spaces.
    padded = header.ljust(-(-len(header) // 8) * 8).encode()
    return len(padded).to_bytes(8, "little") + padded + content[8 + size :]


def _require_finite(tensors: Mapping[str, Float32Array]) -> None:
    for name, array in tensors.items():
        if not np.isfinite(array).all():
            raise RunError(
                f"The weights must be finite. Received: NaN or infinity in {name}. "
                "Training diverged: train again with a lower `learning_rate`."
            )
