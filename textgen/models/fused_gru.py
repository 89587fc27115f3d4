"""A GRU over a whole sequence for CPUs, with a gradient of its own.

TensorFlow has no fused GRU for the CPU: `keras.layers.GRU` becomes a generic loop
whose backward pass adds up the gradient of the recurrent kernel at every step.
What is done instead, each for a measured reason (docs/experiments.md):

1. Features come first and the batch last, `[hidden_size, batch]`. A product is then
   `kernelᵀ @ state` with the large matrix on the left, which needs no repacking
   (twice as fast at 32 rows), and a gate is a contiguous piece that is cut out
   without a copy.
2. The backward loop keeps the gates' gradients, and one product over all steps makes
   the gradient of each kernel.
3. What the backward loop needs is passed as a list of tensors, not stacked and cut.

The function, gate by gate (as `keras.layers.GRU(reset_after=True)` has it), where
`x_z, x_r, x_c` are the thirds of `inputs[t] @ kernel + bias[0]` and `u_z, u_r, u_c`
those of `h @ recurrent_kernel + bias[1]`:

    z = sigmoid(x_z + u_z)          update gate
    r = sigmoid(x_r + u_r)          reset gate
    c = tanh(x_c + r * u_c)         candidate
    h = z * h + (1 - z) * c
"""

import tensorflow as tf


def fused_gru(
    inputs: tf.Tensor,
    initial_state: tf.Tensor,
    kernel: tf.Tensor,
    recurrent_kernel: tf.Tensor,
    bias: tf.Tensor,
    *,
    products: tf.DType | None = None,
) -> tf.Tensor:
    """Run a GRU over all time steps.

    Args:
        inputs: `[time, features, batch]`; time and batch may be unknown when traced.
        initial_state: `[hidden_size, batch]` float.
        kernel: `[features, 3 * hidden_size]`.
        recurrent_kernel: `[hidden_size, 3 * hidden_size]`.
        bias: `[2, 3 * hidden_size]`.
        products: Dtype of the matrix products; None: that of the state. Gates, states
            and the gradients' sums keep the dtype of the state.

    Returns:
        The state after each step, `[time, hidden_size, batch]`; differentiable in every
        argument.
    """
    products = products or initial_state.dtype

    @tf.custom_gradient
    def run(inputs, initial_state, kernel, recurrent_kernel, bias):
        x = tf.cast(inputs, products)
        states, kept = _forward(x, initial_state, kernel, recurrent_kernel, bias)

        def gradient(d_states):
            d_input_gates, d_recurrent_gates, d_initial = _backward(
                d_states, kept, tf.cast(recurrent_kernel, products)
            )
            d_x = tf.matmul(tf.cast(kernel, products), d_input_gates)
            by_inputs, by_recurrent = _flat(d_input_gates), _flat(d_recurrent_gates)
            d_kernel = tf.matmul(_flat(x), by_inputs, transpose_b=True)
            previous = _flat(kept.previous.stack())
            d_recurrent = tf.matmul(previous, by_recurrent, transpose_b=True)
            d_bias = tf.stack(
                [tf.reduce_sum(tf.cast(g, bias.dtype), 1) for g in (by_inputs, by_recurrent)]
            )
            return (
                tf.cast(d_x, inputs.dtype),
                d_initial,
                tf.cast(d_kernel, kernel.dtype),
                tf.cast(d_recurrent, recurrent_kernel.dtype),
                d_bias,
            )

        return states, gradient

    return run(inputs, initial_state, kernel, recurrent_kernel, bias)


class _Kept:
    """What the backward loop reads: one `[hidden_size, batch]` tensor a step in each list.

    Args:
        time: Number of steps.
        state: The initial state.
        products: Dtype of the matrix products.

    Attributes:
        states: The states, the initial one first: one more than there are steps.
        previous: The state before each step, in the dtype of the products.
        gates: `z`, `r`, `c` and `u_c`.
    """

    def __init__(self, time: tf.Tensor, state: tf.Tensor, products: tf.DType):
        self.states = _list(time + 1, state.shape, state.dtype)
        self.previous = _list(time, state.shape, products)
        self.gates = [_list(time, state.shape, state.dtype) for _ in range(4)]


def _list(length, shape, dtype):
    return tf.TensorArray(dtype, size=length, element_shape=shape, clear_after_read=False)


def _forward(x, initial_state, kernel, recurrent_kernel, bias):
    """Return the states `[time, hidden_size, batch]` and what the backward loop needs."""
    time, products = tf.shape(x)[0], x.dtype
    input_weights = tf.transpose(tf.cast(kernel, products))
    recurrent_weights = tf.transpose(tf.cast(recurrent_kernel, products))
    biases = _biases(bias, initial_state.shape[0])
    steps = _list(time, x.shape[1:], products).unstack(x)
    kept = _Kept(time, initial_state, products)
    states = kept.states.write(0, initial_state)

    def step(t, state, rounded, states, previous, *gates):
        x_gates = tf.cast(tf.matmul(input_weights, steps.read(t)), state.dtype)
        u_gates = tf.cast(tf.matmul(recurrent_weights, rounded), state.dtype)
        new_state, values = _cell(x_gates, u_gates, biases, state)
        return (
            t + 1,
            new_state,
            tf.cast(new_state, products),
            states.write(t + 1, new_state),
            previous.write(t, rounded),
            *(gate.write(t, value) for gate, value in zip(gates, values, strict=True)),
        )

    rounded = tf.cast(initial_state, products)
    _, _, _, kept.states, kept.previous, *kept.gates = tf.while_loop(
        lambda t, *_: t < time,
        step,
        [0, initial_state, rounded, states, kept.previous, *kept.gates],
        parallel_iterations=1,
    )
    return kept.states.stack()[1:], kept


def _biases(bias, hidden_size):
    """Return the biases as columns: of z and r, of the candidate's inputs, of its recurrence."""
    joined = (bias[0] + bias[1])[: 2 * hidden_size]
    parts = joined, bias[0, 2 * hidden_size :], bias[1, 2 * hidden_size :]
    return [part[:, None] for part in parts]


def _cell(x_gates, u_gates, biases, state):
    """Return the next state, and the values of `z, r, c, u_c` that its gradient needs."""
    size = state.shape[0]
    gate_bias, input_bias, recurrent_bias = biases
    update_reset = tf.sigmoid(x_gates[: 2 * size] + u_gates[: 2 * size] + gate_bias)
    z, r = update_reset[:size], update_reset[size:]
    u_c = u_gates[2 * size :] + recurrent_bias
    c = tf.tanh(x_gates[2 * size :] + r * u_c + input_bias)
    return c + z * (state - c), (z, r, c, u_c)


def _backward(d_states, kept, recurrent_weights):
    """Return the gradients of the input gates, of the recurrent gates, and of the first state.

    The first two are `[time, 3 * hidden_size, batch]` in the dtype of the products; they
    differ in the candidate's third alone, which reaches the recurrent side through the
    reset gate.
    """
    time = tf.shape(d_states)[0]
    size, batch = d_states.shape[1:]
    products = recurrent_weights.dtype
    steps = _list(time, [size, batch], d_states.dtype).unstack(d_states)

    def step(t, d_state, d_candidates, d_recurrents):
        z, r, c, u_c = (gate.read(t) for gate in kept.gates)
        d_state = d_state + steps.read(t)
        through_gate = d_state * (1.0 - z)
        d_c = through_gate * (1.0 - c * c)
        d_z = through_gate * (kept.states.read(t) - c) * z
        d_r = d_c * u_c * r * (1.0 - r)
        d_recurrent = tf.cast(tf.concat([d_z, d_r, d_c * r], axis=0), products)
        passed_on = tf.cast(tf.matmul(recurrent_weights, d_recurrent), d_state.dtype)
        return (
            t - 1,
            d_state * z + passed_on,
            d_candidates.write(t, tf.cast(d_c, products)),
            d_recurrents.write(t, d_recurrent),
        )

    lists = [_list(time, [rows, batch], products) for rows in (size, 3 * size)]
    _, d_initial, d_candidates, d_recurrents = tf.while_loop(
        lambda t, *_: t >= 0,
        step,
        [time - 1, tf.zeros_like(d_states[0]), *lists],
        parallel_iterations=1,
    )
    d_recurrent_gates = d_recurrents.stack()
    d_input_gates = tf.concat([d_recurrent_gates[:, : 2 * size], d_candidates.stack()], axis=1)
    return d_input_gates, d_recurrent_gates, d_initial


def _flat(steps):
    """Return `[time, rows, batch]` as `[rows, time * batch]`."""
    return tf.reshape(tf.transpose(steps, [1, 0, 2]), [steps.shape[1], -1])
