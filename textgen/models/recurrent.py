"""One recurrent layer with state in and state out, and three ways to run it.

It owns Keras's layer of its cell and so holds exactly its weights. A GRU or an LSTM is
made with every condition of the cuDNN kernel met and with `use_cudnn=True` where cuDNN was
chosen: should a condition fail, Keras raises instead of falling back in silence. On a CPU
the same weights go to `fused_recurrence`, and anywhere to `reference_recurrence`.
"""

import keras
import numpy as np
import tensorflow as tf

from textgen.config import Cell
from textgen.models.drop_connect import DropConnect
from textgen.models.recurrence.fused import fused_recurrence
from textgen.models.recurrence.reference import reference_recurrence
from textgen.models.weights import GATES, Array

_KEEPING_GATE: dict[Cell, str] = {"gru": "update", "lstm": "forget"}


class RecurrentLayer(keras.layers.Layer):
    """A GRU, an LSTM or a plain tanh cell over a sequence.

    There is no cuDNN kernel in Keras for the plain cell: with `"cudnn"` it runs Keras's own
    loop on the GPU.

    Args:
        hidden_size: Units.
        cell: `"gru"` (`reset_after=True`), `"lstm"` or `"rnn"`.
        kernel: The implementation that runs, `"cudnn"`, `"fused"` or `"reference"`.
        matmul_dtype: `"float16"`: cuDNN computes in it, weights stay float32.
        weight_drop: Share of the recurrent kernel's entries dropped in a training step.
        forget_bias: Initial bias of a GRU's update gate, on the side of the inputs, or of an
            LSTM's forget gate; None: as Keras has it, 0 and 1. The plain cell has no such gate.
        seed: Seed of the initial weights and of weight drop.
        name: Name of the layer.

    Source: for weight drop, Merity et al. 2017, "Regularizing and Optimizing LSTM
    Language Models" (DropConnect on the hidden-to-hidden matrix).
    """

    def __init__(
        self,
        hidden_size: int,
        *,
        cell: Cell,
        kernel: str,
        matmul_dtype: str = "float32",
        weight_drop: float = 0.0,
        forget_bias: float | None = None,
        seed: int,
        name: str | None = None,
    ):
        super().__init__(name=name)
        self.cell = cell
        self.implementation = kernel
        self.forget_bias = forget_bias
        self.stock = _stock_layer(hidden_size, cell, kernel, matmul_dtype, seed)
        self.weight_drop = DropConnect(weight_drop, seed=seed + 2)

    def build(self, inputs_shape, *_) -> None:
        """Make the weights for inputs of `[batch, time, features]`."""
        self.stock.build(inputs_shape)
        self.built = True
        if self.forget_bias is not None:
            bias = self.arrays()["bias"]
            gate = GATES[self.cell].index(_KEEPING_GATE[self.cell])
            np.split(bias[0], len(GATES[self.cell]))[gate][:] = self.forget_bias
            self.set_arrays(**{**self.arrays(), "bias": bias})

    @property
    def kernel(self):
        """The input kernel, `[features, gates * hidden_size]`, gates in the order of `GATES`."""
        return tf.convert_to_tensor(self.stock.cell.kernel)

    @property
    def bias(self):
        """The bias: `[2, 3 * hidden_size]` of a GRU, `[1, gates * hidden_size]` of the others.

        A GRU has one of the inputs and one of the recurrence.
        """
        bias = tf.convert_to_tensor(self.stock.cell.bias)
        return bias if self.cell == "gru" else bias[None]

    def recurrent_kernel(self, training: bool = False) -> tf.Tensor:
        """Return the recurrent kernel `[hidden_size, gates * hidden_size]`, in training with gaps.

        DrawnTokens once a step and handed to `call`, so that the parts of a batch share it.
        """
        kernel = tf.convert_to_tensor(self.stock.cell.recurrent_kernel)
        return self.weight_drop(kernel, training=training)

    def call(
        self, inputs: tf.Tensor, initial_state: tf.Tensor, recurrent_kernel: tf.Tensor | None = None
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Run the layer.

        Args:
            inputs: `[batch, time, features]` float.
            initial_state: `[batch, state_size]` float; of an LSTM `h` and behind it `c`.
            recurrent_kernel: From `recurrent_kernel`; None: the layer's own, whole.

        Returns:
            The outputs `[batch, time, hidden_size]` and the last state `[batch, state_size]`.
        """
        recurrent = self.recurrent_kernel() if recurrent_kernel is None else recurrent_kernel
        if self.implementation == "cudnn":
            return self._run_stock(inputs, initial_state, recurrent)
        if self.implementation == "reference":
            return reference_recurrence(
                inputs, initial_state, self.kernel, recurrent, self.bias, cell=self.cell
            )
        outputs, last = self.run_fused(
            tf.transpose(inputs, [1, 2, 0]), tf.transpose(initial_state), self.kernel, recurrent
        )
        return tf.transpose(outputs, [2, 0, 1]), tf.transpose(last)

    def run_fused(
        self,
        inputs: tf.Tensor,
        initial_state: tf.Tensor,
        kernel: tf.Tensor,
        recurrent_kernel: tf.Tensor,
        products: tf.DType | None = None,
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Run the fused kernel in its own layout, which the layers above share.

        Args:
            inputs: `[time, features, batch]`.
            initial_state: `[state_size, batch]` float32.
            kernel: `[features, gates * hidden_size]`: the layer's own, or what stands for it.
            recurrent_kernel: From `recurrent_kernel`.
            products: Dtype of the matrix products; None: float32.

        Returns:
            The outputs `[time, hidden_size, batch]` in the dtype of the products, and the
            last state `[state_size, batch]` in float32.
        """
        return fused_recurrence(
            inputs,
            initial_state,
            kernel,
            recurrent_kernel,
            self.bias,
            cell=self.cell,
            products=products,
        )

    def arrays(self) -> dict[str, Array]:
        """Return copies of the weights, named and shaped as in `LayerWeights`."""
        kernel, recurrent_kernel, bias = (np.array(value) for value in self.stock.get_weights())
        return {
            "input_kernel": kernel,
            "recurrent_kernel": recurrent_kernel,
            "bias": bias.reshape(-1, kernel.shape[1]),
        }

    def set_arrays(self, *, input_kernel: Array, recurrent_kernel: Array, bias: Array) -> None:
        """Take over weights, shaped as `arrays` gives them."""
        own_shape = self.stock.cell.bias.shape
        self.stock.set_weights([input_kernel, recurrent_kernel, np.reshape(bias, own_shape)])

    def _run_stock(self, inputs, initial_state, recurrent_kernel):
        """Run Keras's layer, `recurrent_kernel` standing in for its variable."""
        stand_in = [(self.stock.cell.recurrent_kernel, recurrent_kernel)]
        parts = tf.split(initial_state, 2 if self.cell == "lstm" else 1, axis=1)
        with keras.StatelessScope(state_mapping=stand_in):
            outputs, *last = self.stock(inputs, initial_state=parts)
        return tf.cast(outputs, tf.float32), tf.cast(tf.concat(last, axis=1), tf.float32)


def _stock_layer(hidden_size, cell, kernel, matmul_dtype, seed):
    """Return Keras's layer of the cell."""
    settings = {
        "return_sequences": True,
        "return_state": True,
        "kernel_initializer": keras.initializers.GlorotUniform(seed=seed),
        "recurrent_initializer": keras.initializers.Orthogonal(seed=seed + 1),
        "dtype": "mixed_float16" if matmul_dtype == "float16" else "float32",
        "name": "weights",
    }
    use_cudnn = kernel == "cudnn"
    if cell == "gru":
        return keras.layers.GRU(hidden_size, reset_after=True, use_cudnn=use_cudnn, **settings)
    if cell == "lstm":
        return keras.layers.LSTM(hidden_size, use_cudnn=use_cudnn, **settings)
    return keras.layers.SimpleRNN(hidden_size, **settings)
