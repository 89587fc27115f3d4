"""One recurrent layer with explicit state, and the three kernels that can run it.

It wraps Keras's layer for its cell and uses that layer's weights. For the kernel `cudnn`, a GRU
or an LSTM meets every condition of cuDNN and is created with `use_cudnn=True`: if a condition
fails, Keras raises instead of silently running another kernel. The kernels `fused` and
`reference` read the same weights.
"""

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from textgen.arrays import Float32Array
from textgen.config import Cell, ResolvedDtype, ResolvedKernel
from textgen.models.drop_connect import DropConnect
from textgen.models.layout import Layout
from textgen.models.recurrence.fused import fused_recurrence
from textgen.models.recurrence.reference import reference_recurrence
from textgen.models.weights import GATES

# The gate that `forget_bias` sets.
_FORGET_GATES: dict[Cell, str] = {"gru": "update", "lstm": "forget"}


class RecurrentLayer(keras.layers.Layer):
    """A GRU, an LSTM or a plain tanh cell over a window.

    Keras has no cuDNN kernel for the plain cell: with `"cudnn"` it runs Keras's own loop on the
    GPU.

    Args:
        hidden_size: Units.
        cell: `"gru"` (`reset_after=True`), `"lstm"` or `"rnn"`.
        kernel: The implementation that runs; it decides the layout of the windows.
        matmul_dtype: With `"float16"`, cuDNN computes in float16; weights stay float32. The fused
            kernel gets its dtype with each call.
        weight_drop: Fraction of the recurrent kernel's entries dropped in a training step.
        forget_bias: Initial bias of a GRU's update gate (the input bias) or of an LSTM's forget
            gate; None: Keras's defaults, 0 and 1. The plain cell has no such gate.
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
        kernel: ResolvedKernel,
        matmul_dtype: ResolvedDtype = "float32",
        weight_drop: float = 0.0,
        forget_bias: float | None = None,
        seed: int,
        name: str | None = None,
    ):
        super().__init__(name=name)
        self.cell = cell
        self.kernel = kernel
        self.layout = Layout.of(kernel)
        self.forget_bias = forget_bias
        self.stock = _stock_layer(hidden_size, cell, kernel, matmul_dtype, seed)
        self.weight_drop = DropConnect(weight_drop, seed=seed + 2)

    def build(self, input_shape: tuple[int | None, ...], *_: object) -> None:
        """Create the weights for windows of `input_shape`, in the layout of the kernel."""
        self.stock.build((None, None, input_shape[self.layout.feature_axis]))
        self.built = True
        if self.forget_bias is not None:
            bias = self.arrays()["bias"]
            gate = GATES[self.cell].index(_FORGET_GATES[self.cell])
            np.split(bias[0], len(GATES[self.cell]))[gate][:] = self.forget_bias
            self.set_arrays(**{**self.arrays(), "bias": bias})

    @property
    def input_kernel(self) -> keras.Variable:
        """The input kernel, `[features, gates * hidden_size]`, gates in the order of `GATES`."""
        return self.stock.cell.kernel

    @property
    def bias(self) -> tf.Tensor:
        """The bias: `[2, 3 * hidden_size]` for a GRU, `[1, gates * hidden_size]` otherwise.

        A GRU has a bias of the inputs and one of the recurrence.
        """
        bias = tf.convert_to_tensor(self.stock.cell.bias)
        return bias if self.cell == "gru" else bias[None]

    def recurrent_kernel(self, training: bool = False) -> tf.Tensor:
        """Return the recurrent kernel `[hidden_size, gates * hidden_size]` of one step.

        In training, weight drop is applied. The kernel is drawn once per step and passed to
        `call`, so that all shards of a batch drop the same entries.
        """
        kernel = tf.convert_to_tensor(self.stock.cell.recurrent_kernel)
        return self.weight_drop(kernel, training=training)

    def call(
        self,
        inputs: tf.Tensor,
        initial_state: tf.Tensor,
        *,
        input_kernel: tf.Tensor | None = None,
        recurrent_kernel: tf.Tensor | None = None,
        matmul_dtype: tf.DType | None = None,
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Run the layer over a window.

        Args:
            inputs: A window in the layout of the kernel, `[batch, time, features]` or, for the
                fused kernel, `[time, features, batch]`.
            initial_state: `[batch, state_size]` float; for an LSTM, `h` and `c` concatenated.
            input_kernel: `[features, gates * hidden_size]`; None: the layer's own.
            recurrent_kernel: From `recurrent_kernel`; None: the layer's own, nothing dropped.
            matmul_dtype: Dtype of the fused kernel's matrix products; None: float32. The other
                kernels ignore it.

        Returns:
            The outputs, a window of `hidden_size` features, and the last state, `[batch,
            state_size]`. Both are float32, except that the fused kernel's outputs have the dtype
            of its products.
        """
        recurrent = self.recurrent_kernel() if recurrent_kernel is None else recurrent_kernel
        if self.kernel == "cudnn":
            return self._run_stock(inputs, initial_state, input_kernel, recurrent)
        kernel = tf.convert_to_tensor(self.input_kernel if input_kernel is None else input_kernel)
        if self.kernel == "reference":
            return reference_recurrence(
                inputs, initial_state, kernel, recurrent, self.bias, cell=self.cell
            )
        outputs, last = fused_recurrence(
            inputs,
            tf.transpose(initial_state),
            kernel,
            recurrent,
            self.bias,
            cell=self.cell,
            matmul_dtype=matmul_dtype,
        )
        return outputs, tf.transpose(last)

    def arrays(self) -> dict[str, Float32Array]:
        """Return copies of the weights, named and shaped as in `LayerWeights`."""
        kernel, recurrent_kernel, bias = (np.array(value) for value in self.stock.get_weights())
        return {
            "input_kernel": kernel,
            "recurrent_kernel": recurrent_kernel,
            "bias": bias.reshape(-1, kernel.shape[1]),
        }

    def set_arrays(
        self, *, input_kernel: Float32Array, recurrent_kernel: Float32Array, bias: Float32Array
    ) -> None:
        """Set the weights, shaped as `arrays` returns them."""
        own_shape = self.stock.cell.bias.shape
        self.stock.set_weights([input_kernel, recurrent_kernel, np.reshape(bias, own_shape)])

    def _run_stock(
        self,
        inputs: tf.Tensor,
        initial_state: tf.Tensor,
        input_kernel: tf.Tensor | None,
        recurrent_kernel: tf.Tensor,
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Run Keras's layer with the given kernels in place of its variables."""
        replaced = [(self.stock.cell.recurrent_kernel, recurrent_kernel)]
        if input_kernel is not None:
            replaced.append((self.stock.cell.kernel, input_kernel))
        parts = tf.split(initial_state, 2 if self.cell == "lstm" else 1, axis=1)
        with keras.StatelessScope(state_mapping=replaced):
            outputs, *last = self.stock(inputs, initial_state=parts)
        return tf.cast(outputs, tf.float32), tf.cast(tf.concat(last, axis=1), tf.float32)


def _stock_layer(
    hidden_size: int, cell: Cell, kernel: ResolvedKernel, matmul_dtype: ResolvedDtype, seed: int
) -> keras.layers.RNN:
    """Return Keras's layer of the cell."""
    settings: dict[str, Any] = {
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
