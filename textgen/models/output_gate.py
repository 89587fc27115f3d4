"""An output gate for cells that have none.

    o_t = sigmoid(x_t W + h_{t-1} U + b)
    y_t = o_t * tanh(h_t)

It depends only on inputs and states, so it is computed after the recurrence, for all steps of a
window at once, whichever kernel ran.
"""

import keras
import tensorflow as tf

from textgen.models.layout import Layout
from textgen.models.recurrence.step_lists import flat, unflat


class OutputGate(keras.layers.Layer):
    """The output gate of one recurrent layer.

    Args:
        hidden_size: Units of the recurrent layer.
        layout: Layout of the windows it is called with.
        seed: Seed of the initial weights.
        name: Name of the layer.

    Source: the output gate of Hochreiter and Schmidhuber 1997, "Long Short-Term Memory", applied
    to the GRU of Cho et al. 2014, "Learning Phrase Representations using RNN Encoder-Decoder".
    """

    def __init__(self, hidden_size: int, *, layout: Layout, seed: int, name: str):
        super().__init__(name=name)
        self.hidden_size, self.layout, self._seed = hidden_size, layout, seed

    def build(self, input_size: int) -> None:
        """Create the weights for inputs of `input_size` features."""
        size, seed = self.hidden_size, self._seed
        glorot = keras.initializers.GlorotUniform(seed=seed)
        orthogonal = keras.initializers.Orthogonal(seed=seed + 1)
        self.input_kernel = self.add_weight(
            shape=(input_size, size), initializer=glorot, name="kernel"
        )
        self.recurrent_kernel = self.add_weight(
            shape=(size, size), initializer=orthogonal, name="recurrent_kernel"
        )
        self.bias = self.add_weight(shape=(size,), initializer="zeros", name="bias")
        self.built = True

    def call(
        self,
        inputs: tf.Tensor,
        states: tf.Tensor,
        initial_state: tf.Tensor,
        input_kernel: tf.Tensor | None = None,
    ) -> tf.Tensor:
        """Gate the states of a window.

        Keras casts floating-point arguments to float32.

        Args:
            inputs: Inputs of the recurrent layer, a window of `features` features; integers if
                they are one-hot columns.
            states: Its `h` after each step, a window of `hidden_size` features.
            initial_state: Its `h` before the window, `[batch, hidden_size]`.
            input_kernel: `[features, hidden_size]`; None: the layer's own.

        Returns:
            A window of `hidden_size` features, float32.
        """
        gate = self._gate_columns if self.layout.features_first else self._gate_rows
        kernel = self.input_kernel if input_kernel is None else input_kernel
        return gate(inputs, states, initial_state, kernel)

    def _gate_rows(
        self,
        inputs: tf.Tensor,
        states: tf.Tensor,
        initial_state: tf.Tensor,
        input_kernel: tf.Tensor,
    ) -> tf.Tensor:
        previous = tf.concat([initial_state[:, None], states[:, :-1]], axis=1)
        recurrent_kernel = tf.convert_to_tensor(self.recurrent_kernel)
        sums = tf.tensordot(inputs, input_kernel, 1) + tf.tensordot(previous, recurrent_kernel, 1)
        return tf.sigmoid(sums + self.bias) * tf.tanh(states)

    def _gate_columns(
        self,
        inputs: tf.Tensor,
        states: tf.Tensor,
        initial_state: tf.Tensor,
        input_kernel: tf.Tensor,
    ) -> tf.Tensor:
        previous = tf.concat([tf.transpose(initial_state)[None], states[:-1]], axis=0)
        # One-hot columns are integers.
        inputs = tf.cast(inputs, states.dtype)
        pairs = (inputs, input_kernel), (previous, tf.convert_to_tensor(self.recurrent_kernel))
        sums = tf.add_n([tf.matmul(kernel, flat(x), transpose_a=True) for x, kernel in pairs])
        gates = tf.sigmoid(sums + self.bias[:, None])
        gated = unflat(gates, tf.shape(states)[2]) * tf.tanh(states)
        return tf.ensure_shape(gated, states.shape)
