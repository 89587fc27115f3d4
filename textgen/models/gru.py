"""One GRU layer with state in and state out, and three ways to run it.

It owns a `keras.layers.GRU(reset_after=True)` and so holds exactly its weights.
That layer is made with every condition of the cuDNN kernel met and with
`use_cudnn=True` where cuDNN was chosen: should a condition fail, Keras raises
instead of falling back in silence. On a CPU the same weights go to `fused_gru`,
and anywhere to `reference_gru`.
"""

import keras
import tensorflow as tf

from textgen.models.fused_gru import fused_gru
from textgen.models.reference_gru import reference_gru


class GRU(keras.layers.Layer):
    """A GRU over a sequence.

    Args:
        hidden_size: Units.
        kernel: The implementation that runs, `"cudnn"`, `"fused"` or `"reference"`.
        precision: `"float16"`: cuDNN computes in it, weights stay float32.
        weight_drop: Share of the recurrent kernel's entries dropped in a training step.
        seed: Seed of the initial weights and of weight drop.
        name: Name of the layer.

    Source: for weight drop, Merity et al. 2017, "Regularizing and Optimizing LSTM
    Language Models" (DropConnect on the hidden-to-hidden matrix).
    """

    def __init__(
        self,
        hidden_size: int,
        *,
        kernel: str,
        precision: str = "float32",
        weight_drop: float = 0.0,
        seed: int,
        name: str | None = None,
    ):
        super().__init__(name=name)
        self.gru_kernel = kernel
        self.gru = keras.layers.GRU(
            hidden_size,
            return_sequences=True,
            return_state=True,
            reset_after=True,
            kernel_initializer=keras.initializers.GlorotUniform(seed=seed),
            recurrent_initializer=keras.initializers.Orthogonal(seed=seed + 1),
            use_cudnn=kernel == "cudnn",
            dtype="mixed_float16" if precision == "float16" else "float32",
            name="weights",
        )
        self.weight_drop = keras.layers.Dropout(weight_drop, seed=seed + 2)

    def build(self, inputs_shape, *_) -> None:
        """Make the weights for inputs of `[batch, time, features]`."""
        self.gru.build(inputs_shape)
        self.built = True

    @property
    def kernel(self):
        """The input kernel, `[features, 3 * hidden_size]`, gates in the order z, r, candidate."""
        return tf.convert_to_tensor(self.gru.cell.kernel)

    @property
    def bias(self):
        """The biases `[2, 3 * hidden_size]`: of the inputs, of the recurrence."""
        return tf.convert_to_tensor(self.gru.cell.bias)

    def recurrent_kernel(self, training: bool = False) -> tf.Tensor:
        """Return the recurrent kernel `[hidden_size, 3 * hidden_size]`, in training with gaps.

        Drawn once a step and handed to `call`, so that the parts of a batch share it.
        """
        kernel = tf.convert_to_tensor(self.gru.cell.recurrent_kernel)
        return self.weight_drop(kernel, training=training)

    def call(
        self, inputs: tf.Tensor, initial_state: tf.Tensor, recurrent_kernel: tf.Tensor | None = None
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Run the layer.

        Args:
            inputs: `[batch, time, features]` float.
            initial_state: `[batch, hidden_size]` float.
            recurrent_kernel: From `recurrent_kernel`; None: the layer's own, whole.

        Returns:
            The outputs `[batch, time, hidden_size]` and the last state `[batch, hidden_size]`.
        """
        recurrent = self.recurrent_kernel() if recurrent_kernel is None else recurrent_kernel
        if self.gru_kernel == "cudnn":
            return self._run_cudnn(inputs, initial_state, recurrent)
        if self.gru_kernel == "reference":
            states = reference_gru(inputs, initial_state, self.kernel, recurrent, self.bias)
            return states, states[:, -1]
        states, last = self.run_fused(
            tf.transpose(inputs, [1, 2, 0]), tf.transpose(initial_state), self.kernel, recurrent
        )
        return tf.transpose(states, [2, 0, 1]), tf.transpose(last)

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
            initial_state: `[hidden_size, batch]` float32.
            kernel: `[features, 3 * hidden_size]`: the layer's own, or what stands for it.
            recurrent_kernel: From `recurrent_kernel`.
            products: Dtype of the matrix products; None: float32.

        Returns:
            The outputs `[time, hidden_size, batch]` in the dtype of the products, and the
            last state `[hidden_size, batch]` in float32.
        """
        return fused_gru(
            inputs, initial_state, kernel, recurrent_kernel, self.bias, products=products
        )

    def _run_cudnn(self, inputs, initial_state, recurrent_kernel):
        """Run Keras's cuDNN path, `recurrent_kernel` standing in for the layer's variable."""
        stand_in = [(self.gru.cell.recurrent_kernel, recurrent_kernel)]
        with keras.StatelessScope(state_mapping=stand_in):
            outputs, last = self.gru(inputs, initial_state=initial_state)
        return tf.cast(outputs, tf.float32), tf.cast(last, tf.float32)
