"""One GRU layer, time-major, with state in and state out.

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
        """Make the weights for inputs of `[time, batch, features]`."""
        time, batch, features = inputs_shape
        self.gru.build((batch, time, features))
        self.built = True

    def call(self, inputs, initial_state):
        """Run the layer.

        Args:
            inputs: `[time, batch, features]` float32.
            initial_state: `[batch, hidden_size]` float32.

        Returns:
            The outputs `[time, batch, hidden_size]` and the last state `[batch, hidden_size]`.
        """
        if self.gru_kernel == "cudnn":
            outputs, state = self.gru(
                tf.transpose(inputs, [1, 0, 2]), initial_state=initial_state
            )
            return tf.transpose(outputs, [1, 0, 2]), state
        return self.from_input_gates(self.input_gates(inputs), initial_state)

    def input_gates(self, inputs):
        """Return `inputs @ kernel + bias[0]` for inputs of any leading shape."""
        cell = self.gru.cell
        return tf.tensordot(inputs, cell.kernel, 1) + cell.bias[0]

    def from_input_gates(self, input_gates, initial_state):
        """Run the fused kernel on `[time, batch, 3 * hidden_size]` input products."""
        cell = self.gru.cell
        states = fused_gru(
            input_gates,
            initial_state,
            tf.convert_to_tensor(cell.recurrent_kernel),
            cell.bias[1],
        )
        return states, states[-1]
