"""The slow twin of every engine: the GRU as its equations stand, in float64.

Written to be read and to be trusted; the fast engines are held to it. It knows arrays.
It does NOT know text, sampling, or speed.
"""

import numpy as np
from numpy.typing import NDArray

from textgen.models.weights import GruWeights, ModelWeights

Array = NDArray[np.float64]


class ReferenceEngine:
    """Embedding, GRU layers and Dense, one token of one step at a time.

    With `x` a layer's input, `h` its state, `W, U` the kernels, `b, c` the biases:

        z = sigmoid(x W_z + b_z + h U_z + c_z)
        r = sigmoid(x W_r + b_r + h U_r + c_r)
        candidate = tanh(x W_h + b_h + r * (h U_h + c_h))
        h' = z * h + (1 - z) * candidate

    Its state is float64; otherwise it keeps the contract of `Engine`.

    Source: Cho et al. 2014, in the form of `keras.layers.GRU(reset_after=True)`.
    """

    def __init__(self, weights: ModelWeights) -> None:
        self._weights = weights
        self.vocab_size = weights.vocab_size

    def initial_state(self, batch: int) -> Array:
        """Return the state before any token: zeros, `[num_layers, batch, hidden_size]`."""
        return np.zeros((self._weights.num_layers, batch, self._weights.hidden_size))

    def forward(
        self, token_ids: NDArray[np.integer], state: NDArray[np.floating]
    ) -> tuple[NDArray[np.float32], Array]:
        """Return the logits after every token, `[batch, time, vocab_size]`, and the next state."""
        logits = np.empty((*token_ids.shape, self.vocab_size), np.float32)
        next_state = np.array(state, np.float64)
        for time in range(token_ids.shape[1]):
            logits[:, time], next_state = self.decode_step(token_ids[:, time], next_state)
        return logits, next_state

    def prefill(
        self, token_ids: NDArray[np.integer], state: NDArray[np.floating]
    ) -> tuple[NDArray[np.float32], Array]:
        """Return the logits after the last token, `[batch, vocab_size]`, and the next state."""
        next_state = np.array(state, np.float64)
        for step_ids in token_ids.T:
            logits, next_state = self.decode_step(step_ids, next_state)
        return logits, next_state

    def decode_step(
        self, token_ids: NDArray[np.integer], state: NDArray[np.floating]
    ) -> tuple[NDArray[np.float32], Array]:
        """Return the logits after one token a row, `[batch, vocab_size]`, and the next state."""
        inputs = self._weights.embedding[token_ids].astype(np.float64)
        next_state = np.empty(state.shape, np.float64)
        for index, layer in enumerate(self._weights.gru):
            inputs = next_state[index] = gru_step(layer, inputs, state[index])
        logits = inputs @ self._weights.dense_kernel + self._weights.dense_bias
        return logits.astype(np.float32), next_state


def gru_step(layer: GruWeights, inputs: NDArray[np.floating], h: NDArray[np.floating]) -> Array:
    """Advance one GRU layer by one step.

    Args:
        layer: Its weights.
        inputs: `[batch, inputs]`.
        h: `[batch, hidden_size]`, the state before.

    Returns:
        `[batch, hidden_size]` float64, the state after.
    """
    x_z, x_r, x_h = np.split(inputs.astype(np.float64) @ layer.kernel + layer.bias[0], 3, axis=-1)
    h_z, h_r, h_h = np.split(h @ layer.recurrent_kernel.astype(np.float64) + layer.bias[1], 3, -1)
    z = sigmoid(x_z + h_z)
    r = sigmoid(x_r + h_r)
    candidate = np.tanh(x_h + r * h_h)
    return z * h + (1 - z) * candidate


def sigmoid(x: Array) -> Array:
    """Return `1 / (1 + exp(-x))` for any finite `x`, without overflow."""
    return np.exp(-np.logaddexp(0.0, -x))
