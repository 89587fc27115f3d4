"""The weights of a language model as plain arrays, and their file.

This module knows shapes, names and checksums. It does NOT know how the arrays are
multiplied, what the tokens mean, or TensorFlow: reading a model needs NumPy and
safetensors alone.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from textgen.errors import RunError
from textgen.storage import tensors_sha256

WEIGHTS_SCHEMA_VERSION = 1

Array = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True, eq=False)
class GruWeights:
    """One GRU layer, gates side by side in the order update, reset, candidate.

    Attributes:
        kernel: `[inputs, 3 * hidden_size]`, what the layer's input is multiplied with.
        recurrent_kernel: `[hidden_size, 3 * hidden_size]`.
        bias: `[2, 3 * hidden_size]`, added to the input's and to the state's product.

    Raises:
        RunError: The shapes do not belong together, or a value is not float32.

    Source: `keras.layers.GRU` with `reset_after=True`.
    """

    kernel: Array
    recurrent_kernel: Array
    bias: Array

    def __post_init__(self) -> None:
        _freeze(self, "kernel", "recurrent_kernel", "bias")
        hidden = self.recurrent_kernel.shape[0]
        _require_shape("recurrent_kernel", self.recurrent_kernel, (hidden, 3 * hidden))
        _require_shape("kernel", self.kernel, (self.kernel.shape[0], 3 * hidden))
        _require_shape("bias", self.bias, (2, 3 * hidden))

    @property
    def hidden_size(self) -> int:
        """Units of the layer."""
        return self.recurrent_kernel.shape[0]


@dataclass(frozen=True, kw_only=True, eq=False)
class ModelWeights:
    """All that a trained model is: Embedding, GRU layers, Dense. Read-only float32.

    Attributes:
        embedding: `[vocab_size, embedding_dim]`.
        gru: The layers, the one that reads the embedding first.
        dense_kernel: `[hidden_size, vocab_size]`.
        dense_bias: `[vocab_size]`.

    Raises:
        RunError: The shapes do not belong together, or a value is not float32.
    """

    embedding: Array
    gru: tuple[GruWeights, ...]
    dense_kernel: Array
    dense_bias: Array

    def __post_init__(self) -> None:
        _freeze(self, "embedding", "dense_kernel", "dense_bias")
        if not self.gru:
            raise RunError("A model must have at least 1 GRU layer. Received: 0.")
        width = self.embedding_dim
        for index, layer in enumerate(self.gru):
            _require_shape(f"gru_{index}.kernel", layer.kernel, (width, 3 * self.hidden_size))
            width = layer.hidden_size
        _require_shape("dense.kernel", self.dense_kernel, (width, self.vocab_size))
        _require_shape("dense.bias", self.dense_bias, (self.vocab_size,))

    @property
    def vocab_size(self) -> int:
        """Number of token ids."""
        return self.embedding.shape[0]

    @property
    def embedding_dim(self) -> int:
        """Width of a token's vector."""
        return self.embedding.shape[1]

    @property
    def hidden_size(self) -> int:
        """Units of each GRU layer."""
        return self.gru[0].hidden_size

    @property
    def num_layers(self) -> int:
        """Number of GRU layers."""
        return len(self.gru)

    @property
    def num_parameters(self) -> int:
        """Number of trained values."""
        return sum(array.size for array in self.to_tensors().values())

    def to_tensors(self) -> dict[str, Array]:
        """Return every array under its name in the file; `from_tensors` is the inverse."""
        tensors = {"embedding": self.embedding}
        for index, layer in enumerate(self.gru):
            tensors[f"gru_{index}.kernel"] = layer.kernel
            tensors[f"gru_{index}.recurrent_kernel"] = layer.recurrent_kernel
            tensors[f"gru_{index}.bias"] = layer.bias
        return tensors | {"dense.kernel": self.dense_kernel, "dense.bias": self.dense_bias}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Array]) -> Self:
        """Return the weights whose arrays `to_tensors` named.

        Args:
            tensors: Name to float32 array; exactly the names of a model.

        Returns:
            The weights, sharing memory with contiguous arrays.

        Raises:
            RunError: A name is missing or unknown, or shapes do not belong together.
        """
        layers = sum(name.endswith(".recurrent_kernel") for name in tensors)
        _require_names(tensors, layers)
        return cls(
            embedding=tensors["embedding"],
            gru=tuple(_gru_from_tensors(tensors, index) for index in range(layers)),
            dense_kernel=tensors["dense.kernel"],
            dense_bias=tensors["dense.bias"],
        )


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
    return ModelWeights.from_tensors(tensors)


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


def _require_names(tensors: Mapping[str, Array], layers: int) -> None:
    parts = ("kernel", "recurrent_kernel", "bias")
    expected = {"embedding", "dense.kernel", "dense.bias"}
    expected |= {f"gru_{index}.{part}" for index in range(layers) for part in parts}
    wrong = sorted(expected ^ set(tensors))
    if wrong:
        raise RunError(
            "The tensors must be those of Embedding, GRU layers and Dense. "
            f"Received: {', '.join(wrong)} missing or unknown. The file is of another model."
        )


def _gru_from_tensors(tensors: Mapping[str, Array], index: int) -> GruWeights:
    return GruWeights(
        kernel=tensors[f"gru_{index}.kernel"],
        recurrent_kernel=tensors[f"gru_{index}.recurrent_kernel"],
        bias=tensors[f"gru_{index}.bias"],
    )


def _freeze(owner: object, *names: str) -> None:
    """Put read-only contiguous views in the place of the arrays; refuse other types."""
    for name in names:
        array = np.asarray(getattr(owner, name))
        ranks = (1,) if name == "dense_bias" else (2,)
        if array.dtype != np.float32 or array.ndim not in ranks or 0 in array.shape:
            raise RunError(
                f"`{name}` must be float32 with {ranks[0]} axes, none empty. "
                f"Received: {array.dtype} {list(array.shape)}. The file is of another model."
            )
        view = np.ascontiguousarray(array).view()
        view.flags.writeable = False
        object.__setattr__(owner, name, view)


def _require_shape(name: str, array: Array, expected: tuple[int, ...]) -> None:
    if array.shape != expected:
        raise RunError(
            f"`{name}` must have shape {list(expected)}. Received: {list(array.shape)}. "
            "The tensors are not of one model."
        )
