"""A GRU over a whole sequence for CPUs, with a gradient of its own.

TensorFlow has no fused GRU for the CPU: `keras.layers.GRU` becomes a generic loop
whose backward pass adds up the gradient of the recurrent kernel at every step.
Here the input products come ready made, the loop holds one matrix product a step,
and the backward loop keeps the gates' gradients so that a single product over all
steps makes the recurrent kernel's gradient.

The function, gate by gate (as `keras.layers.GRU(reset_after=True)` has it), where
`x_z, x_r, x_c` are the thirds of `input_gates[t]` and `u_z, u_r, u_c` those of
`h @ recurrent_kernel + recurrent_bias`:

    z = sigmoid(x_z + u_z)          update gate
    r = sigmoid(x_r + u_r)          reset gate
    c = tanh(x_c + r * u_c)         candidate
    h = z * h + (1 - z) * c
"""

import tensorflow as tf


@tf.custom_gradient
def fused_gru(input_gates, initial_state, recurrent_kernel, recurrent_bias):
    """Run a GRU over all time steps.

    Args:
        input_gates: `[time, batch, 3 * hidden_size]` float32, `x @ kernel + bias[0]`.
        initial_state: `[batch, hidden_size]` float32.
        recurrent_kernel: `[hidden_size, 3 * hidden_size]` float32.
        recurrent_bias: `[3 * hidden_size]` float32, `bias[1]`.

    Returns:
        The state after each step, `[time, batch, hidden_size]`, and the function
        that maps its gradient to those of the four arguments.
    """
    states, gates = _forward(input_gates, initial_state, recurrent_kernel, recurrent_bias)

    def gradient(d_states):
        previous = tf.concat([initial_state[None], states[:-1]], axis=0)
        d_input, d_recurrent, d_initial = _backward(d_states, previous, gates, recurrent_kernel)
        rows = tf.shape(d_recurrent)[0] * tf.shape(d_recurrent)[1]
        flat = tf.reshape(d_recurrent, [rows, d_recurrent.shape[-1]])
        flat_previous = tf.reshape(previous, [rows, previous.shape[-1]])
        d_kernel = tf.matmul(flat_previous, flat, transpose_a=True)
        return d_input, d_initial, d_kernel, tf.reduce_sum(flat, axis=0)

    return states, gradient


def _forward(input_gates, initial_state, recurrent_kernel, recurrent_bias):
    """Return the states `[time, batch, H]` and `z, r, c, u_c` side by side `[time, batch, 4H]`."""
    hidden_size = initial_state.shape[-1]
    time = tf.shape(input_gates)[0]

    def step(t, state, states, gates):
        u = tf.nn.bias_add(tf.matmul(state, recurrent_kernel), recurrent_bias)
        x = input_gates[t]
        zr = tf.sigmoid(x[:, : 2 * hidden_size] + u[:, : 2 * hidden_size])
        z, r = zr[:, :hidden_size], zr[:, hidden_size:]
        u_c = u[:, 2 * hidden_size :]
        c = tf.tanh(x[:, 2 * hidden_size :] + r * u_c)
        state = c + z * (state - c)
        gates = gates.write(t, tf.concat([zr, c, u_c], axis=1))
        return t + 1, state, states.write(t, state), gates

    arrays = [tf.TensorArray(initial_state.dtype, size=time) for _ in range(2)]
    _, _, states, gates = tf.while_loop(
        lambda t, *_: t < time, step, [0, initial_state, *arrays], parallel_iterations=1
    )
    batch = initial_state.shape[0]
    return (
        tf.ensure_shape(states.stack(), [input_gates.shape[0], batch, hidden_size]),
        tf.ensure_shape(gates.stack(), [input_gates.shape[0], batch, 4 * hidden_size]),
    )


def _backward(d_states, previous, gates, recurrent_kernel):
    """Return the gradients of the input gates, of the recurrent gates, and of the first state.

    The first two have shape `[time, batch, 3H]` and differ in the candidate's third alone,
    which reaches the recurrent side through the reset gate.
    """
    time = tf.shape(d_states)[0]
    # transposed once: with few rows, transpose_b=True is about three times slower
    transposed_kernel = tf.transpose(recurrent_kernel)

    def step(t, d_state, d_inputs, d_recurrents):
        z, r, c, u_c = tf.split(gates[t], 4, axis=1)
        d_state = d_state + d_states[t]
        d_c = d_state * (1.0 - z) * (1.0 - c * c)
        d_z = d_state * (previous[t] - c) * z * (1.0 - z)
        d_r = d_c * u_c * r * (1.0 - r)
        d_recurrent = tf.concat([d_z, d_r, d_c * r], axis=1)
        d_inputs = d_inputs.write(t, tf.concat([d_z, d_r, d_c], axis=1))
        d_recurrents = d_recurrents.write(t, d_recurrent)
        d_state = d_state * z + tf.matmul(d_recurrent, transposed_kernel)
        return t - 1, d_state, d_inputs, d_recurrents

    arrays = [tf.TensorArray(d_states.dtype, size=time) for _ in range(2)]
    _, d_initial, d_inputs, d_recurrents = tf.while_loop(
        lambda t, *_: t >= 0,
        step,
        [time - 1, tf.zeros_like(d_states[0]), *arrays],
        parallel_iterations=1,
    )
    shape = [*d_states.shape[:2], 3 * d_states.shape[2]]
    d_input = tf.ensure_shape(d_inputs.stack(), shape)
    return d_input, tf.ensure_shape(d_recurrents.stack(), shape), d_initial
