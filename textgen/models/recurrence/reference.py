"""The reference recurrence: each cell's equations, one time step at a time.

The fused kernel and cuDNN must give the same results.
"""

from collections.abc import Callable

import tensorflow as tf

from textgen.config import Cell


def reference_recurrence(
    inputs: tf.Tensor,
    initial_state: tf.Tensor,
    input_kernel: tf.Tensor,
    recurrent_kernel: tf.Tensor,
    bias: tf.Tensor,
    *,
    cell: Cell,
) -> tuple[tf.Tensor, tf.Tensor]:
    """Run a cell over all time steps; TensorFlow differentiates it.

    Args:
        inputs: `[batch, time, features]` float.
        initial_state: `[batch, state_size]`; for an LSTM, `h` and `c` concatenated.
        input_kernel: `[features, gates * hidden_size]`, gates in the order of `weights.GATES`.
        recurrent_kernel: `[hidden_size, gates * hidden_size]`.
        bias: `[2, 3 * hidden_size]` for a GRU, of the inputs and of the recurrence;
            `[1, gates * hidden_size]` for the other cells.
        cell: `"gru"`, `"lstm"` or `"rnn"`.

    Returns:
        The outputs `[batch, time, hidden_size]` and the last state `[batch, state_size]`.

    Sources: Cho et al. 2014, "Learning Phrase Representations using RNN Encoder-Decoder",
    with the reset gate after the recurrent product, as in cuDNN and Keras; Gers et al. 2000,
    "Learning to Forget", for the LSTM with a forget gate; Elman 1990, "Finding Structure in
    Time".
    """
    size, step = recurrent_kernel.shape[0], _STEPS[cell]

    def advance(state: tf.Tensor, x: tf.Tensor) -> tf.Tensor:
        by_input = x @ input_kernel + bias[0]
        return step(by_input, state[:, :size] @ recurrent_kernel, bias, state)

    states = tf.scan(advance, tf.transpose(inputs, [1, 0, 2]), initial_state)
    return tf.transpose(states[..., :size], [1, 0, 2]), states[-1]


def _gru_step(
    by_input: tf.Tensor, by_state: tf.Tensor, bias: tf.Tensor, state: tf.Tensor
) -> tf.Tensor:
    x_z, x_r, x_c = tf.split(by_input, 3, axis=1)
    u_z, u_r, u_c = tf.split(by_state + bias[1], 3, axis=1)
    z = tf.sigmoid(x_z + u_z)
    r = tf.sigmoid(x_r + u_r)
    candidate = tf.tanh(x_c + r * u_c)
    return z * state + (1.0 - z) * candidate


def _lstm_step(
    by_input: tf.Tensor, by_state: tf.Tensor, _bias: tf.Tensor, state: tf.Tensor
) -> tf.Tensor:
    i, f, g, o = tf.split(by_input + by_state, 4, axis=1)
    _, c = tf.split(state, 2, axis=1)
    next_c = tf.sigmoid(f) * c + tf.sigmoid(i) * tf.tanh(g)
    return tf.concat([tf.sigmoid(o) * tf.tanh(next_c), next_c], axis=1)


def _rnn_step(
    by_input: tf.Tensor, by_state: tf.Tensor, _bias: tf.Tensor, _state: tf.Tensor
) -> tf.Tensor:
    return tf.tanh(by_input + by_state)


# Takes the products `[batch, gates * hidden_size]`, the bias and the state; returns the next state.
_Step = Callable[[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor], tf.Tensor]
_STEPS: dict[Cell, _Step] = {"gru": _gru_step, "lstm": _lstm_step, "rnn": _rnn_step}
