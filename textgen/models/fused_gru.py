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
3. What the backward loop needs is kept as stacks of tensors, one a step, that it pops from
   the end: nothing is joined and cut again, and memory is free as soon as it was read.

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
) -> tuple[tf.Tensor, tf.Tensor]:
    """Run a GRU over all time steps.

    Args:
        inputs: `[time, features, batch]`; time and batch may be unknown when traced.
        initial_state: `[hidden_size, batch]` float.
        kernel: `[features, 3 * hidden_size]`.
        recurrent_kernel: `[hidden_size, 3 * hidden_size]`.
        bias: `[2, 3 * hidden_size]`.
        products: Dtype of the matrix products and of what they return; None: that of the
            state. Gates, states and their gradients keep the dtype of the state.

    Returns:
        The state after each step, `[time, hidden_size, batch]` in the dtype of the products,
        and the last state `[hidden_size, batch]` in its own; differentiable in every argument.
    """
    products = products or initial_state.dtype

    @tf.custom_gradient
    def run(inputs, initial_state, kernel, recurrent_kernel, bias):
        x = tf.cast(inputs, products)
        last, rounded, kept = _forward(x, initial_state, kernel, recurrent_kernel, bias)

        def gradient(d_outputs, d_last):
            d_recurrents, d_candidates, d_initial = _backward(
                d_outputs, d_last, rounded, kept, tf.cast(recurrent_kernel, products)
            )
            by_recurrent, by_candidate = _flat(d_recurrents.stack()), _flat(d_candidates.stack())
            by_inputs = by_recurrent[: 2 * by_candidate.shape[0]], by_candidate
            d_recurrent = tf.matmul(_flat(rounded[:-1]), by_recurrent, transpose_b=True)
            d_input_bias = tf.concat([_row_sums(part, bias.dtype) for part in by_inputs], 0)
            return (
                tf.cast(_d_inputs(x, tf.cast(kernel, products), by_inputs), inputs.dtype),
                d_initial,
                tf.cast(_d_kernel(x, by_inputs), kernel.dtype),
                tf.cast(d_recurrent, recurrent_kernel.dtype),
                tf.stack([d_input_bias, _row_sums(by_recurrent, bias.dtype)]),
            )

        return (rounded[1:], last), gradient

    return run(inputs, initial_state, kernel, recurrent_kernel, bias)


def _list(length, shape, dtype):
    return tf.TensorArray(dtype, size=length, element_shape=shape, clear_after_read=False)


def _forward(x, initial_state, kernel, recurrent_kernel, bias):
    """Return the last state, all states in the dtype of the products, and what `_backward` pops.

    The states are `[time + 1, hidden_size, batch]`, the initial one first: from the second
    on they are the outputs, up to the last but one what the recurrent products read. To be
    popped: `z`, `r`, `c` and `u_c`, a stack each, in the dtype of the products, which in
    bfloat16 halves the memory of a step.
    """
    time, products = tf.shape(x)[0], x.dtype
    input_weights = tf.transpose(tf.cast(kernel, products))
    recurrent_weights = tf.transpose(tf.cast(recurrent_kernel, products))
    biases = _biases(bias, initial_state.shape[0])
    steps = _list(time, x.shape[1:], products).unstack(x)
    stacks = [_empty_stack(initial_state.shape, products) for _ in range(4)]

    def step(t, state, rounded, all_rounded, *stacks):
        x_gates = tf.cast(tf.matmul(input_weights, steps.read(t)), state.dtype)
        u_gates = tf.cast(tf.matmul(recurrent_weights, rounded), state.dtype)
        new_state, values = _cell(x_gates, u_gates, biases, state)
        new_rounded = tf.cast(new_state, products)
        return (
            t + 1,
            new_state,
            new_rounded,
            all_rounded.write(t + 1, new_rounded),
            *(_push(stack, value, products) for stack, value in zip(stacks, values, strict=True)),
        )

    rounded = tf.cast(initial_state, products)
    all_rounded = _list(time + 1, initial_state.shape, products).write(0, rounded)
    _, last, _, all_rounded, *stacks = tf.while_loop(
        lambda t, *_: t < time,
        step,
        [0, initial_state, rounded, all_rounded, *stacks],
        parallel_iterations=1,
    )
    return last, all_rounded.stack(), stacks


def _empty_stack(shape, dtype):
    """Return a stack for tensors of one shape and dtype."""
    return tf.raw_ops.EmptyTensorList(
        element_shape=_static(shape), max_num_elements=-1, element_dtype=dtype
    )


def _push(stack, value, dtype):
    """Return the stack with `value` on top, kept in the stack's `dtype`."""
    return tf.raw_ops.TensorListPushBack(input_handle=stack, tensor=tf.cast(value, dtype))


def _pop(stack, shape, dtype, wanted):
    """Return the tensor on top in the dtype `wanted`, and the stack without it."""
    stack, value = tf.raw_ops.TensorListPopBack(
        input_handle=stack, element_shape=_static(shape), element_dtype=dtype
    )
    return tf.cast(tf.ensure_shape(value, shape), wanted), stack


def _static(shape):
    """Return a shape as the list ops want it, -1 for what is unknown when traced."""
    return tf.constant([-1 if size is None else size for size in shape])


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


def _backward(d_outputs, d_last, rounded, kept, recurrent_weights):
    """Return lists of the gates' gradients, and the gradient of the first state.

    The lists hold a tensor a step, in the dtype of the products: the gradients of the
    recurrent gates, `[3 * hidden_size, batch]`, and of the candidate before the reset gate,
    `[hidden_size, batch]`. The input gates have the first's z and r, and the second.
    """
    time = tf.shape(d_outputs)[0]
    size, batch = d_outputs.shape[1:]
    products, dtype = recurrent_weights.dtype, d_last.dtype
    steps = _list(time, [size, batch], d_outputs.dtype).unstack(d_outputs)
    states = _list(time + 1, [size, batch], products).unstack(rounded)

    def step(t, d_state, d_recurrents, d_candidates, *stacks):
        popped = [_pop(stack, [size, batch], products, dtype) for stack in stacks]
        (z, r, c, u_c), stacks = zip(*popped, strict=True)
        previous = tf.cast(states.read(t), dtype)
        d_state = d_state + tf.cast(steps.read(t), dtype)
        through_gate = d_state * (1.0 - z)
        d_c = through_gate * (1.0 - c * c)
        d_z = through_gate * (previous - c) * z
        d_r = d_c * u_c * r * (1.0 - r)
        d_recurrent = tf.cast(tf.concat([d_z, d_r, d_c * r], axis=0), products)
        passed_on = tf.cast(tf.matmul(recurrent_weights, d_recurrent), dtype)
        return (
            t - 1,
            d_state * z + passed_on,
            d_recurrents.write(t, d_recurrent),
            d_candidates.write(t, tf.cast(d_c, products)),
            *stacks,
        )

    lists = [_list(time, [rows, batch], products) for rows in (3 * size, size)]
    _, d_initial, d_recurrents, d_candidates, *_ = tf.while_loop(
        lambda t, *_: t >= 0, step, [time - 1, d_last, *lists, *kept], parallel_iterations=1
    )
    return d_recurrents, d_candidates, d_initial


def _d_kernel(x, by_inputs):
    """Return the gradient of the input kernel, `[features, 3 * hidden_size]`."""
    flat = _flat(x)
    return tf.concat([tf.matmul(flat, part, transpose_b=True) for part in by_inputs], axis=1)


def _d_inputs(x, kernel, by_inputs):
    """Return the gradient of the inputs; TensorFlow drops it where nobody asks for it."""
    size = by_inputs[1].shape[0]
    parts = zip((kernel[:, : 2 * size], kernel[:, 2 * size :]), by_inputs, strict=True)
    flat = tf.add_n([tf.matmul(weights, part) for weights, part in parts])
    shape = tf.shape(x)
    return tf.transpose(tf.reshape(flat, [shape[1], shape[0], shape[2]]), [1, 0, 2])


def _row_sums(flat, dtype):
    return tf.reduce_sum(tf.cast(flat, dtype), axis=1)


def _flat(steps):
    """Return `[time, rows, batch]` as `[rows, time * batch]`."""
    return tf.reshape(tf.transpose(steps, [1, 0, 2]), [steps.shape[1], -1])
