"""Random arguments for a recurrence, and other implementations to compare with."""

from functools import partial

import keras
import numpy as np
import tensorflow as tf

from textgen.models.recurrence.reference import reference_recurrence
from textgen.models.weights import GATES

CELLS = sorted(GATES)
# Tensors of `hidden_size` that a state consists of.
STATES = {"gru": 1, "lstm": 2, "rnn": 1}
STOCK = {
    "gru": partial(keras.layers.GRU, reset_after=True),
    "lstm": keras.layers.LSTM,
    "rnn": keras.layers.SimpleRNN,
}


def make_arguments(cell, time, batch, features, hidden, seed):
    """Inputs, state and weights in the layout of the fused kernel, float64."""
    rng = np.random.default_rng(seed)
    gates = len(GATES[cell]) * hidden
    shapes = [
        (time, features, batch),
        (STATES[cell] * hidden, batch),
        (features, gates),
        (hidden, gates),
        (2 if cell == "gru" else 1, gates),
    ]
    values = [rng.normal(size=shape) for shape in shapes]
    values[2] /= np.sqrt(features)
    # Orthogonal, as layers are initialized: larger ones make the recurrence chaotic in any dtype.
    blocks = np.split(values[3], len(GATES[cell]), axis=1)
    values[3] = np.concatenate([np.linalg.qr(block)[0] for block in blocks], axis=1)
    return values


def make_upstream(cell, time, batch, hidden, seed):
    """Gradients of the outputs and of the last state, float64."""
    rng = np.random.default_rng(seed)
    return rng.normal(size=(time, hidden, batch)), rng.normal(size=(STATES[cell] * hidden, batch))


def reference(cell, inputs, state, *weights):
    """The reference kernel in the layout of the fused one."""
    batch_major = tf.transpose(inputs, [2, 0, 1]), tf.transpose(state)
    outputs, last = reference_recurrence(*batch_major, *weights, cell=cell)
    return tf.transpose(outputs, [1, 2, 0]), tf.transpose(last)


def stock(cell, inputs, state, input_kernel, recurrent_kernel, bias):
    """Keras's own layer with its own gradients, in the layout of the fused kernel."""
    layer = STOCK[cell](len(recurrent_kernel), return_sequences=True, return_state=True)
    layer.build((None, None, len(input_kernel)))
    values = input_kernel, recurrent_kernel, tf.reshape(bias, layer.cell.bias.shape)
    with keras.StatelessScope(state_mapping=zip(layer.trainable_variables, values, strict=True)):
        parts = tf.split(tf.transpose(state), STATES[cell], axis=1)
        outputs, *last = layer(tf.transpose(inputs, [2, 0, 1]), initial_state=parts)
    return tf.transpose(outputs, [1, 2, 0]), tf.transpose(tf.concat(last, axis=1))


def outputs_and_gradients(function, arguments, upstream):
    """Outputs, last state, and the gradients of both with respect to every argument."""
    d_outputs, d_last = (tf.cast(value, arguments[1].dtype) for value in upstream)
    with tf.GradientTape() as tape:
        tape.watch(arguments)
        outputs, last = function(*arguments)
        loss = tf.reduce_sum(tf.cast(outputs, last.dtype) * d_outputs)
        loss += tf.reduce_sum(last * d_last)
    return [outputs, last, *tape.gradient(loss, arguments)]


def relative_error(values, truths):
    """Norm of the difference of two lists of tensors, relative to the norm of the second."""
    value, truth = (
        np.concatenate([np.ravel(tf.cast(tensor, tf.float64)) for tensor in tensors])
        for tensors in (values, truths)
    )
    return np.linalg.norm(value - truth) / np.linalg.norm(truth)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def numpy_step(cell, x, state, input_kernel, recurrent_kernel, bias):
    """One time step of one lane as equations: `[features]`, `[state_size]` to `[state_size]`."""
    size = len(recurrent_kernel)
    by_input = np.split(x @ input_kernel + bias[0], len(GATES[cell]))
    if cell == "gru":
        by_state = np.split(state @ recurrent_kernel + bias[1], 3)
        z, r = (sigmoid(by_input[i] + by_state[i]) for i in (0, 1))
        candidate = np.tanh(by_input[2] + r * by_state[2])
        return z * state + (1 - z) * candidate
    by_state = np.split(state[:size] @ recurrent_kernel, len(GATES[cell]))
    sums = [a + b for a, b in zip(by_input, by_state, strict=True)]
    if cell == "rnn":
        return np.tanh(sums[0])
    c = sigmoid(sums[1]) * state[size:] + sigmoid(sums[0]) * np.tanh(sums[2])
    return np.concatenate([sigmoid(sums[3]) * np.tanh(c), c])
