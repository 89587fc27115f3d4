"""A GRU over a whole sequence for CPUs, with a gradient of its own.

TensorFlow has no fused GRU for the CPU: `keras.layers.GRU` becomes a generic loop
whose backward pass adds up the gradient of the recurrent kernel at every step.
What is done instead, each for a measured reason (docs/experiments.md):

1. Features come first and the batch last, `[hidden_size, batch]`. A product is then
   `kernelᵀ @ state` with the large matrix on the left, which needs no repacking
   (twice as fast at 32 rows), and a gate is a contiguous piece that is cut out
   without a copy.
2. The gradient of a kernel is one product for many steps (`fused_gru_gradient`).
3. The slope of the next state by each gate is made in the forward loop, where all it needs
   is at hand; one product a step is left to the backward loop.
4. It is kept as stacks of tensors, one a step, that the backward loop pops from the end:
   nothing is joined and cut again, and memory is free as soon as it was read.
5. The gates of a forward step are one function that XLA compiles, 25 ops otherwise.

The function, gate by gate (as `keras.layers.GRU(reset_after=True)` has it), where
`x_z, x_r, x_c` are the thirds of `inputs[t] @ kernel + bias[0]` and `u_z, u_r, u_c`
those of `h @ recurrent_kernel + bias[1]`:

    z = sigmoid(x_z + u_z)          update gate
    r = sigmoid(x_r + u_r)          reset gate
    c = tanh(x_c + r * u_c)         candidate
    h = z * h + (1 - z) * c
"""

import tensorflow as tf

from textgen.models.fused_gru_gradient import backward
from textgen.models.step_lists import empty_stack, push, step_list


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
        inputs: `[time, features, batch]`; time and batch may be unknown when traced. Integers,
            as one-hot columns are, get no gradient.
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
            wanted = tf.cast(kernel, products) if inputs.dtype.is_floating else None
            d_inputs, *others = backward(
                d_outputs, d_last, x, rounded, kept, wanted, tf.cast(recurrent_kernel, products)
            )
            return d_inputs if wanted is None else tf.cast(d_inputs, inputs.dtype), *others

        return (rounded[1:], last), gradient

    return run(inputs, initial_state, kernel, recurrent_kernel, bias)


def _forward(x, initial_state, kernel, recurrent_kernel, bias):
    """Return the last state, all states in the dtype of the products, and what `backward` pops.

    The states are `[time + 1, hidden_size, batch]`, the initial one first: from the second
    on they are the outputs, up to the last but one what the recurrent products read. To be
    popped are two stacks in the dtype of the products: `z`, and the slopes of `_cell`.
    """
    time, products = tf.shape(x)[0], x.dtype
    input_weights = tf.transpose(tf.cast(kernel, products))
    recurrent_weights = tf.transpose(tf.cast(recurrent_kernel, products))
    biases = _biases(bias, initial_state.shape[0])
    slopes_shape = [4, *initial_state.shape]
    stacks = [empty_stack(shape, products) for shape in (initial_state.shape, slopes_shape)]

    def step(t, state, rounded, all_rounded, *stacks):
        x_gates = tf.matmul(input_weights, x[t])
        u_gates = tf.matmul(recurrent_weights, rounded)
        new_state, new_rounded, z, slopes = _cell(x_gates, u_gates, *biases, state)
        return (
            t + 1,
            new_state,
            new_rounded,
            all_rounded.write(t + 1, new_rounded),
            push(stacks[0], z),
            push(stacks[1], slopes),
        )

    rounded = tf.cast(initial_state, products)
    all_rounded = step_list(time + 1, initial_state.shape, products).write(0, rounded)
    _, last, _, all_rounded, *stacks = tf.while_loop(
        lambda t, *_: t < time,
        step,
        [0, initial_state, rounded, all_rounded, *stacks],
        parallel_iterations=1,
    )
    return last, all_rounded.stack(), stacks


def _biases(bias, hidden_size):
    """Return the biases as columns: of z and r, of the candidate's inputs, of its recurrence."""
    joined = (bias[0] + bias[1])[: 2 * hidden_size]
    parts = joined, bias[0, 2 * hidden_size :], bias[1, 2 * hidden_size :]
    return [part[:, None] for part in parts]


@tf.function(jit_compile=True)
def _cell(x_gates, u_gates, gate_bias, input_bias, recurrent_bias, state):
    """Return the next state, and in the dtype of the gates: the same, `z`, and the slopes.

    The slopes say how the next state follows the candidate's inputs, z, r, and the
    candidate's recurrent part, each before its activation. Made here, where all they need
    is in registers, they leave one product to the backward pass.
    """
    size, dtype, products = state.shape[0], state.dtype, x_gates.dtype
    x_gates, u_gates = tf.cast(x_gates, dtype), tf.cast(u_gates, dtype)
    update_reset = tf.sigmoid(x_gates[: 2 * size] + u_gates[: 2 * size] + gate_bias)
    z, r = update_reset[:size], update_reset[size:]
    u_c = u_gates[2 * size :] + recurrent_bias
    c = tf.tanh(x_gates[2 * size :] + r * u_c + input_bias)
    z_part, rest = z * (state - c), 1.0 - z
    by_c = rest * (1.0 - c * c)
    by_u = by_c * r
    next_state = c + z_part
    slopes = tf.stack([by_c, z_part * rest, by_u * u_c * (1.0 - r), by_u])
    return next_state, *(tf.cast(value, products) for value in (next_state, z, slopes))
