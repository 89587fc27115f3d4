"""The weights of a language model as plain arrays.

This module knows shapes and names. It does NOT know how the arrays are multiplied, where
they are stored, what the tokens mean, or TensorFlow.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from textgen.config import Cell, ModelConfig
from textgen.errors import RunError

NORM_EPSILON = 1e-3

Array = NDArray[np.float32]

_LAYER_BIAS = re.compile(r"(gru|lstm|rnn)_\d+\.bias")
# Name in the file to attribute; the file keeps the names that Keras uses.
_LAYER_PARTS = {"kernel": "input_kernel", "recurrent_kernel": "recurrent_kernel", "bias": "bias"}
_OPTIONAL_PARTS = {
    "output_gate": _LAYER_PARTS,
    "norm": {"scale": "scale", "offset": "offset"},
}

# Settings of `ModelConfig` that show in the weights of a whole model.
_STRUCTURE = ("cell", "embedding_dim", "hidden_size", "num_layers", "residual", "initial_state")

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
        input_kernel: W, `[inputs, hidden_size]`.
        recurrent_kernel: U, `[hidden_size, hidden_size]`.
        bias: b, `[hidden_size]`.
    """

    input_kernel: Array
    recurrent_kernel: Array
    bias: Array

    def __post_init__(self) -> None:
        _freeze(self, input_kernel=2, recurrent_kernel=2, bias=1)
        hidden = self.recurrent_kernel.shape[0]
        _require_shape("recurrent_kernel", self.recurrent_kernel, (hidden, hidden))
        _require_shape("input_kernel", self.input_kernel, (self.input_kernel.shape[0], hidden))
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
        input_kernel: `[inputs, gates * hidden_size]`, what the layer's input is multiplied with.
        recurrent_kernel: `[hidden_size, gates * hidden_size]`.
        bias: `[2, 3 * hidden_size]` of a GRU, added to the input's and to the state's product;
            `[1, gates * hidden_size]` of the others, added to the sum of both.
        output_gate: On what the layer passes on; None: it passes its state on.
        norm: Of the layer's input; None: it is read as it comes.

    Raises:
        RunError: The shapes do not belong together, or a value is not float32.

    Source: `keras.layers.GRU` with `reset_after=True`, `LSTM` and `SimpleRNN`.
    """

    input_kernel: Array
    recurrent_kernel: Array
    bias: Array
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
        """The kind of the cell, which the number of its gates tells."""
        gates = self.recurrent_kernel.shape[1] // self.hidden_size
        return next((cell for cell, names in GATES.items() if len(names) == gates), "gru")

    @property
    def inputs(self) -> int:
        """Width of what the layer reads."""
        return self.input_kernel.shape[0]

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
        learned_initial_state: `[num_layers, state_size]`, learned; None: zeros.

    Raises:
        RunError: The shapes do not belong together, or a value is not float32.
    """

    embedding: Array
    layers: tuple[LayerWeights, ...]
    dense_kernel: Array
    dense_bias: Array
    residual: bool = False
    learned_initial_state: Array | None = None

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
        if self.learned_initial_state is not None:
            state += self.learned_initial_state[:, None]
        return state

    def to_config(self) -> ModelConfig:
        """Return the configuration of a model that has these weights.

        Dropout rates are 0, and `tie_weights` is off: it does not show in the weights, which
        contain the Dense layer's kernel either way.
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
        """Return where `config` describes another model than these weights.

        Args:
            config: For example the one stored in the same run directory.

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

    def to_tensors(self) -> dict[str, Array]:
        """Return every array under its name in the file; `from_tensors` is the inverse."""
        tensors = {"embedding": self.embedding}
        for index, layer in enumerate(self.layers):
            tensors |= _layer_tensors(layer, f"{layer.cell}_{index}")
        tensors |= {"dense.kernel": self.dense_kernel, "dense.bias": self.dense_bias}
        if self.learned_initial_state is not None:
            tensors["first_state"] = self.learned_initial_state
        return tensors

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
            learned_initial_state=tensors.get("first_state"),
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
    tensors = {f"{prefix}.{part}": getattr(layer, name) for part, name in _LAYER_PARTS.items()}
    for name, parts in _OPTIONAL_PARTS.items():
        group = getattr(layer, name)
        if group is not None:
            tensors |= {
                f"{prefix}.{name}.{part}": getattr(group, attribute)
                for part, attribute in parts.items()
            }
    return tensors


def _layer_from_tensors(tensors: Mapping[str, Array], prefix: str) -> LayerWeights:
    def group(name: str) -> dict[str, Array]:
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
