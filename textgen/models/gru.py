"""One GRU layer with state in and state out, and two ways to run it.

It owns a `keras.layers.GRU(reset_after=True)` and so holds exactly its weights.
That layer is made with every condition of the cuDNN kernel met and with
`use_cudnn=True` where cuDNN was chosen: should a condition fail, Keras raises
instead of falling back in silence. On a CPU the same weights go to `fused_gru`.
"""

import keras
import tensorflow as tf

from textgen.models.fused_gru import fused_gru
from textgen.models.kernels import GruKernel


class GRU(keras.layers.Layer):
    """A GRU over a sequence.

    Args:
        hidden_size: Units.
        kernel: The implementation that runs, from `choose_gru_kernel`.
        seed: Seed of the initial weights.
        name: Name of the layer.
    """

    def __init__(self, hidden_size: int, *, kernel: GruKernel, seed: int, name: str | None = None):
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
            name="weights",
        )

    def build(self, inputs_shape, *_) -> None:
        """Make the weights for inputs of `[batch, time, features]`."""
        self.gru.build(inputs_shape)
        self.built = True

    @property
    def kernel(self):
        """The input kernel, `[features, 3 * hidden_size]`, gates in the order z, r, candidate."""
        return tf.convert_to_tensor(self.gru.cell.kernel)

    def call(self, inputs: tf.Tensor, initial_state: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Run the layer.

        Args:
            inputs: `[batch, time, features]` float32.
            initial_state: `[batch, hidden_size]` float32.

        Returns:
            The outputs `[batch, time, hidden_size]` and the last state `[batch, hidden_size]`.
        """
        if self.gru_kernel == "cudnn":
            return self.gru(inputs, initial_state=initial_state)
        features_first = tf.transpose(inputs, [1, 2, 0])
        states, last = self.run_fused(features_first, tf.transpose(initial_state), self.kernel)
        return tf.transpose(states, [2, 0, 1]), tf.transpose(last)

    def run_fused(
        self,
        inputs: tf.Tensor,
        initial_state: tf.Tensor,
        kernel: tf.Tensor,
        products: tf.DType | None = None,
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Run the fused kernel in its own layout, which the layers above share.

        Args:
            inputs: `[time, features, batch]`.
            initial_state: `[hidden_size, batch]` float32.
            kernel: `[features, 3 * hidden_size]`: the layer's own, or what stands for it.
            products: Dtype of the matrix products; None: float32.

        Returns:
            The outputs `[time, hidden_size, batch]` and the last state `[hidden_size, batch]`.
        """
        cell = self.gru.cell
        states = fused_gru(
            inputs,
            initial_state,
            kernel,
            tf.convert_to_tensor(cell.recurrent_kernel),
            tf.convert_to_tensor(cell.bias),
            products=products,
        )
        return states, states[-1]
