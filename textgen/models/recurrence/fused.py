"""A recurrent cell over a whole sequence for CPUs, with a gradient of its own.

TensorFlow has no fused GRU or LSTM for the CPU: Keras's layers become a generic loop
whose backward pass adds up the gradient of the recurrent kernel at every step.
What is done instead, each for a measured reason (docs/experiments.md):

1. Features come first and the batch last, `[hidden_size, batch]`. A product is then
   `kernelᵀ @ state` with the large matrix on the left, which needs no repacking
   (twice as fast at 32 rows), and a gate is a contiguous piece that is cut out
   without a copy.
2. The gradient of a kernel is one product for many steps (`fused_gradient`).
3. The slopes of the next state by each gate are made in the forward loop, where all they
   need is at hand; one recurrent product a step is left to the backward loop.
4. They are kept as stacks of tensors, one a step, that the backward loop pops from the end:
   nothing is joined and cut again, and memory is free as soon as it was read.
5. The gates of a forward step are one function that XLA compiles, 25 ops otherwise
   (`fused_cells`).

The functions, gate by gate, as Keras has them. `x_` are the pieces of `inputs[t] @ kernel`,
`u_` those of `h @ recurrent_kernel`, each with its bias where it has one of its own:

    gru     z = sigmoid(x_z + u_z)          update gate
            r = sigmoid(x_r + u_r)          reset gate
            candidate = tanh(x_c + r * u_c)
            h = z * h + (1 - z) * candidate

    lstm    i = sigmoid(x_i + u_i)          input gate
            f = sigmoid(x_f + u_f)          forget gate
            g = tanh(x_g + u_g)             candidate
            o = sigmoid(x_o + u_o)          output gate
            c = f * c + i * g
            h = o * tanh(c)

    rnn     h = tanh(x + u)
"""

import tensorflow as tf

from textgen.config import Cell
from textgen.models.recurrence.cells import FUSED_CELLS
from textgen.models.recurrence.gradient import backward
from textgen.models.recurrence.step_lists import empty_stack, push, step_list


def fused_recurrence(
    inputs: tf.Tensor,
    initial_state: tf.Tensor,
    kernel: tf.Tensor,
    recurrent_kernel: tf.Tensor,
    bias: tf.Tensor,
    *,
    cell: Cell,
    products: tf.DType | None = None,
) -> tuple[tf.Tensor, tf.Tensor]:
    """Run a cell over all time steps.

    Args:
        inputs: `[time, features, batch]`; time and batch may be unknown when traced. Integers,
            as one-hot columns are, get no gradient.
        initial_state: `[state_size, batch]` float; of an LSTM `h` and behind it `c`.
        kernel: `[features, gates * hidden_size]`, gates in the order of `weights.GATES`.
        recurrent_kernel: `[hidden_size, gates * hidden_size]`.
        bias: `[2, 3 * hidden_size]` of a GRU, `[1, gates * hidden_size]` of the others.
        cell: `"gru"`, `"lstm"` or `"rnn"`.
        products: Dtype of the matrix products and of what they return; None: that of the
            state. Gates, states and their gradients keep the dtype of the state.

    Returns:
        The output of each step, `[time, hidden_size, batch]` in the dtype of the products,
        and the last state `[state_size, batch]` in its own; differentiable in every argument.
    """
    products, fused = products or initial_state.dtype, FUSED_CELLS[cell]

    @tf.custom_gradient
    def run(inputs, initial_state, kernel, recurrent_kernel, biases):
        x = tf.cast(inputs, products)
        last, rounded, kept = _forward(fused, x, initial_state, kernel, recurrent_kernel, biases)

        def gradient(d_outputs, d_last):
            wanted = tf.cast(kernel, products) if inputs.dtype.is_floating else None
            recurrent = tf.cast(recurrent_kernel, products)
            d_inputs, *others = backward(
                fused, d_outputs, d_last, x, rounded, kept, wanted, recurrent
            )
            return d_inputs if wanted is None else tf.cast(d_inputs, inputs.dtype), *others

        return (rounded[1:], last), gradient

    kernel, biases = fused.arranged(kernel, bias)
    return run(inputs, initial_state, kernel, recurrent_kernel, biases)


def _forward(cell, x, initial_state, kernel, recurrent_kernel, biases):
    """Return the last state, all `h` in the dtype of the products, and what `backward` pops.

    The second is `[time + 1, hidden_size, batch]`, the initial one first: from the second
    on they are the outputs, up to the last but one what the recurrent products read. To be
    popped are the stacks of `cell.kept` in the dtype of the products.
    """
    time, products = tf.shape(x)[0], x.dtype
    input_weights = tf.transpose(tf.cast(kernel, products))
    recurrent_weights = tf.transpose(tf.cast(recurrent_kernel, products))
    states = tf.split(initial_state, cell.states, axis=0)
    shape = states[0].shape
    stacks = [empty_stack([*leading, *shape], products) for leading in cell.kept]

    def step(t, states, rounded, all_rounded, stacks):
        x_gates = tf.matmul(input_weights, x[t])
        u_gates = tf.matmul(recurrent_weights, rounded)
        states, rounded, kept = cell.step(x_gates, u_gates, biases, states)
        all_rounded = all_rounded.write(t + 1, rounded)
        stacks = [push(stack, value) for stack, value in zip(stacks, kept, strict=True)]
        return t + 1, states, rounded, all_rounded, stacks

    rounded = tf.cast(states[0], products)
    all_rounded = step_list(time + 1, shape, products).write(0, rounded)
    _, states, _, all_rounded, stacks = tf.while_loop(
        lambda t, *_: t < time,
        step,
        [0, tuple(states), rounded, all_rounded, stacks],
        parallel_iterations=1,
    )
    return tf.concat(states, axis=0), all_rounded.stack(), stacks
