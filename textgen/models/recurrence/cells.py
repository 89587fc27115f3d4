"""What the cells differ in for the fused kernel: one step forward, and the way back through it.

A cell's gates are cut into pieces of `hidden_size` rows. The input product feeds the first
`gates` pieces and the recurrent product the last `gates` pieces: of an LSTM and a plain cell
that is the same pieces, of a GRU its candidate has one of each, at either end.
"""

from collections.abc import Callable
from dataclasses import dataclass

import tensorflow as tf

from textgen.config import Cell


@dataclass(frozen=True, kw_only=True)
class FusedCell:
    """One kind of cell, features first and the batch last.

    Attributes:
        gates: Pieces that either product feeds.
        pieces: Pieces whose gradients differ.
        states: Tensors `[hidden_size, batch]` that are carried, the output `h` first.
        kept: Of each tensor kept for the way back, what stands before `[hidden_size, batch]`.
        arranged: Gives kernel and bias in the order of the pieces, `[inputs, gates *
            hidden_size]` and a column `[pieces * hidden_size, 1]`; differentiable.
        step: Takes both products, the biases and the states; gives the next states, and in
            the dtype of the products the next `h` and what is kept.
        back: Takes the gradients of the next states, what was kept, and a function that gives
            the gradient of `h` through the recurrent product; gives the gradients of the
            pieces, `[pieces * hidden_size, batch]`, and of the states.
    """

    gates: int
    pieces: int
    states: int
    kept: tuple[tuple[int, ...], ...]
    arranged: Callable
    step: Callable
    back: Callable


def _gru_arranged(kernel, bias):
    """Put the candidate's inputs first, then z and r, then the candidate's recurrence."""
    size = kernel.shape[1] // 3
    joined = bias[0] + bias[1]
    biases = tf.concat([bias[0, 2 * size :], joined[: 2 * size], bias[1, 2 * size :]], axis=0)
    return tf.roll(kernel, size, axis=1), biases[:, None]


@tf.function(jit_compile=True)
def _gru_step(x_gates, u_gates, biases, states):
    """Go on by one step; see `fused_recurrence` for the equations.

    The slopes say how the next state follows the candidate's inputs, z, r, and the
    candidate's recurrent part, each before its activation. Made here, where all they need
    is in registers, they leave one product to the backward pass.
    """
    (state,) = states
    size, dtype, products = state.shape[0], state.dtype, x_gates.dtype
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
    rounded, *kept = (tf.cast(value, products) for value in (next_state, z, slopes))
    return (next_state,), rounded, kept


def _gru_back(d_states, kept, through_product):
    (d_state,), (z, slopes) = d_states, kept
    d_pieces = tf.cast(d_state, slopes.dtype) * slopes
    d_pieces = tf.reshape(d_pieces, [4 * z.shape[0], -1])
    d_before = d_state * tf.cast(z, d_state.dtype) + through_product(d_pieces)
    return d_pieces, (d_before,)


def _as_given(kernel, bias):
    return kernel, tf.transpose(bias)


@tf.function(jit_compile=True)
def _lstm_step(x_gates, u_gates, biases, states):
    """Go on by one step, and keep six slopes.

    Of the next c by the input gate, the forget gate and the candidate before their
    activation, of h by the output gate likewise, of h by the next c, of the next c by c.
    """
    _, c = states
    dtype, products = c.dtype, x_gates.dtype
    gates = tf.cast(x_gates, dtype) + tf.cast(u_gates, dtype) + biases
    i, f, g, o = tf.split(gates, 4, axis=0)
    i, f, g, o = tf.sigmoid(i), tf.sigmoid(f), tf.tanh(g), tf.sigmoid(o)
    next_c = f * c + i * g
    shown = tf.tanh(next_c)
    h = o * shown
    by_gates = [g * i * (1.0 - i), c * f * (1.0 - f), i * (1.0 - g * g), h * (1.0 - o)]
    slopes = tf.stack([*by_gates, o * (1.0 - shown * shown), f])
    return (h, next_c), tf.cast(h, products), [tf.cast(slopes, products)]


@tf.function(jit_compile=True)
def _lstm_slopes_back(d_h, d_c, slopes):
    by_i, by_f, by_g, by_o, by_c, f = tf.unstack(tf.cast(slopes, d_h.dtype))
    d_c = d_c + d_h * by_c
    d_pieces = tf.concat([d_c * by_i, d_c * by_f, d_c * by_g, d_h * by_o], axis=0)
    return tf.cast(d_pieces, slopes.dtype), d_c * f


def _lstm_back(d_states, kept, through_product):
    d_pieces, d_c = _lstm_slopes_back(*d_states, *kept)
    return d_pieces, (through_product(d_pieces), d_c)


@tf.function(jit_compile=True)
def _rnn_step(x_gates, u_gates, biases, states):
    """Go on by one step, and keep the slope of h."""
    (state,) = states
    dtype, products = state.dtype, x_gates.dtype
    h = tf.tanh(tf.cast(x_gates, dtype) + tf.cast(u_gates, dtype) + biases)
    return (h,), tf.cast(h, products), [tf.cast(1.0 - h * h, products)]


def _rnn_back(d_states, kept, through_product):
    (d_state,), (slope,) = d_states, kept
    d_pieces = tf.cast(d_state, slope.dtype) * slope
    return d_pieces, (through_product(d_pieces),)


FUSED_CELLS: dict[Cell, FusedCell] = {
    "gru": FusedCell(
        gates=3,
        pieces=4,
        states=1,
        kept=((), (4,)),
        arranged=_gru_arranged,
        step=_gru_step,
        back=_gru_back,
    ),
    "lstm": FusedCell(
        gates=4,
        pieces=4,
        states=2,
        kept=((6,),),
        arranged=_as_given,
        step=_lstm_step,
        back=_lstm_back,
    ),
    "rnn": FusedCell(
        gates=1,
        pieces=1,
        states=1,
        kept=((),),
        arranged=_as_given,
        step=_rnn_step,
        back=_rnn_back,
    ),
}
