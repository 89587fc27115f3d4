"""The GRU as its equations, a step at a time: the slow twin of `fused_gru` and of cuDNN."""

import tensorflow as tf


def reference_gru(
    inputs: tf.Tensor,
    initial_state: tf.Tensor,
    kernel: tf.Tensor,
    recurrent_kernel: tf.Tensor,
    bias: tf.Tensor,
) -> tf.Tensor:
    """Run a GRU over all time steps; TensorFlow differentiates it.

    Args:
        inputs: `[batch, time, features]` float.
        initial_state: `[batch, hidden_size]`.
        kernel: `[features, 3 * hidden_size]`, gates in the order z, r, candidate.
        recurrent_kernel: `[hidden_size, 3 * hidden_size]`.
        bias: `[2, 3 * hidden_size]`: of the inputs, of the recurrence.

    Returns:
        The state after each step, `[batch, time, hidden_size]`.

    Source: Cho et al. 2014, "Learning Phrase Representations using RNN Encoder-Decoder",
    with the reset gate behind the recurrent product, as cuDNN and Keras have it.
    """

    def step(state, x):
        x_z, x_r, x_c = tf.split(x @ kernel + bias[0], 3, axis=1)
        u_z, u_r, u_c = tf.split(state @ recurrent_kernel + bias[1], 3, axis=1)
        z = tf.sigmoid(x_z + u_z)
        r = tf.sigmoid(x_r + u_r)
        candidate = tf.tanh(x_c + r * u_c)
        return z * state + (1.0 - z) * candidate

    states = tf.scan(step, tf.transpose(inputs, [1, 0, 2]), initial_state)
    return tf.transpose(states, [1, 0, 2])
