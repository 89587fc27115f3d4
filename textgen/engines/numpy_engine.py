"""The fast engine for a CPU: float32, NumPy, nothing to compile and nothing to import.

It knows token ids, states and logits. It does NOT know text, sampling or TensorFlow, and
not what a layer computes: that is `numpy_layers`. Its slow twin is
`reference.ReferenceEngine`; a test holds the two equal.

Where the time goes: at 512 units and above nearly all of it is reading the recurrent
kernel once a token, so everything around that product is kept small:

1. At the first layer `embedding @ kernel + bias` is a table with a row a token.
2. At the other layers the input product covers all steps of a chunk at once.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from textgen.engines.numpy_layers import affine, fold
from textgen.models.weights import ModelWeights

Array = NDArray[np.float32]

# Up to here the first layer's table takes some 20 ms; past it a short text would wait for
# rows it never reads, and its product is made for the tokens that come.
TABLE_FLOPS = 4_000_000_000
# Values of one chunk's input product: 4 MB, whatever the prompt's length.
CHUNK_VALUES = 2**20


class NumpyEngine:
    """Embedding, recurrent layers and Dense in float32; keeps the contract of `Engine`.

    May be shared by threads: it changes nothing after its construction. A row's logits
    depend on the batch size by float32 rounding alone (one row is a matrix-vector
    product, several are a matrix product).
    """

    def __init__(self, weights: ModelWeights) -> None:
        self._weights = weights
        self._first, *self._others = (fold(layer) for layer in weights.layers)
        flops = 2 * weights.embedding.size * self._first.bias.size
        self._table = self._first.project(weights.embedding) if flops <= TABLE_FLOPS else None
        self.vocab_size = weights.vocab_size

    def initial_state(self, batch: int) -> Array:
        """Return the state at the beginning of a text, `[num_layers, batch, state_size]`."""
        return self._weights.initial_state(batch)

    def forward(self, token_ids: NDArray[np.integer], state: Array) -> tuple[Array, Array]:
        """Return the logits after every token, `[batch, time, vocab_size]`, and the next state."""
        next_state = np.array(state, np.float32)
        logits = np.empty((*token_ids.shape, self.vocab_size), np.float32)
        start = 0
        for outputs in self._run(token_ids, next_state):
            stop = start + len(outputs)
            logits[:, start:stop] = self._head(outputs.transpose(1, 0, 2))
            start = stop
        return logits, next_state

    def prefill(self, token_ids: NDArray[np.integer], state: Array) -> tuple[Array, Array]:
        """Return the logits after the last token, `[batch, vocab_size]`, and the next state."""
        next_state = np.array(state, np.float32)
        for outputs in self._run(token_ids, next_state):
            last = outputs[-1]
        return self._head(last), next_state

    def decode_step(self, token_ids: NDArray[np.integer], state: Array) -> tuple[Array, Array]:
        """Return the logits after one token a row, `[batch, vocab_size]`, and the next state."""
        next_state = np.empty(state.shape, np.float32)
        x = self._first.step(self._first_inputs(token_ids), state[0], next_state[0])
        for index, layer in enumerate(self._others, start=1):
            outputs = layer.step(layer.project(x), state[index], next_state[index])
            x = outputs + x if self._weights.residual else outputs
        return self._head(x), next_state

    def _run(self, token_ids: NDArray[np.integer], state: Array) -> Iterator[Array]:
        """Yield what the last layer passes on chunk by chunk, time first, advancing `state`."""
        batch, time = token_ids.shape
        length = max(1, CHUNK_VALUES // (batch * self._first.bias.size))
        for start in range(0, time, length):
            inputs = self._first_inputs(token_ids[:, start : start + length].T)
            yield self._run_chunk(inputs, state)

    def _run_chunk(self, inputs: Array, state: Array) -> Array:
        x = self._first.scan(inputs, state[0])
        for index, layer in enumerate(self._others, start=1):
            outputs = layer.scan(layer.project(x), state[index])
            x = outputs + x if self._weights.residual else outputs
        return x

    def _first_inputs(self, token_ids: NDArray[np.integer]) -> Array:
        if self._table is not None:
            return self._table.take(token_ids, axis=0)
        return self._first.project(self._weights.embedding.take(token_ids, axis=0))

    def _head(self, outputs: Array) -> Array:
        return affine(outputs, self._weights.dense_kernel, self._weights.dense_bias)
