"""The backward pass of the fused GRU, from the last step to the first.

It goes in blocks: step by step through the gates of a block, then one product for the
block and each kernel. Summed at every step, a kernel's gradient would move the whole
kernel through memory a hundred times; kept for all steps at once, the gates' gradients
would be the largest tensors of training.
"""

import tensorflow as tf

from textgen.models.step_lists import flat, pop, step_list, unflat

# as fast as 50 steps, and takes less memory (docs/experiments.md)
_BLOCK = 25


def backward(
    d_outputs: tf.Tensor,
    d_last: tf.Tensor,
    x: tf.Tensor,
    states: tf.Tensor,
    kept: list[tf.Tensor],
    kernel: tf.Tensor | None,
    recurrent_kernel: tf.Tensor,
) -> tuple[tf.Tensor | None, ...]:
    """Return the gradients of inputs, initial state, kernel, recurrent kernel and bias.

    Args:
        d_outputs: `[time, hidden_size, batch]`.
        d_last: `[hidden_size, batch]`, the dtype of the gates and of the gradients.
        x: The inputs, `[time, features, batch]`, in the dtype of the products.
        states: `[time + 1, hidden_size, batch]` in the dtype of the products, the initial first.
        kept: Stacks of `z` and of the slopes that `fused_gru` makes, the last step on top.
        kernel: `[features, 3 * hidden_size]` in the dtype of the products; None: no gradient
            of the inputs is wanted.
        recurrent_kernel: `[hidden_size, 3 * hidden_size]` in the dtype of the products.

    Returns:
        The gradients, the first in the dtype of the products or None.
    """
    time, size, dtype = tf.shape(x)[0], recurrent_kernel.shape[0], d_last.dtype
    sums = [
        tf.zeros([rows, gates * size], dtype)
        for rows, gates in ((x.shape[1], 3), (size, 3), (1, 4))
    ]
    d_inputs = [] if kernel is None else [step_list(time, x.shape[1:], x.dtype)]
    kernel = None if kernel is None else tf.roll(kernel, size, axis=1)

    def block(end, d_state, d_inputs, sums, stacks):
        begin = tf.maximum(end - _BLOCK, 0)
        d_state, stacks, d_gates = _through_gates(
            begin, end, d_state, d_outputs, stacks, recurrent_kernel
        )
        by_inputs, by_recurrent = d_gates[: 3 * size], d_gates[size:]
        ones = tf.ones([1, tf.shape(d_gates)[1]], x.dtype)
        pairs = (
            (flat(x[begin:end]), by_inputs),
            (flat(states[begin:end]), by_recurrent),
            (ones, d_gates),
        )
        sums = [
            total + tf.cast(tf.matmul(left, right, transpose_b=True), dtype)
            for total, (left, right) in zip(sums, pairs, strict=True)
        ]
        d_inputs = [
            blocks.scatter(tf.range(begin, end), unflat(tf.matmul(kernel, by_inputs), x.shape[2]))
            for blocks in d_inputs
        ]
        return begin, d_state, d_inputs, sums, stacks

    _, d_initial, d_inputs, (d_kernel, d_recurrent_kernel, d_biases), _ = tf.while_loop(
        lambda end, *_: end > 0, block, [time, d_last, d_inputs, sums, kept], parallel_iterations=1
    )
    d_biases = tf.concat([tf.roll(d_biases[:, : 3 * size], -size, 1), d_biases[:, size:]], axis=0)
    stacked = d_inputs[0].stack() if d_inputs else None
    return stacked, d_initial, tf.roll(d_kernel, -size, axis=1), d_recurrent_kernel, d_biases


def _through_gates(begin, end, d_state, d_outputs, stacks, recurrent_kernel):
    """Go back from step `end` to `begin`.

    It gives the gradient of the state before `begin`, what is left of the stacks, and
    `[4 * hidden_size, steps * batch]` in the dtype of the products: the gradients of the
    candidate's inputs, z, r, and the candidate's recurrent part, before activation. The
    first three are those of the input product, the last three of the recurrent one.
    """
    size, batch = d_state.shape
    products, dtype = recurrent_kernel.dtype, d_state.dtype

    def step(t, d_state, d_gates, stacks):
        z, z_stack = pop(stacks[0], [size, batch], products)
        slopes, slope_stack = pop(stacks[1], [4, size, batch], products)
        d_state = d_state + tf.cast(d_outputs[t], dtype)
        d_gate = tf.reshape(tf.cast(d_state, products) * slopes, [4 * size, batch])
        passed_on = tf.cast(tf.matmul(recurrent_kernel, d_gate[size:]), dtype)
        d_gates = d_gates.write(t - begin, d_gate)
        return t - 1, d_state * tf.cast(z, dtype) + passed_on, d_gates, [z_stack, slope_stack]

    d_gates = step_list(end - begin, [4 * size, batch], products)
    _, d_state, d_gates, stacks = tf.while_loop(
        lambda t, *_: t >= begin, step, [end - 1, d_state, d_gates, stacks], parallel_iterations=1
    )
    return d_state, stacks, flat(d_gates.stack())
