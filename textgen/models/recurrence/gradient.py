"""The backward pass of the fused kernel, from the last time step to the first.

It proceeds in blocks of steps: one step at a time through the gates of a block, then one matrix
product per block and kernel. Adding to a kernel's gradient at every step would move the whole
kernel through memory a hundred times; storing the gradients of the gates for all steps would make
them the largest tensors of training.
"""

from typing import NamedTuple

import tensorflow as tf

from textgen.models.recurrence.cells import FusedCell, States
from textgen.models.recurrence.step_lists import flat, pop, step_list, unflat

# As fast as 50 steps, in less memory (docs/experiments.md#fused-kernel).
_BLOCK = 25

_Tensors = list[tf.Tensor]
_Arrays = list[tf.TensorArray]


class ForwardPass(NamedTuple):
    """Results of the forward pass for the backward pass, in the dtype of the matrix products.

    Attributes:
        x: The inputs, `[time, features, batch]`.
        states: Every `h`, `[time + 1, hidden_size, batch]`, the initial one first.
        stacks: One stack for each tensor of `FusedCell.saved`, the last step on top.
    """

    x: tf.Tensor
    states: tf.Tensor
    stacks: _Tensors


class Gradients(NamedTuple):
    """The gradients of a window; all but the first have the dtype of the state.

    Attributes:
        inputs: `[time, features, batch]` in the dtype of the products; None: not requested.
        initial_state: `[state_size, batch]`.
        input_kernel: `[features, gates * hidden_size]`, arranged.
        recurrent_kernel: `[hidden_size, gates * hidden_size]`.
        biases: `[pieces * hidden_size, 1]`, arranged.
    """

    inputs: tf.Tensor | None
    initial_state: tf.Tensor
    input_kernel: tf.Tensor
    recurrent_kernel: tf.Tensor
    biases: tf.Tensor


def backward(
    cell: FusedCell,
    forward: ForwardPass,
    d_outputs: tf.Tensor,
    d_last: tf.Tensor,
    input_kernel: tf.Tensor | None,
    recurrent_kernel: tf.Tensor,
) -> Gradients:
    """Return the gradients of a window.

    Args:
        cell: The cell that ran.
        forward: Its forward pass.
        d_outputs: Gradient of the outputs, `[time, hidden_size, batch]`.
        d_last: Gradient of the last state, `[state_size, batch]`.
        input_kernel: `[features, gates * hidden_size]`, arranged, in the dtype of the products;
            None: the gradient of the inputs is not requested.
        recurrent_kernel: `[hidden_size, gates * hidden_size]` in the dtype of the products.

    Returns:
        The gradients.
    """
    x, states, stacks = forward
    time, batch = tf.shape(x)[0], tf.shape(x)[2]

    def block(
        end: tf.Tensor, d_states: States, d_inputs: _Arrays, sums: _Tensors, stacks: _Tensors
    ) -> tuple[tf.Tensor, States, _Arrays, _Tensors, _Tensors]:
        begin = tf.maximum(end - _BLOCK, 0)
        d_states, stacks, d_pieces = _through_gates(
            cell, begin, end, d_states, d_outputs, stacks, recurrent_kernel
        )
        sums = _add_products(sums, x[begin:end], states[begin:end], d_pieces)
        d_inputs = _write_inputs(d_inputs, begin, end, input_kernel, d_pieces, batch)
        return begin, d_states, d_inputs, sums, stacks

    d_states = tuple(tf.split(d_last, cell.states, axis=0))
    sums = _zero_sums(cell, x, recurrent_kernel, d_last.dtype)
    # A list of at most one, so that the loop's variables have the same structure either way.
    d_inputs = [] if input_kernel is None else [step_list(time, x.shape[1:], x.dtype)]
    _, d_states, d_inputs, sums, _ = tf.while_loop(
        lambda end, *_: end > 0,
        block,
        [time, d_states, d_inputs, sums, stacks],
        parallel_iterations=1,
    )
    d_input_kernel, d_recurrent_kernel, d_biases = sums
    return Gradients(
        d_inputs[0].stack() if d_inputs else None,
        tf.concat(d_states, axis=0),
        d_input_kernel,
        d_recurrent_kernel,
        tf.transpose(d_biases),
    )


def _zero_sums(
    cell: FusedCell, x: tf.Tensor, recurrent_kernel: tf.Tensor, dtype: tf.DType
) -> _Tensors:
    """Return zeros for the gradients of the input kernel, the recurrent kernel and the biases.

    The biases are a row, `[1, pieces * hidden_size]`.
    """
    size, rows = recurrent_kernel.shape
    shapes = [x.shape[1], rows], [size, rows], [1, cell.pieces * size]
    return [tf.zeros(shape, dtype) for shape in shapes]


def _add_products(sums: _Tensors, x: tf.Tensor, states: tf.Tensor, d_pieces: tf.Tensor) -> _Tensors:
    """Return the sums with the contribution of one block added.

    Args:
        sums: Shaped as by `_zero_sums`.
        x: Inputs of the block, `[steps, features, batch]`.
        states: The `h` that each of its steps read, `[steps, hidden_size, batch]`.
        d_pieces: `[pieces * hidden_size, steps * batch]`.

    Returns:
        The sums, each in its own dtype.
    """
    rows = sums[0].shape[1]
    ones = tf.ones([1, tf.shape(d_pieces)[1]], x.dtype)
    pairs = (flat(x), d_pieces[:rows]), (flat(states), d_pieces[-rows:]), (ones, d_pieces)
    products = [tf.matmul(left, right, transpose_b=True) for left, right in pairs]
    return [
        total + tf.cast(product, total.dtype) for total, product in zip(sums, products, strict=True)
    ]


def _write_inputs(
    d_inputs: _Arrays,
    begin: tf.Tensor,
    end: tf.Tensor,
    input_kernel: tf.Tensor | None,
    d_pieces: tf.Tensor,
    batch: tf.Tensor,
) -> _Arrays:
    """Write the gradients of the inputs of steps `[begin, end)`, if they are requested."""
    if input_kernel is None:
        return d_inputs
    (steps,), rows = d_inputs, input_kernel.shape[1]
    columns = tf.matmul(input_kernel, d_pieces[:rows])
    return [steps.scatter(tf.range(begin, end), unflat(columns, batch))]


def _through_gates(
    cell: FusedCell,
    begin: tf.Tensor,
    end: tf.Tensor,
    d_states: States,
    d_outputs: tf.Tensor,
    stacks: _Tensors,
    recurrent_kernel: tf.Tensor,
) -> tuple[States, _Tensors, tf.Tensor]:
    """Compute the gradients of steps `[begin, end)`, last step first, except for the kernels'.

    Returns:
        The gradients of the states before `begin`, the rest of the stacks, and the gradients of
        the pieces, `[pieces * hidden_size, steps * batch]` in the dtype of the products.
    """
    shape, dtype = d_states[0].shape, d_states[0].dtype
    rows, matmul_dtype = recurrent_kernel.shape[1], recurrent_kernel.dtype

    def through_product(d_pieces: tf.Tensor) -> tf.Tensor:
        return tf.cast(tf.matmul(recurrent_kernel, d_pieces[-rows:]), dtype)

    def step(
        t: tf.Tensor, d_states: States, d_pieces: tf.TensorArray, stacks: _Tensors
    ) -> tuple[tf.Tensor, States, tf.TensorArray, _Tensors]:
        popped = [
            pop(stack, [*leading, *shape], matmul_dtype)
            for stack, leading in zip(stacks, cell.saved, strict=True)
        ]
        saved = [value for value, _ in popped]
        d_output, *others = d_states
        d_states = d_output + tf.cast(d_outputs[t], dtype), *others
        d_piece, d_states = cell.backward_step(d_states, saved, through_product)
        return t - 1, d_states, d_pieces.write(t - begin, d_piece), [rest for _, rest in popped]

    d_pieces = step_list(end - begin, [cell.pieces * shape[0], shape[1]], matmul_dtype)
    _, d_states, d_pieces, stacks = tf.while_loop(
        lambda t, *_: t >= begin, step, [end - 1, d_states, d_pieces, stacks], parallel_iterations=1
    )
    return d_states, stacks, flat(d_pieces.stack())
