"""The cells as their equations, a step at a time: the slow twins of the fused kernel and cuDNN."""

import tensorflow as tf

from textgen.config import Cell


def reference_recurrence(
    inputs: tf.Tensor,
    initial_state: tf.Tensor,
    kernel: tf.Tensor,
    recurrent_kernel: tf.Tensor,
    bias: tf.Tensor,
    *,
    cell: Cell,
) -> tuple[tf.Tensor, tf.Tensor]:
    """Run a cell over all time steps; TensorFlow differentiates it.

    Args:
        inputs: `[batch, time, features]` float.
        initial_state: `[batch, state_size]`; of an LSTM `h` and behind it `c`.
        kernel: `[features, gates * hidden_size]`, gates in the order of `weights.GATES`.
        recurrent_kernel: `[hidden_size, gates * hidden_size]`.
        bias: `[2, 3 * hidden_size]` of a GRU: of the inputs, of the recurrence;
            `[1, gates * hidden_size]` of the others.
        cell: `"gru"`, `"lstm"` or `"rnn"`.

    Returns:
        The outputs `[batch, time, hidden_size]` and the last state `[batch, state_size]`.

    Sources: Cho et al. 2014, "Learning Phrase Representations using RNN Encoder-Decoder",
    with the reset gate behind the recurrent product, as cuDNN and Keras have it; Gers et
    al. 2000, "Learning to Forget", for the LSTM with a forget gate; Elman 1990, "Finding
    Structure in Time".
    """
    size, step = recurrent_kernel.shape[0], _STEPS[cell]

    def go_on(state, x):
        products = x @ kernel + bias[0], state[:, :size] @ recurrent_kernel
        return step(*products, bias, state)

    states = tf.scan(go_on, tf.transpose(inputs, [1, 0, 2]), initial_state)
    return tf.transpose(states[..., :size], [1, 0, 2]), states[-1]


def _gru_step(by_input, by_state, bias, state):
    x_z, x_r, x_c = tf.split(by_input, 3, axis=1)
    u_z, u_r, u_c = tf.split(by_state + bias[1], 3, axis=1)
    z = tf.sigmoid(x_z + u_z)
    r = tf.sigmoid(x_r + u_r)
    candidate = tf.tanh(x_c + r * u_c)
    return z * state + (1.0 - z) * candidate


def _lstm_step(by_input, by_state, _, state):
    i, f, g, o = tf.split(by_input + by_state, 4, axis=1)
    _, c = tf.split(state, 2, axis=1)
    next_c = tf.sigmoid(f) * c + tf.sigmoid(i) * tf.tanh(g)
    return tf.concat([tf.sigmoid(o) * tf.tanh(next_c), next_c], axis=1)


def _rnn_step(by_input, by_state, *_):
    return tf.tanh(by_input + by_state)


_STEPS = {"gru": _gru_step, "lstm": _lstm_step, "rnn": _rnn_step}
