"""A recurrent layer with its layer normalization, output gate, residual connection and dropout."""

import keras
import numpy as np
import tensorflow as tf

from textgen.arrays import Float32Array
from textgen.config import ModelConfig
from textgen.models.kernels import Execution
from textgen.models.output_gate import OutputGate
from textgen.models.recurrent import RecurrentLayer
from textgen.models.weights import NORM_EPSILON, LayerWeights, NormWeights, OutputGateWeights

# Names in `LayerWeights`, in the order of the Keras layer's weights.
_GATE = ("input_kernel", "recurrent_kernel", "bias")
_NORM = ("scale", "offset")


class Block(keras.layers.Layer):
    """One of the `num_layers` layers of a language model.

    Args:
        config: Sizes, parts and dropout.
        index: Position among the layers, from 0.
        execution: Kernel and matmul dtype; they decide the layout of the windows.
        seed: First of up to 10 consecutive seeds, of the initial weights and of dropout.
    """

    def __init__(self, config: ModelConfig, index: int, *, execution: Execution, seed: int):
        super().__init__(name=f"block_{index}")
        size = config.hidden_size
        self.layout = execution.layout
        self.input_size = config.embedding_dim if index == 0 else size
        self.adds_input = config.residual and index > 0
        self.recurrent = RecurrentLayer(
            size,
            cell=config.cell,
            kernel=execution.kernel,
            matmul_dtype=execution.matmul_dtype,
            weight_drop=config.weight_drop,
            forget_bias=config.forget_bias,
            seed=seed,
            name=f"{config.cell}_{index}",
        )
        self.norm = self.output_gate = None
        if config.layer_norm and index > 0:
            self.norm = keras.layers.LayerNormalization(
                self.layout.feature_axis, epsilon=NORM_EPSILON, name="norm"
            )
        if config.output_gate:
            self.output_gate = OutputGate(
                size, layout=self.layout, seed=seed + 3, name="output_gate"
            )
        self.dropout = keras.layers.Dropout(
            _dropout(config, index), noise_shape=self.layout.locked_noise_shape, seed=seed + 5
        )

    def build(self, *_: object) -> None:
        """Create the weights."""
        shape = self.layout.shape(self.input_size)
        self.recurrent.build(shape)
        if self.norm is not None:
            self.norm.build(shape)
        if self.output_gate is not None:
            self.output_gate.build(self.input_size)
        self.built = True

    def recurrent_kernel(self, training: bool = False) -> tf.Tensor:
        """Return the recurrent kernel of one step; see `RecurrentLayer.recurrent_kernel`."""
        return self.recurrent.recurrent_kernel(training)

    def call(
        self,
        x: tf.Tensor,
        state: tf.Tensor,
        recurrent_kernel: tf.Tensor,
        *,
        embeddings: tf.Tensor | None = None,
        matmul_dtype: tf.DType | None = None,
        training: bool = False,
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Run the block over a window.

        Args:
            x: Output of the block below, a window of `input_size` features; with `embeddings`,
                one-hot columns of `vocab_size` features.
            state: `[batch, state_size]` float32.
            recurrent_kernel: The kernel of this step, from the method of this name.
            embeddings: `[vocab_size, embedding_dim]`, multiplied into the kernels that read
                one-hot columns; None: `x` contains features.
            matmul_dtype: Dtype of the fused kernel's matrix products.
            training: Whether dropout is active.

        Returns:
            The output, a window of `hidden_size` features, and the next state, `[batch,
            state_size]`; both float32.
        """
        inputs = x if self.norm is None else self.norm(x)
        outputs, next_state = self.recurrent(
            inputs,
            state,
            input_kernel=_fold_embedding(embeddings, self.recurrent.input_kernel),
            recurrent_kernel=recurrent_kernel,
            matmul_dtype=matmul_dtype,
        )
        if self.output_gate is not None:
            initial_h = state[:, : outputs.shape[self.layout.feature_axis]]
            kernel = _fold_embedding(embeddings, self.output_gate.input_kernel)
            outputs = self.output_gate(inputs, outputs, initial_h, kernel)
        outputs = self.dropout(outputs, training=training)
        if self.adds_input:
            outputs += x
        return outputs, next_state

    def layer_weights(self) -> LayerWeights:
        """Return a copy of the weights as NumPy arrays."""
        gate, norm = self.output_gate, self.norm
        return LayerWeights(
            **self.recurrent.arrays(),
            output_gate=None if gate is None else OutputGateWeights(**_arrays(gate, _GATE)),
            norm=None if norm is None else NormWeights(**_arrays(norm, _NORM)),
        )

    def set_layer_weights(self, weights: LayerWeights) -> None:
        """Set the weights; `weights` must have the shapes and parts of this block."""
        self.recurrent.set_arrays(
            input_kernel=weights.input_kernel,
            recurrent_kernel=weights.recurrent_kernel,
            bias=weights.bias,
        )
        for layer, names, part in (
            (self.output_gate, _GATE, weights.output_gate),
            (self.norm, _NORM, weights.norm),
        ):
            if layer is not None:
                layer.set_weights([getattr(part, name) for name in names])


def _arrays(layer: keras.layers.Layer, names: tuple[str, ...]) -> dict[str, Float32Array]:
    return {name: np.array(value) for name, value in zip(names, layer.get_weights(), strict=True)}


def _dropout(config: ModelConfig, index: int) -> float:
    is_last = index == config.num_layers - 1
    return config.dropout if is_last or config.layer_dropout is None else config.layer_dropout


def _fold_embedding(embeddings: tf.Tensor | None, kernel: tf.Tensor) -> tf.Tensor | None:
    """Return the kernel that reads one-hot columns where `kernel` reads embedded tokens.

    Args:
        embeddings: `[vocab_size, embedding_dim]`, or None.
        kernel: `[embedding_dim, size]`.

    Returns:
        `[vocab_size, size]`; None without embeddings.
    """
    return None if embeddings is None else tf.matmul(embeddings, tf.convert_to_tensor(kernel))
