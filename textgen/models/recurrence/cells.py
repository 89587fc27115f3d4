"""Forward and backward steps of each cell for the fused kernel.

Tensors have the features first and the batch last. A cell's pre-activations consist of pieces of
`hidden_size` rows. The input product is added to the first `gates` pieces and the recurrent
product to the last `gates` pieces. For an LSTM and a plain cell these are the same pieces. A
GRU's candidate has two, the first for the input product and the last for the recurrent product,
because its reset gate multiplies only the latter.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import tensorflow as tf

from textgen.config import Cell

# The states that are carried, each `[hidden_size, batch]`, the output `h` first.
States = tuple[tf.Tensor, ...]
# Returns the gradient of `h` through the recurrent product from the gradients of the pieces.
ThroughProduct = Callable[[tf.Tensor], tf.Tensor]


@dataclass(frozen=True, kw_only=True)
class FusedCell:
    """One type of cell.

    Attributes:
        gates: Number of pieces that each of the two products is added to.
        pieces: Number of pieces whose gradients differ.
        states: Number of tensors `[hidden_size, batch]` that are carried.
        saved: Leading sizes of each tensor that is saved for the backward pass; its shape is
            `[*sizes, hidden_size, batch]`.
        arrange: Takes an input kernel and a bias as in `LayerWeights`; returns them in the order
            of the pieces, `[inputs, gates * hidden_size]` and `[pieces * hidden_size, 1]`.
            Differentiable.
        step: Takes the input product and the recurrent product, `[gates * hidden_size, batch]`
            in the dtype of the matrix products, the arranged bias, and the states; returns the
            next states, and in the dtype of the products the next `h` and the saved tensors.
        backward_step: Takes the gradients of the next states, the saved tensors, and
            `ThroughProduct`; returns the gradients of the pieces, `[pieces * hidden_size,
            batch]` in the dtype of the products, and those of the states.
    """

    gates: int
    pieces: int
    states: int
    saved: tuple[tuple[int, ...], ...]
    arrange: Callable[[tf.Tensor, tf.Tensor], tuple[tf.Tensor, tf.Tensor]]
    step: Callable[
        [tf.Tensor, tf.Tensor, tf.Tensor, States], tuple[States, tf.Tensor, list[tf.Tensor]]
    ]
    backward_step: Callable[[States, Sequence[tf.Tensor], ThroughProduct], tuple[tf.Tensor, States]]


def _arrange_gru(input_kernel: tf.Tensor, bias: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Order the pieces: input part of the candidate, z, r, recurrent part of the candidate."""
    size = input_kernel.shape[1] // 3
    joined = bias[0] + bias[1]
    biases = tf.concat([bias[0, 2 * size :], joined[: 2 * size], bias[1, 2 * size :]], axis=0)
    return tf.roll(input_kernel, size, axis=1), biases[:, None]


def _gru_step(
    x_gates: tf.Tensor, u_gates: tf.Tensor, biases: tf.Tensor, states: States
) -> tuple[States, tf.Tensor, list[tf.Tensor]]:
    """Advance one time step; see `fused` for the equations.

    The saved slopes are the derivatives of the next state with respect to the pre-activations of
    the candidate's input part, z, r and the candidate's recurrent part. They are computed here,
    where their operands are in registers, which leaves one product to the backward pass.

    Returns:
        The next states, the output, and the saved slopes.
    """
    (state,) = states
    size, dtype, matmul_dtype = state.shape[0], state.dtype, x_gates.dtype
    x_gates, u_gates = tf.cast(x_gates, dtype), tf.cast(u_gates, dtype)
    joined = x_gates[size:] + u_gates[: 2 * size] + biases[size : 3 * size]
    update_reset = tf.sigmoid(joined)
    z, r = update_reset[:size], update_reset[size:]
    u_c = u_gates[2 * size :] + biases[3 * size :]
    c = tf.tanh(x_gates[:size] + r * u_c + biases[:size])
    z_part, rest = z * (state - c), 1.0 - z
    by_c = rest * (1.0 - c * c)
    by_u = by_c * r
    next_state = c + z_part
    slopes = tf.stack([by_c, z_part * rest, by_u * u_c * (1.0 - r), by_u])
    rounded, *saved = (tf.cast(value, matmul_dtype) for value in (next_state, z, slopes))
    return (next_state,), rounded, saved


def _gru_backward_step(
    d_states: States, saved: Sequence[tf.Tensor], through_product: ThroughProduct
) -> tuple[tf.Tensor, States]:
    (d_state,), (z, slopes) = d_states, saved
    d_pieces = tf.cast(d_state, slopes.dtype) * slopes
    d_pieces = tf.reshape(d_pieces, [4 * z.shape[0], -1])
    d_previous = d_state * tf.cast(z, d_state.dtype) + through_product(d_pieces)
    return d_pieces, (d_previous,)


def _keep_order(input_kernel: tf.Tensor, bias: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    return input_kernel, tf.transpose(bias)


def _lstm_step(
    x_gates: tf.Tensor, u_gates: tf.Tensor, biases: tf.Tensor, states: States
) -> tuple[States, tf.Tensor, list[tf.Tensor]]:
    """Advance one time step; see `fused` for the equations.

    Six slopes are saved: the derivatives of the next c with respect to the pre-activations of the
    input gate, the forget gate and the candidate; of h with respect to that of the output gate;
    of h with respect to the next c; and of the next c with respect to c.

    Returns:
        The next states, the output, and the saved slopes.
    """
    _, c = states
    dtype, matmul_dtype = c.dtype, x_gates.dtype
    gates = tf.cast(x_gates, dtype) + tf.cast(u_gates, dtype) + biases
    i, f, g, o = tf.split(gates, 4, axis=0)
    i, f, g, o = tf.sigmoid(i), tf.sigmoid(f), tf.tanh(g), tf.sigmoid(o)
    next_c = f * c + i * g
    squashed = tf.tanh(next_c)
    h = o * squashed
    by_gates = [g * i * (1.0 - i), c * f * (1.0 - f), i * (1.0 - g * g), h * (1.0 - o)]
    slopes = tf.stack([*by_gates, o * (1.0 - squashed * squashed), f])
    return (h, next_c), tf.cast(h, matmul_dtype), [tf.cast(slopes, matmul_dtype)]


def _through_lstm_gates(
    d_h: tf.Tensor, d_c: tf.Tensor, slopes: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """Return the gradients of the pieces and of the previous c."""
    by_i, by_f, by_g, by_o, by_c, f = tf.unstack(tf.cast(slopes, d_h.dtype))
    d_c = d_c + d_h * by_c
    d_pieces = tf.concat([d_c * by_i, d_c * by_f, d_c * by_g, d_h * by_o], axis=0)
    return tf.cast(d_pieces, slopes.dtype), d_c * f


_compiled_through_lstm_gates = tf.function(_through_lstm_gates, jit_compile=True)


def _lstm_backward_step(
    d_states: States, saved: Sequence[tf.Tensor], through_product: ThroughProduct
) -> tuple[tf.Tensor, States]:
    d_pieces, d_c = _compiled_through_lstm_gates(*d_states, *saved)
    return d_pieces, (through_product(d_pieces), d_c)


def _rnn_step(
    x_gates: tf.Tensor, u_gates: tf.Tensor, biases: tf.Tensor, states: States
) -> tuple[States, tf.Tensor, list[tf.Tensor]]:
    """Advance one time step; save the derivative of h with respect to its pre-activation."""
    (state,) = states
    dtype, matmul_dtype = state.dtype, x_gates.dtype
    h = tf.tanh(tf.cast(x_gates, dtype) + tf.cast(u_gates, dtype) + biases)
    return (h,), tf.cast(h, matmul_dtype), [tf.cast(1.0 - h * h, matmul_dtype)]


def _rnn_backward_step(
    d_states: States, saved: Sequence[tf.Tensor], through_product: ThroughProduct
) -> tuple[tf.Tensor, States]:
    (d_state,), (slope,) = d_states, saved
    d_pieces = tf.cast(d_state, slope.dtype) * slope
    return d_pieces, (through_product(d_pieces),)


FUSED_CELLS: dict[Cell, FusedCell] = {
    "gru": FusedCell(
        gates=3,
        pieces=4,
        states=1,
        saved=((), (4,)),
        arrange=_arrange_gru,
        step=tf.function(_gru_step, jit_compile=True),
        backward_step=_gru_backward_step,
    ),
    "lstm": FusedCell(
        gates=4,
        pieces=4,
        states=2,
        saved=((6,),),
        arrange=_keep_order,
        step=tf.function(_lstm_step, jit_compile=True),
        backward_step=_lstm_backward_step,
    ),
    "rnn": FusedCell(
        gates=1,
        pieces=1,
        states=1,
        saved=((),),
        arrange=_keep_order,
        step=tf.function(_rnn_step, jit_compile=True),
        backward_step=_rnn_backward_step,
    ),
}
