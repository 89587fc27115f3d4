"""The weights of a language model as NumPy arrays.

This module knows shapes and names. It does NOT know how the arrays are multiplied, where they
are stored, what the tokens mean, or TensorFlow.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import numpy as np

from textgen.arrays import Float32Array
from textgen.config import Cell, ModelConfig
from textgen.errors import RunError

NORM_EPSILON = 1e-3

_LAYER_BIAS = re.compile(r"(gru|lstm|rnn)_\d+\.bias")
# Attributes by their names in the file, which are Keras's.
_LAYER_PARTS = {"kernel": "input_kernel", "recurrent_kernel": "recurrent_kernel", "bias": "bias"}
_OPTIONAL_PARTS = {
    "output_gate": _LAYER_PARTS,
    "norm": {"scale": "scale", "offset": "offset"},
}

# Settings of `ModelConfig` that the weights of a whole model determine.
_STRUCTURE = ("cell", "embedding_dim", "hidden_size", "num_layers", "residual", "initial_state")

# Gates in the order in which a layer's matrices contain them, by cell.
GATES: dict[Cell, tuple[str, ...]] = {
    "gru": ("update", "reset", "candidate"),
    "lstm": ("input", "forget", "candidate", "output"),
    "rnn": ("candidate",),
}


@dataclass(frozen=True, kw_only=True, eq=False)
class OutputGateWeights:
    """The gate `o_t = sigmoid(x_t W + h_{t-1} U + b)` on the output of a layer.

    Attributes:
        input_kernel: W, `[inputs, hidden_size]`.
        recurrent_kernel: U, `[hidden_size, hidden_size]`.
        bias: b, `[hidden_size]`.
    """

    input_kernel: Float32Array
    recurrent_kernel: Float32Array
    bias: Float32Array

    def __post_init__(self) -> None:
        _freeze(self, input_kernel=2, recurrent_kernel=2, bias=1)
        hidden = self.recurrent_kernel.shape[0]
        _require_shape("recurrent_kernel", self.recurrent_kernel, (hidden, hidden))
        _require_shape("input_kernel", self.input_kernel, (self.input_kernel.shape[0], hidden))
        _require_shape("bias", self.bias, (hidden,))


@dataclass(frozen=True, kw_only=True, eq=False)
class NormWeights:
    """Layer normalization: `(x - mean) / sqrt(variance + NORM_EPSILON) * scale + offset`.

    Attributes:
        scale: `[features]`.
        offset: `[features]`.

    Source: Ba et al. 2016, "Layer Normalization".
    """

    scale: Float32Array
    offset: Float32Array

    def __post_init__(self) -> None:
        _freeze(self, scale=1, offset=1)
        _require_shape("offset", self.offset, self.scale.shape)


@dataclass(frozen=True, kw_only=True, eq=False)
class LayerWeights:
    """One recurrent layer, its gates concatenated in the order of `GATES`.

    Attributes:
        input_kernel: `[inputs, gates * hidden_size]`.
        recurrent_kernel: `[hidden_size, gates * hidden_size]`.
        bias: `[2, 3 * hidden_size]` for a GRU, added to the input product and to the recurrent
            product; `[1, gates * hidden_size]` for the other cells, added to their sum.
        output_gate: Gate on the output; None: the output is `h`.
        norm: Layer normalization of the input; None: the input is not normalized.

    Raises:
        RunError: The shapes do not fit together, or an array is not float32.

    Source: `keras.layers.GRU` with `reset_after=True`, `LSTM` and `SimpleRNN`.
    """

    input_kernel: Float32Array
    recurrent_kernel: Float32Array
    bias: Float32Array
    output_gate: OutputGateWeights | None = None
    norm: NormWeights | None = None

    def __post_init__(self) -> None:
        _freeze(self, input_kernel=2, recurrent_kernel=2, bias=2)
        hidden = self.hidden_size
        gates = len(GATES[self.cell])
        _require_shape("recurrent_kernel", self.recurrent_kernel, (hidden, gates * hidden))
        _require_shape("input_kernel", self.input_kernel, (self.inputs, gates * hidden))
        _require_shape("bias", self.bias, (2 if self.cell == "gru" else 1, gates * hidden))
        if self.output_gate is not None:
            expected = (self.inputs, hidden)
            _require_shape("output_gate.kernel", self.output_gate.input_kernel, expected)
        if self.norm is not None:
            _require_shape("norm.scale", self.norm.scale, (self.inputs,))

    @property
    def cell(self) -> Cell:
        """The cell type, inferred from the number of gates."""
        gates = self.recurrent_kernel.shape[1] // self.hidden_size
        return next((cell for cell, names in GATES.items() if len(names) == gates), "gru")

    @property
    def inputs(self) -> int:
        """Number of features of the layer's input."""
        return int(self.input_kernel.shape[0])

    @property
    def hidden_size(self) -> int:
        """Units of the layer."""
        return int(self.recurrent_kernel.shape[0])

    @property
    def state_size(self) -> int:
        """Number of values in the state: `h`; for an LSTM, `h` and `c` concatenated."""
        return self.hidden_size * (2 if self.cell == "lstm" else 1)


@dataclass(frozen=True, kw_only=True, eq=False)
class ModelWeights:
    """The weights of a whole model: Embedding, recurrent layers, Dense. Read-only float32.

    Attributes:
        embedding: `[vocab_size, embedding_dim]`.
        layers: All of one cell and size; the first one reads the embedding.
        dense_kernel: `[hidden_size, vocab_size]`.
        dense_bias: `[vocab_size]`.
        residual: Whether each layer but the first adds its input to its output.
        learned_initial_state: `[num_layers, state_size]`; None: the initial state is zero.

    Raises:
        RunError: The shapes do not fit together, or an array is not float32.
    """

    embedding: Float32Array
    layers: tuple[LayerWeights, ...]
    dense_kernel: Float32Array
    dense_bias: Float32Array
    residual: bool = False
    learned_initial_state: Float32Array | None = None

    def __post_init__(self) -> None:
        _freeze(self, embedding=2, dense_kernel=2, dense_bias=1)
        if not self.layers:
            raise RunError("A model must have at least 1 recurrent layer. Received: 0.")
        width = self.embedding_dim
        for index, layer in enumerate(self.layers):
            expected = (width, self.layers[0].recurrent_kernel.shape[1])
            _require_shape(f"{self.cell}_{index}.kernel", layer.input_kernel, expected)
            width = layer.hidden_size
        _require_shape("dense.kernel", self.dense_kernel, (width, self.vocab_size))
        _require_shape("dense.bias", self.dense_bias, (self.vocab_size,))
        if self.learned_initial_state is not None:
            _freeze(self, learned_initial_state=2)
            expected = (self.num_layers, self.state_size)
            _require_shape("first_state", self.learned_initial_state, expected)

    @property
    def vocab_size(self) -> int:
        """Number of token ids."""
        return int(self.embedding.shape[0])

    @property
    def embedding_dim(self) -> int:
        """Size of a token's embedding vector."""
        return int(self.embedding.shape[1])

    @property
    def cell(self) -> Cell:
        """The cell type of the layers."""
        return self.layers[0].cell

    @property
    def hidden_size(self) -> int:
        """Units of each layer."""
        return self.layers[0].hidden_size

    @property
    def state_size(self) -> int:
        """Number of values in the state of each layer."""
        return self.layers[0].state_size

    @property
    def num_layers(self) -> int:
        """Number of recurrent layers."""
        return len(self.layers)

    @property
    def is_plain(self) -> bool:
        """Whether each layer and Dense read the `h` of the layer below, with nothing in between."""
        parts = (part for layer in self.layers for part in (layer.output_gate, layer.norm))
        return not self.residual and all(part is None for part in parts)

    @property
    def num_parameters(self) -> int:
        """Number of values; an embedding tied to the Dense layer counts twice."""
        return sum(array.size for array in self.to_tensors().values())

    def initial_state(self, batch: int) -> Float32Array:
        """Return the state at the start of a text, `[num_layers, batch, state_size]`."""
        state = np.zeros((self.num_layers, batch, self.state_size), np.float32)
        if self.learned_initial_state is not None:
            state += self.learned_initial_state[:, None]
        return state

    def to_config(self) -> ModelConfig:
        """Return the configuration of a model that has these weights.

        Dropout rates are 0, and `tie_weights` is off: the weights contain the Dense layer's
        kernel either way.
        """
        return ModelConfig(
            embedding_dim=self.embedding_dim,
            hidden_size=self.hidden_size,
            num_layers=self.num_layers,
            cell=self.cell,
            output_gate=self.layers[0].output_gate is not None,
            # A single layer adds nothing, and `ModelConfig` rejects the setting there.
            residual=self.residual and self.num_layers > 1,
            layer_norm=self.layers[-1].norm is not None,
            initial_state="zeros" if self.learned_initial_state is None else "learned",
            dropout=0.0,
        )

    def mismatches(self, config: ModelConfig) -> list[str]:
        """Return the settings of `config` that contradict these weights.

        Args:
            config: For example, the one stored in the same run directory.

        Returns:
            One phrase per difference, such as "`hidden_size` is 512 in the configuration, 256 in
            the weights"; empty if a model of this configuration can have these weights.
        """
        own = self.to_config()
        differences = [
            (f"`{name}`", getattr(config, name), getattr(own, name)) for name in _STRUCTURE
        ]
        for index, layer in enumerate(self.layers):
            gate, norm = layer.output_gate is not None, layer.norm is not None
            differences += [
                (f"`output_gate` of layer {index}", config.output_gate, gate),
                (f"`layer_norm` of layer {index}", config.layer_norm and index > 0, norm),
            ]
        return [
            f"{name} is {configured} in the configuration, {found} in the weights"
            for name, configured, found in differences
            if configured != found
        ]

    def to_tensors(self) -> dict[str, Float32Array]:
        """Return every array by its name in the file; `from_tensors` is the inverse.

        Shapes are those of the attributes; the layers' names begin with `{cell}_{index}.`.
        """
        tensors = {"embedding": self.embedding}
        for index, layer in enumerate(self.layers):
            tensors |= _layer_tensors(layer, f"{layer.cell}_{index}")
        tensors |= {"dense.kernel": self.dense_kernel, "dense.bias": self.dense_bias}
        if self.learned_initial_state is not None:
            tensors["first_state"] = self.learned_initial_state
        return tensors

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Float32Array], *, residual: bool = False) -> Self:
        """Return the weights from arrays named and shaped as by `to_tensors`.

        Args:
            tensors: float32 arrays by name; exactly the names of a model.
            residual: Whether each layer but the first adds its input to its output.

        Returns:
            The weights, sharing memory with contiguous arrays.

        Raises:
            RunError: A name is missing or unknown, or the shapes do not fit together.
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
            learned_initial_state=tensors.get("first_state"),
        )


def _require_names(tensors: Mapping[str, Float32Array], prefixes: list[str]) -> None:
    expected = {"embedding", "dense.kernel", "dense.bias"} | ({"first_state"} & set(tensors))
    expected |= {f"{prefix}.{part}" for prefix in prefixes for part in _LAYER_PARTS}
    for prefix in prefixes:
        for name, parts in _OPTIONAL_PARTS.items():
            group = {f"{prefix}.{name}.{part}" for part in parts}
            expected |= group if group & set(tensors) else set()
    wrong = sorted(expected ^ set(tensors))
    if wrong:
        raise RunError(
            "The tensors must be those of Embedding, recurrent layers and Dense. Received: "
            f"{', '.join(wrong)} missing or unknown. The file is not one of textgen: restore it."
        )


def _layer_tensors(layer: LayerWeights, prefix: str) -> dict[str, Float32Array]:
    tensors = {f"{prefix}.{part}": getattr(layer, name) for part, name in _LAYER_PARTS.items()}
    for name, parts in _OPTIONAL_PARTS.items():
        group = getattr(layer, name)
        if group is not None:
            tensors |= {
                f"{prefix}.{name}.{part}": getattr(group, attribute)
                for part, attribute in parts.items()
            }
    return tensors


def _layer_from_tensors(tensors: Mapping[str, Float32Array], prefix: str) -> LayerWeights:
    def group(name: str) -> dict[str, Float32Array]:
        names = _OPTIONAL_PARTS.get(name, _LAYER_PARTS)
        path = f"{prefix}.{name}" if name else prefix
        return {
            attribute: tensors[f"{path}.{part}"]
            for part, attribute in names.items()
            if f"{path}.{part}" in tensors
        }

    gate, norm = group("output_gate"), group("norm")
    return LayerWeights(
        **group(""),
        output_gate=OutputGateWeights(**gate) if gate else None,
        norm=NormWeights(**norm) if norm else None,
    )


def _freeze(owner: object, **ranks: int) -> None:
    """Replace arrays with read-only contiguous views; raise unless float32 of these ranks."""
    for name, rank in ranks.items():
        array = np.asarray(getattr(owner, name))
        if array.dtype != np.float32 or array.ndim != rank or 0 in array.shape:
            raise RunError(
                f"`{name}` must be float32 with {rank} axes, none empty. "
                f"Received: {array.dtype} {list(array.shape)}. Restore the weights from a copy."
            )
        view = np.ascontiguousarray(array).view()
        view.flags.writeable = False
        object.__setattr__(owner, name, view)


def _require_shape(name: str, array: Float32Array, expected: tuple[int, ...]) -> None:
    if array.shape != expected:
        raise RunError(
            f"`{name}` must have shape {list(expected)}. Received: {list(array.shape)}. "
            "Restore the weights from a copy."
        )
