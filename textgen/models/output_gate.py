"""The gate of the GRU literature on what a layer passes on.

    o_t = sigmoid(x_t W + h_{t-1} U + b)
    y_t = o_t * tanh(h_t)

It reads only inputs and states, so it stands outside the recurrence: all steps of a window
are one product, and the fast kernels below it stay as they are.
"""

import keras
import tensorflow as tf

from textgen.models.recurrence.step_lists import flat, unflat


class OutputGate(keras.layers.Layer):
    """The output gate of one recurrent layer.

    Args:
        hidden_size: Units of the layer below.
        features_first: Whether it is called in the layout of the fused kernels.
        seed: Seed of the initial weights.
        name: Name of the layer.

    Source: Cho et al. 2014, "Learning Phrase Representations using RNN Encoder-Decoder", and
    Hochreiter and Schmidhuber 1997, whose output gate this is.
    """

    def __init__(self, hidden_size: int, *, features_first: bool, seed: int, name: str):
        super().__init__(name=name)
        self.hidden_size, self.features_first, self._seed = hidden_size, features_first, seed

    def build(self, inputs: int) -> None:
        """Make the weights for inputs of `inputs` features."""
        size, seed = self.hidden_size, self._seed
        glorot = keras.initializers.GlorotUniform(seed=seed)
        orthogonal = keras.initializers.Orthogonal(seed=seed + 1)
        self.kernel = self.add_weight(shape=(inputs, size), initializer=glorot, name="kernel")
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
        kernel: tf.Tensor,
    ) -> tf.Tensor:
        """Gate the states of a window.

        Args:
            inputs: What the layer below read: `[batch, time, features]`, or with
                `features_first` `[time, features, batch]`.
            states: What it became, in the same layout.
            initial_state: Its state before the window, `[batch, hidden_size]`.
            kernel: `[features, hidden_size]`: `self.kernel`, or what stands for it.

        Returns:
            `[batch, time, hidden_size]`, or `[time, hidden_size, batch]`, in the dtype of
            `states`.
        """
        gate = self._gate_columns if self.features_first else self._gate_rows
        return gate(inputs, states, tf.cast(initial_state, states.dtype), kernel)

    def _gate_rows(self, inputs, states, initial_state, kernel):
        before = tf.concat([initial_state[:, None], states[:, :-1]], axis=1)
        recurrent = tf.convert_to_tensor(self.recurrent_kernel)
        sums = tf.tensordot(inputs, kernel, 1) + tf.tensordot(before, recurrent, 1)
        return tf.sigmoid(sums + self.bias) * tf.tanh(states)

    def _gate_columns(self, inputs, states, initial_state, kernel):
        products = states.dtype
        before = tf.concat([tf.transpose(initial_state)[None], states[:-1]], axis=0)
        pairs = (inputs, kernel), (before, tf.convert_to_tensor(self.recurrent_kernel))
        sums = tf.add_n(
            [
                tf.matmul(tf.cast(matrix, products), flat(tf.cast(x, products)), transpose_a=True)
                for x, matrix in pairs
            ]
        )
        gates = tf.sigmoid(tf.cast(sums, tf.float32) + self.bias[:, None])
        gated = unflat(tf.cast(gates, products), tf.shape(states)[2]) * tf.tanh(states)
        return tf.ensure_shape(gated, states.shape)
