"""The file of a model's quantized weights, `quantized/FORMAT.safetensors`, and its checks.

The weights are stored because quantizing them depends on float rounding: every machine that reads
the file gets the same bytes. This module knows the format, its metadata and checksums. It does NOT
know how the weights are quantized or used.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save

from textgen.config import QuantizedFormat
from textgen.errors import RunError
from textgen.models.quantized import (
    Int4Matrix,
    Int8Matrix,
    QuantizationLoss,
    QuantizedMatrix,
    QuantizedWeights,
)
from textgen.models.weights_file import with_sorted_header
from textgen.storage import damaged_file, read_safetensors, require_known_schema, tensors_sha256

QUANTIZED_SCHEMA_VERSION = 1

_REMEDY = "Delete it: the weights are quantized again when they are needed."
# Arrays of a matrix that are stored; their names are those of the attributes.
_ARRAYS: dict[QuantizedFormat, tuple[str, ...]] = {
    "int8": ("values", "scales"),
    "int4": ("packed", "scales"),
}


def serialize_quantized(quantized: QuantizedWeights) -> bytes:
    """Return the content of a `quantized/FORMAT.safetensors` file.

    Args:
        quantized: The weights, with their loss if it was measured.

    Returns:
        Bytes in the safetensors format; the metadata contains the schema version, the format,
        the hash of the float32 weights, the losses and a hash of the tensors. Equal weights and
        losses give equal bytes.
    """
    tensors = _to_tensors(quantized)
    metadata = {
        "schema_version": str(QUANTIZED_SCHEMA_VERSION),
        "format": quantized.weights_format,
        "rows": str(quantized.rows),
        "weights_sha256": quantized.weights_sha256,
        "tensors_sha256": tensors_sha256(tensors),
    }
    if quantized.loss is not None:
        metadata["loss_float32"] = repr(quantized.loss.float32)
        metadata["loss_quantized"] = repr(quantized.loss.quantized)
    return with_sorted_header(save(dict(tensors), metadata))


def load_quantized(
    path: Path, weights_format: QuantizedFormat, weights_sha256: str
) -> QuantizedWeights | None:
    """Load the quantized weights from a file with the content of `serialize_quantized`.

    Args:
        path: The file; it need not exist.
        weights_format: The format that it must have.
        weights_sha256: Hash of the float32 weights that they will be used with.

    Returns:
        The quantized weights; None if there is no file, or if the file is stale: made from other
        weights.

    Raises:
        RunError: The file is damaged, has another format, or was written by a newer program.
    """
    if not path.exists():
        return None
    missing = f"{path} was deleted while it was read. Try again."
    metadata, tensors = read_safetensors(path, missing=missing, remedy=_REMEDY)
    require_known_schema(path, metadata.get("schema_version"), QUANTIZED_SCHEMA_VERSION, _REMEDY)
    if metadata.get("tensors_sha256") != tensors_sha256(tensors):
        raise damaged_file(path, "its tensors do not match their sha256", _REMEDY)
    if metadata.get("format") != weights_format:
        reason = f"its format must be {weights_format}, not {metadata.get('format')}"
        raise damaged_file(path, reason, _REMEDY)
    if metadata.get("weights_sha256") != weights_sha256:
        return None
    try:
        return QuantizedWeights(
            weights_format=weights_format,
            products=_from_tensors(tensors, weights_format, int(metadata["rows"])),
            weights_sha256=weights_sha256,
            loss=_loss(metadata),
        )
    except KeyError as error:
        raise damaged_file(path, f"it lacks {error}", _REMEDY) from error
    except (RunError, ValueError) as error:
        raise damaged_file(path, error, _REMEDY) from error


def _to_tensors(quantized: QuantizedWeights) -> dict[str, NDArray[Any]]:
    """Return every array of the products as `product_0.values`, in the order of the layers."""
    return {
        f"product_{index}.{name}": np.ascontiguousarray(getattr(matrix, name))
        for index, matrix in enumerate(quantized.products)
        for name in _ARRAYS[quantized.weights_format]
    }


def _from_tensors(
    tensors: Mapping[str, NDArray[Any]], weights_format: QuantizedFormat, rows: int
) -> tuple[QuantizedMatrix, ...]:
    """Return the matrices from arrays named as by `_to_tensors`; raise `RunError` otherwise."""
    names = _ARRAYS[weights_format]
    count = len(tensors) // len(names)
    groups = [{name: f"product_{index}.{name}" for name in names} for index in range(count)]
    wrong = set(tensors) ^ {name for group in groups for name in group.values()}
    if wrong:
        raise RunError(f"its tensors have other names: {', '.join(sorted(wrong))}")
    arrays = [{key: tensors[name] for key, name in group.items()} for group in groups]
    if weights_format == "int8":
        return tuple(Int8Matrix(**group) for group in arrays)
    return tuple(Int4Matrix(rows=rows, **group) for group in arrays)


def _loss(metadata: Mapping[str, str]) -> QuantizationLoss | None:
    """Return the losses in the metadata, if any; raise `ValueError` unless both are numbers."""
    values = [metadata.get(name) for name in ("loss_float32", "loss_quantized")]
    numbers = [float(value) for value in values if value is not None]
    if not numbers:
        return None
    if len(numbers) != len(values):
        raise ValueError(f"its losses must be two numbers, not {values}")
    return QuantizationLoss(float32=numbers[0], quantized=numbers[1])
