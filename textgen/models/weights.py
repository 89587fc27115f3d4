"""The weights of a language model as plain arrays, and their file.

This module knows shapes, names and checksums. It does NOT know how the arrays are
multiplied, what the tokens mean, or TensorFlow: reading a model needs NumPy and
safetensors alone.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from textgen.config import Cell
from textgen.errors import RunError
from textgen.storage import tensors_sha256

WEIGHTS_SCHEMA_VERSION = 1
NORM_EPSILON = 1e-3

Array = NDArray[np.float32]

_LAYER_BIAS = re.compile(r"(gru|lstm|rnn)_\d+\.bias")
_LAYER_PARTS = ("kernel", "recurrent_kernel", "bias")
_OPTIONAL_PARTS = {
    "output_gate": _LAYER_PARTS,
    "norm": ("scale", "offset"),
}


# Gates that a layer's matrices hold side by side, in this order, by the kind of its cell.
GATES: dict[Cell, tuple[str, ...]] = {
    "gru": ("update", "reset", "candidate"),
    "lstm": ("input", "forget", "candidate", "output"),
    "rnn": ("candidate",),
}


@dataclass(frozen=True, kw_only=True, eq=False)
class OutputGateWeights:
    """The gate `o_t = sigmoid(x_t W + h_{t-1} U + b)` on what a layer passes on.

    Attributes:
        kernel: W, `[inputs, hidden_size]`.
        recurrent_kernel: U, `[hidden_size, hidden_size]`.
        bias: b, `[hidden_size]`.
    """

    kernel: Array
    recurrent_kernel: Array
    bias: Array

    def __post_init__(self) -> None:
        _freeze(self, kernel=2, recurrent_kernel=2, bias=1)
        hidden = self.recurrent_kernel.shape[0]
        _require_shape("recurrent_kernel", self.recurrent_kernel, (hidden, hidden))
        _require_shape("kernel", self.kernel, (self.kernel.shape[0], hidden))
        _require_shape("bias", self.bias, (hidden,))


@dataclass(frozen=True, kw_only=True, eq=False)
class NormWeights:
    """Layer normalisation: `(x - mean) / sqrt(variance + NORM_EPSILON) * scale + offset`.

    Attributes:
        scale: `[features]`.
        offset: `[features]`.

    Source: Ba et al. 2016, "Layer Normalization".
    """

    scale: Array
    offset: Array

    def __post_init__(self) -> None:
        _freeze(self, scale=1, offset=1)
        _require_shape("offset", self.offset, self.scale.shape)


@dataclass(frozen=True, kw_only=True, eq=False)
class LayerWeights:
    """One recurrent layer, its gates side by side in the order of `GATES`.

    Attributes:
        kernel: `[inputs, gates * hidden_size]`, what the layer's input is multiplied with.
        recurrent_kernel: `[hidden_size, gates * hidden_size]`.
        bias: `[2, 3 * hidden_size]` of a GRU, added to the input's and to the state's product;
            `[1, gates * hidden_size]` of the others, added to the sum of both.
        output_gate: On what the layer passes on; None: it passes its state on.
        norm: Of the layer's input; None: it is read as it comes.

    Raises:
        RunError: The shapes do not belong together, or a value is not float32.

    Source: `keras.layers.GRU` with `reset_after=True`, `LSTM` and `SimpleRNN`.
    """

    kernel: Array
    recurrent_kernel: Array
    bias: Array
    output_gate: OutputGateWeights | None = None
    norm: NormWeights | None = None

    def __post_init__(self) -> None:
        _freeze(self, kernel=2, recurrent_kernel=2, bias=2)
        hidden = self.hidden_size
        gates = len(GATES[self.cell])
        _require_shape("recurrent_kernel", self.recurrent_kernel, (hidden, gates * hidden))
        _require_shape("kernel", self.kernel, (self.inputs, gates * hidden))
        _require_shape("bias", self.bias, (2 if self.cell == "gru" else 1, gates * hidden))
        if self.output_gate is not None:
            expected = (self.inputs, hidden)
            _require_shape("output_gate.kernel", self.output_gate.kernel, expected)
        if self.norm is not None:
            _require_shape("norm.scale", self.norm.scale, (self.inputs,))

    @property
    def cell(self) -> Cell:
        """The kind of the cell, which the number of its gates tells."""
        gates = self.recurrent_kernel.shape[1] // self.hidden_size
        return next((cell for cell, names in GATES.items() if len(names) == gates), "gru")

    @property
    def inputs(self) -> int:
        """Width of what the layer reads."""
        return self.kernel.shape[0]

    @property
    def hidden_size(self) -> int:
        """Units of the layer."""
        return self.recurrent_kernel.shape[0]

    @property
    def state_size(self) -> int:
        """Values that the layer carries: `h`, and behind it the cell `c` of an LSTM."""
        return self.hidden_size * (2 if self.cell == "lstm" else 1)


@dataclass(frozen=True, kw_only=True, eq=False)
class ModelWeights:
    """All that a trained model is: Embedding, recurrent layers, Dense. Read-only float32.

    Attributes:
        embedding: `[vocab_size, embedding_dim]`.
        layers: The one that reads the embedding first; of one cell and size.
        dense_kernel: `[hidden_size, vocab_size]`.
        dense_bias: `[vocab_size]`.
        residual: Whether each layer but the first adds its input to what it passes on.
        first_state: `[num_layers, state_size]`, learnt; None: zeros.

    Raises:
        RunError: The shapes do not belong together, or a value is not float32.
    """

    embedding: Array
    layers: tuple[LayerWeights, ...]
    dense_kernel: Array
    dense_bias: Array
    residual: bool = False
    first_state: Array | None = None

    def __post_init__(self) -> None:
        _freeze(self, embedding=2, dense_kernel=2, dense_bias=1)
        if not self.layers:
            raise RunError("A model must have at least 1 recurrent layer. Received: 0.")
        width = self.embedding_dim
        for index, layer in enumerate(self.layers):
            expected = (width, self.layers[0].recurrent_kernel.shape[1])
            _require_shape(f"{self.cell}_{index}.kernel", layer.kernel, expected)
            width = layer.hidden_size
        _require_shape("dense.kernel", self.dense_kernel, (width, self.vocab_size))
        _require_shape("dense.bias", self.dense_bias, (self.vocab_size,))
        if self.first_state is not None:
            _freeze(self, first_state=2)
            expected = (self.num_layers, self.state_size)
            _require_shape("first_state", self.first_state, expected)

    @property
    def vocab_size(self) -> int:
        """Number of token ids."""
        return self.embedding.shape[0]

    @property
    def embedding_dim(self) -> int:
        """Width of a token's vector."""
        return self.embedding.shape[1]

    @property
    def cell(self) -> Cell:
        """The kind of the layers."""
        return self.layers[0].cell

    @property
    def hidden_size(self) -> int:
        """Units of each layer."""
        return self.layers[0].hidden_size

    @property
    def state_size(self) -> int:
        """Values that each layer carries."""
        return self.layers[0].state_size

    @property
    def num_layers(self) -> int:
        """Number of recurrent layers."""
        return len(self.layers)

    @property
    def is_plain(self) -> bool:
        """Whether what stands on a layer reads the layer's `h` itself, nothing in between."""
        parts = (part for layer in self.layers for part in (layer.output_gate, layer.norm))
        return not self.residual and all(part is None for part in parts)

    @property
    def num_parameters(self) -> int:
        """Number of values; an embedding that the Dense layer shares counts twice."""
        return sum(array.size for array in self.to_tensors().values())

    def initial_state(self, batch: int) -> Array:
        """Return the state at the beginning of a text, `[num_layers, batch, state_size]`."""
        state = np.zeros((self.num_layers, batch, self.state_size), np.float32)
        if self.first_state is not None:
            state += self.first_state[:, None]
        return state

    def to_tensors(self) -> dict[str, Array]:
        """Return every array under its name in the file; `from_tensors` is the inverse."""
        tensors = {"embedding": self.embedding}
        for index, layer in enumerate(self.layers):
            tensors |= _layer_tensors(layer, f"{layer.cell}_{index}")
        tensors |= {"dense.kernel": self.dense_kernel, "dense.bias": self.dense_bias}
        return tensors if self.first_state is None else tensors | {"first_state": self.first_state}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Array], *, residual: bool = False) -> Self:
        """Return the weights whose arrays `to_tensors` named.

        Args:
            tensors: Name to float32 array; exactly the names of a model.
            residual: Whether each layer but the first adds its input to what it passes on.

        Returns:
            The weights, sharing memory with contiguous arrays.

        Raises:
            RunError: A name is missing or unknown, or shapes do not belong together.
        """
        prefixes = sorted(
            (name.removesuffix(".bias") for name in tensors if _LAYER_BIAS.fullmatch(name)),
            key=lambda prefix: int(prefix.partition("_")[2]),
        )
        _require_names(tensors, prefixes)
        return cls(
            embedding=tensors["embedding"],
            layers=tuple(_layer_from_tensors(tensors, prefix) for prefix in prefixes),
            dense_kernel=tensors["dense.kernel"],
            dense_bias=tensors["dense.bias"],
            residual=residual,
            first_state=tensors.get("first_state"),
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


def _require_names(tensors: Mapping[str, Array], prefixes: list[str]) -> None:
    expected = {"embedding", "dense.kernel", "dense.bias"} | ({"first_state"} & set(tensors))
    expected |= {f"{prefix}.{part}" for prefix in prefixes for part in _LAYER_PARTS}
    for prefix in prefixes:
        for name, parts in _OPTIONAL_PARTS.items():
            group = {f"{prefix}.{name}.{part}" for part in parts}
            expected |= group if group & set(tensors) else set()
    wrong = sorted(expected ^ set(tensors))
    if wrong:
        raise RunError(
            "The tensors must be those of Embedding, recurrent layers and Dense. "
            f"Received: {', '.join(wrong)} missing or unknown. The file is of another model."
        )


def _layer_tensors(layer: LayerWeights, prefix: str) -> dict[str, Array]:
    tensors = {f"{prefix}.{part}": getattr(layer, part) for part in _LAYER_PARTS}
    for name, parts in _OPTIONAL_PARTS.items():
        group = getattr(layer, name)
        if group is not None:
            tensors |= {f"{prefix}.{name}.{part}": getattr(group, part) for part in parts}
    return tensors


def _layer_from_tensors(tensors: Mapping[str, Array], prefix: str) -> LayerWeights:
    def group(name: str) -> dict[str, Array]:
        names = _OPTIONAL_PARTS.get(name, _LAYER_PARTS)
        path = f"{prefix}.{name}" if name else prefix
        return {part: tensors[f"{path}.{part}"] for part in names if f"{path}.{part}" in tensors}

    gate, norm = group("output_gate"), group("norm")
    return LayerWeights(
        **group(""),
        output_gate=OutputGateWeights(**gate) if gate else None,
        norm=NormWeights(**norm) if norm else None,
    )


def _freeze(owner: object, **ranks: int) -> None:
    """Put read-only contiguous views in the place of the arrays; refuse other types."""
    for name, rank in ranks.items():
        array = np.asarray(getattr(owner, name))
        if array.dtype != np.float32 or array.ndim != rank or 0 in array.shape:
            raise RunError(
                f"`{name}` must be float32 with {rank} axes, none empty. "
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
