"""A recurrent layer with all that stands around it: norm, output gate, residual, dropout."""

import keras
import tensorflow as tf

from textgen.config import ModelConfig
from textgen.models.kernels import Execution
from textgen.models.output_gate import OutputGate
from textgen.models.recurrent import RecurrentLayer
from textgen.models.weights import NORM_EPSILON, LayerWeights, NormWeights, OutputGateWeights


class Block(keras.layers.Layer):
    """One of the `num_layers` of a language model.

    Args:
        config: Sizes, parts and dropout.
        index: Which of the layers it is, from 0.
        execution: How it is computed.
        seed: Seed of the initial weights and of dropout; it takes up to 10 from there.

    Its layout is that of the kernel: `[time, features, batch]` for the fused ones, else
    `[batch, time, features]`.
    """

    def __init__(self, config: ModelConfig, index: int, *, execution: Execution, seed: int):
        super().__init__(name=f"block_{index}")
        size = config.hidden_size
        self.fused = execution.kernel == "fused"
        self.inputs = config.embedding_dim if index == 0 else size
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
            axis = 1 if self.fused else 2
            self.norm = keras.layers.LayerNormalization(axis, epsilon=NORM_EPSILON, name="norm")
        if config.output_gate:
            self.output_gate = OutputGate(
                size, features_first=self.fused, seed=seed + 3, name="output_gate"
            )
        self.dropout = keras.layers.Dropout(
            _dropout(config, index), noise_shape=locked(execution), seed=seed + 5
        )

    def build(self, *_) -> None:
        """Make the weights."""
        self.recurrent.build((None, None, self.inputs))
        if self.norm is not None:
            self.norm.build((None, self.inputs, None) if self.fused else (None, None, self.inputs))
        if self.output_gate is not None:
            self.output_gate.build(self.inputs)
        self.built = True

    def call(
        self,
        x: tf.Tensor,
        state: tf.Tensor,
        recurrent_kernel: tf.Tensor,
        *,
        embeddings: tf.Tensor | None = None,
        products: tf.DType | None = None,
        training: bool = False,
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Run the block over a window.

        Args:
            x: What the block below passes on, in the layout of the kernel; or, with
                `embeddings`, one-hot columns of tokens.
            state: `[batch, state_size]` float32.
            recurrent_kernel: Of this step, from `RecurrentLayer.recurrent_kernel`.
            embeddings: `[vocab_size, embedding_dim]`, multiplied into the kernels that read
                one-hot columns; None: `x` holds features.
            products: Dtype of the matrix products of the fused kernels.
            training: Whether dropout acts.

        Returns:
            What the block passes on, in the layout of `x`, and the next state.
        """
        inputs = x if self.norm is None else self.norm(x)
        outputs, last = self._run(inputs, state, recurrent_kernel, embeddings, products)
        if self.output_gate is not None:
            before = state[:, : outputs.shape[1 if self.fused else 2]]
            kernel = _through(embeddings, self.output_gate.kernel)
            outputs = self.output_gate(inputs, outputs, before, kernel)
        outputs = self.dropout(outputs, training=training)
        return (outputs + tf.cast(x, outputs.dtype) if self.adds_input else outputs), last

    def _run(self, inputs, state, recurrent_kernel, embeddings, products):
        if not self.fused:
            return self.recurrent(inputs, state, recurrent_kernel)
        kernel = _through(embeddings, self.recurrent.kernel)
        outputs, last = self.recurrent.run_fused(
            inputs, tf.transpose(state), kernel, recurrent_kernel, products
        )
        return outputs, tf.transpose(last)

    def layer_weights(self) -> LayerWeights:
        """Return a copy of the weights as NumPy arrays."""
        gate, norm = self.output_gate, self.norm
        return LayerWeights(
            **self.recurrent.arrays(),
            output_gate=None if gate is None else OutputGateWeights(**_arrays(gate, _GATE)),
            norm=None if norm is None else NormWeights(**_arrays(norm, _NORM)),
        )

    def set_layer_weights(self, weights: LayerWeights) -> None:
        """Take over `weights`; their shapes and parts must be those of this block."""
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


# names in `LayerWeights` of a Keras layer's weights, and the layer's own, in its order
_GATE = {"input_kernel": "kernel", "recurrent_kernel": "recurrent_kernel", "bias": "bias"}
_NORM = {"scale": "gamma", "offset": "beta"}


def _arrays(layer: keras.layers.Layer, names: dict[str, str]):
    return {name: getattr(layer, own).numpy().copy() for name, own in names.items()}


def _dropout(config: ModelConfig, index: int) -> float:
    is_last = index == config.num_layers - 1
    return config.dropout if is_last or config.layer_dropout is None else config.layer_dropout


def _through(embeddings, kernel):
    """Return the kernel that reads one-hot columns where `kernel` reads embedded tokens."""
    return kernel if embeddings is None else tf.matmul(embeddings, tf.convert_to_tensor(kernel))


def locked(execution: Execution) -> tuple[int | None, ...]:
    """Return the noise shape of dropout that is one mask for all steps of a window.

    Source: Gal and Ghahramani 2016, "A Theoretically Grounded Application of Dropout in
    Recurrent Neural Networks".
    """
    return (1, None, None) if execution.kernel == "fused" else (None, 1, None)
