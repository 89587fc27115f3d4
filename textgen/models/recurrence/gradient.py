"""The backward pass of the fused kernel, from the last step to the first.

It goes in blocks: step by step through the gates of a block, then one product for the
block and each kernel. Summed at every step, a kernel's gradient would move the whole
kernel through memory a hundred times; kept for all steps at once, the gates' gradients
would be the largest tensors of training.
"""

import tensorflow as tf

from textgen.models.recurrence.cells import FusedCell
from textgen.models.recurrence.step_lists import flat, pop, step_list, unflat

# as fast as 50 steps, and takes less memory (docs/experiments.md)
_BLOCK = 25


def backward(
    cell: FusedCell,
    d_outputs: tf.Tensor,
    d_last: tf.Tensor,
    x: tf.Tensor,
    states: tf.Tensor,
    kept: list[tf.Tensor],
    kernel: tf.Tensor | None,
    recurrent_kernel: tf.Tensor,
) -> tuple[tf.Tensor | None, ...]:
    """Return the gradients of inputs, initial state, kernel, recurrent kernel and biases.

    Args:
        cell: Whose gates they are; kernel and biases as its `arranged` gives them.
        d_outputs: `[time, hidden_size, batch]`.
        d_last: `[state_size, batch]`, the dtype of the gates and of the gradients.
        x: The inputs, `[time, features, batch]`, in the dtype of the products.
        states: Every `h`, `[time + 1, hidden_size, batch]` in the dtype of the products, the
            initial one first.
        kept: The stacks of what `cell.step` keeps, the last step on top.
        kernel: `[features, gates * hidden_size]` in the dtype of the products; None: no
            gradient of the inputs is wanted.
        recurrent_kernel: `[hidden_size, gates * hidden_size]` in the dtype of the products.

    Returns:
        The gradients, the first in the dtype of the products or None.
    """
    time, batch = tf.shape(x)[0], tf.shape(x)[2]
    (size, rows), dtype = recurrent_kernel.shape, d_last.dtype
    shapes = [x.shape[1], rows], [size, rows], [1, cell.pieces * size]
    sums = [tf.zeros(shape, dtype) for shape in shapes]
    d_inputs = [] if kernel is None else [step_list(time, x.shape[1:], x.dtype)]

    def block(end, d_states, d_inputs, sums, stacks):
        begin = tf.maximum(end - _BLOCK, 0)
        d_states, stacks, d_pieces = _through_gates(
            cell, begin, end, d_states, d_outputs, stacks, recurrent_kernel
        )
        by_kernels = _by_kernels(x[begin:end], states[begin:end], d_pieces, rows)
        sums = [a + tf.cast(b, dtype) for a, b in zip(sums, by_kernels, strict=True)]
        d_inputs = [
            blocks.scatter(tf.range(begin, end), unflat(tf.matmul(kernel, d_pieces[:rows]), batch))
            for blocks in d_inputs
        ]
        return begin, d_states, d_inputs, sums, stacks

    d_states = tuple(tf.split(d_last, cell.states, axis=0))
    _, d_states, d_inputs, (d_kernel, d_recurrent_kernel, d_biases), _ = tf.while_loop(
        lambda end, *_: end > 0,
        block,
        [time, d_states, d_inputs, sums, kept],
        parallel_iterations=1,
    )
    stacked = d_inputs[0].stack() if d_inputs else None
    d_initial = tf.concat(d_states, axis=0)
    return stacked, d_initial, d_kernel, d_recurrent_kernel, tf.transpose(d_biases)


def _by_kernels(x, states, d_pieces, rows):
    """Return what a block adds to the gradients of the kernels and of the biases."""
    ones = tf.ones([1, tf.shape(d_pieces)[1]], x.dtype)
    pairs = (flat(x), d_pieces[:rows]), (flat(states), d_pieces[-rows:]), (ones, d_pieces)
    return [tf.matmul(left, right, transpose_b=True) for left, right in pairs]


def _through_gates(cell, begin, end, d_states, d_outputs, stacks, recurrent_kernel):
    """Go back from step `end` to `begin`.

    It gives the gradients of the states before `begin`, what is left of the stacks, and
    `[pieces * hidden_size, steps * batch]` in the dtype of the products: the gradients of
    the pieces of the gates, before activation.
    """
    shape, dtype = d_states[0].shape, d_states[0].dtype
    rows, products = recurrent_kernel.shape[1], recurrent_kernel.dtype

    def through_product(d_pieces):
        return tf.cast(tf.matmul(recurrent_kernel, d_pieces[-rows:]), dtype)

    def step(t, d_states, d_pieces, stacks):
        popped = [
            pop(stack, [*leading, *shape], products)
            for stack, leading in zip(stacks, cell.kept, strict=True)
        ]
        kept, stacks = zip(*popped, strict=True)
        d_output, *others = d_states
        d_states = d_output + tf.cast(d_outputs[t], dtype), *others
        d_piece, d_states = cell.back(d_states, kept, through_product)
        return t - 1, d_states, d_pieces.write(t - begin, d_piece), list(stacks)

    d_pieces = step_list(end - begin, [cell.pieces * shape[0], shape[1]], products)
    _, d_states, d_pieces, stacks = tf.while_loop(
        lambda t, *_: t >= begin, step, [end - 1, d_states, d_pieces, stacks], parallel_iterations=1
    )
    return d_states, stacks, flat(d_pieces.stack())
