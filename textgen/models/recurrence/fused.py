"""The fused kernel: a recurrent cell over a whole sequence on a CPU, with its own gradient.

TensorFlow has no fused GRU or LSTM for the CPU: Keras's layers become a generic loop whose
backward pass adds up the gradient of the recurrent kernel at every step. This kernel differs in
five ways, each measured (docs/experiments.md#fused-kernel):

1. Features come first and the batch last, `[hidden_size, batch]`. A product is then
   `kernelᵀ @ state` with the large matrix on the left, which needs no repacking (twice as fast
   at 32 rows), and a gate is a contiguous slice that takes no copy.
2. The gradient of a kernel is one product for many steps (`gradient`).
3. The derivatives of the next state by each gate are computed in the forward loop, where their
   operands are in registers; the backward loop is left with one recurrent product per step.
4. They are saved on stacks of one tensor per step, which the backward loop pops: nothing is
   concatenated and split again, and memory is freed as soon as it has been read.
5. The gates of a forward step are one function compiled by XLA instead of 25 operations
   (`cells`).

The equations are those of Keras. `x_` are the pieces of `inputs[t] @ input_kernel`, `u_` those of
`h @ recurrent_kernel`, each with its bias where it has one of its own:

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

from collections.abc import Callable

import tensorflow as tf

from textgen.config import Cell
from textgen.models.recurrence.cells import FUSED_CELLS, FusedCell, States
from textgen.models.recurrence.gradient import ForwardPass, backward
from textgen.models.recurrence.step_lists import empty_stack, push, step_list

_Gradients = tuple[tf.Tensor | None, ...]
_Outputs = tuple[tf.Tensor, tf.Tensor]


def fused_recurrence(
    inputs: tf.Tensor,
    initial_state: tf.Tensor,
    input_kernel: tf.Tensor,
    recurrent_kernel: tf.Tensor,
    bias: tf.Tensor,
    *,
    cell: Cell,
    matmul_dtype: tf.DType | None = None,
) -> tuple[tf.Tensor, tf.Tensor]:
    """Run a cell over all time steps.

    Args:
        inputs: `[time, features, batch]`; time and batch may be unknown when traced. Integers,
            such as one-hot columns, have no gradient.
        initial_state: `[state_size, batch]` float; for an LSTM, `h` and `c` concatenated.
        input_kernel: `[features, gates * hidden_size]`, gates in the order of `weights.GATES`.
        recurrent_kernel: `[hidden_size, gates * hidden_size]`.
        bias: `[2, 3 * hidden_size]` for a GRU, `[1, gates * hidden_size]` for the other cells.
        cell: `"gru"`, `"lstm"` or `"rnn"`.
        matmul_dtype: Dtype of the matrix products and of their results; None: that of the
            state. Gates, states and their gradients keep the dtype of the state.

    Returns:
        The output of each step, `[time, hidden_size, batch]` in the dtype of the products, and
        the last state, `[state_size, batch]` in its own; differentiable in every argument.
    """
    dtype, fused = matmul_dtype or initial_state.dtype, FUSED_CELLS[cell]

    def run(
        inputs: tf.Tensor,
        initial_state: tf.Tensor,
        input_kernel: tf.Tensor,
        recurrent_kernel: tf.Tensor,
        biases: tf.Tensor,
    ) -> tuple[_Outputs, Callable[[tf.Tensor, tf.Tensor], _Gradients]]:
        x = tf.cast(inputs, dtype)
        last, forward = _forward(fused, x, initial_state, input_kernel, recurrent_kernel, biases)

        def gradient(d_outputs: tf.Tensor, d_last: tf.Tensor) -> _Gradients:
            kernel = tf.cast(input_kernel, dtype) if inputs.dtype.is_floating else None
            recurrent = tf.cast(recurrent_kernel, dtype)
            d_inputs, *others = backward(fused, forward, d_outputs, d_last, kernel, recurrent)
            return None if d_inputs is None else tf.cast(d_inputs, inputs.dtype), *others

        return (forward.states[1:], last), gradient

    arranged_kernel, biases = fused.arrange(input_kernel, bias)
    outputs, last = tf.custom_gradient(run)(
        inputs, initial_state, arranged_kernel, recurrent_kernel, biases
    )
    return outputs, last


def _forward(
    cell: FusedCell,
    x: tf.Tensor,
    initial_state: tf.Tensor,
    input_kernel: tf.Tensor,
    recurrent_kernel: tf.Tensor,
    biases: tf.Tensor,
) -> tuple[tf.Tensor, ForwardPass]:
    """Return the last state, `[state_size, batch]`, and the values for the backward pass.

    Among these, `states[1:]` are the outputs and `states[:-1]` the inputs of the recurrent
    products.
    """
    time, matmul_dtype = tf.shape(x)[0], x.dtype
    input_weights = tf.transpose(tf.cast(input_kernel, matmul_dtype))
    recurrent_weights = tf.transpose(tf.cast(recurrent_kernel, matmul_dtype))
    states = tf.split(initial_state, cell.states, axis=0)
    shape = states[0].shape
    stacks = [empty_stack([*leading, *shape], matmul_dtype) for leading in cell.saved]

    def step(
        t: tf.Tensor,
        states: States,
        rounded: tf.Tensor,
        all_rounded: tf.TensorArray,
        stacks: list[tf.Tensor],
    ) -> tuple[tf.Tensor, States, tf.Tensor, tf.TensorArray, list[tf.Tensor]]:
        x_gates = tf.matmul(input_weights, x[t])
        u_gates = tf.matmul(recurrent_weights, rounded)
        states, rounded, saved = cell.step(x_gates, u_gates, biases, states)
        all_rounded = all_rounded.write(t + 1, rounded)
        stacks = [push(stack, value) for stack, value in zip(stacks, saved, strict=True)]
        return t + 1, states, rounded, all_rounded, stacks

    rounded = tf.cast(states[0], matmul_dtype)
    all_rounded = step_list(time + 1, shape, matmul_dtype).write(0, rounded)
    _, states, _, all_rounded, stacks = tf.while_loop(
        lambda t, *_: t < time,
        step,
        [0, tuple(states), rounded, all_rounded, stacks],
        parallel_iterations=1,
    )
    return tf.concat(states, axis=0), ForwardPass(x, all_rounded.stack(), stacks)
