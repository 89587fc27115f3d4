"""The NumPy engine: float32 on a CPU, without compilation or another package.

It knows token ids, states and logits. It does NOT know text or sampling, or what a layer
computes: that is `numpy_layers`. It is tested against `reference_engine.ReferenceEngine`.

From 512 units on, nearly all time is spent reading the recurrent kernel once per token, so
everything around that product is kept small:

1. In the first layer, `embedding @ kernel + bias` is a table with one row per token id.
2. In the other layers, one input product covers all steps of a chunk.
"""

from collections.abc import Iterator

import numpy as np

from textgen.arrays import Float32Array, IntArray, State
from textgen.engines.common import chunk_steps, fits_table
from textgen.engines.numpy_layers import affine, fold
from textgen.models.weights import ModelWeights


class NumpyEngine:
    """Embedding, recurrent layers and Dense in float32; implements `Engine`.

    Thread-safe, since nothing changes after construction. The logits of a row depend on the batch
    size only by float32 rounding (one row is a matrix-vector product, several are a matrix
    product).
    """

    def __init__(self, weights: ModelWeights) -> None:
        """Prepare the weights.

        Args:
            weights: The model.
        """
        self._weights = weights
        self._first, *self._others = (fold(layer) for layer in weights.layers)
        tabulated = fits_table(weights.embedding, self._first.bias.size)
        self._table = self._first.project(weights.embedding) if tabulated else None
        self.vocab_size = weights.vocab_size

    def initial_state(self, batch: int) -> Float32Array:
        """Return the state at the start of a text, `[num_layers, batch, state_size]`."""
        return self._weights.initial_state(batch)

    def forward(self, token_ids: IntArray, state: State) -> tuple[Float32Array, Float32Array]:
        """Return the logits after every token, `[batch, time, vocab_size]`, and the next state."""
        next_state = np.array(state, np.float32)
        logits = np.empty((*token_ids.shape, self.vocab_size), np.float32)
        start = 0
        for outputs in self._run(token_ids, next_state):
            stop = start + len(outputs)
            logits[:, start:stop] = self._head(outputs.transpose(1, 0, 2))
            start = stop
        return logits, next_state

    def prefill(self, token_ids: IntArray, state: State) -> tuple[Float32Array, Float32Array]:
        """Return the logits after the last token, `[batch, vocab_size]`, and the next state."""
        next_state = np.array(state, np.float32)
        for outputs in self._run(token_ids, next_state):
            last = outputs[-1]
        return self._head(last), next_state

    def decode_step(self, token_ids: IntArray, state: State) -> tuple[Float32Array, Float32Array]:
        """Return the logits after one token per row, `[batch, vocab_size]`, and the next state."""
        next_state = np.empty(state.shape, np.float32)
        x = self._first.step(self._first_inputs(token_ids), state[0], next_state[0])
        for index, layer in enumerate(self._others, start=1):
            outputs = layer.step(layer.project(x), state[index], next_state[index])
            x = outputs + x if self._weights.residual else outputs
        return self._head(x), next_state

    def _run(self, token_ids: IntArray, state: Float32Array) -> Iterator[Float32Array]:
        """Yield the last layer's outputs chunk by chunk, time first, advancing `state`."""
        batch, time = token_ids.shape
        length = chunk_steps(batch, self._first.bias.size)
        for start in range(0, time, length):
            inputs = self._first_inputs(token_ids[:, start : start + length].T)
            yield self._run_chunk(inputs, state)

    def _run_chunk(self, inputs: Float32Array, state: Float32Array) -> Float32Array:
        x = self._first.scan(inputs, state[0])
        for index, layer in enumerate(self._others, start=1):
            outputs = layer.scan(layer.project(x), state[index])
            x = outputs + x if self._weights.residual else outputs
        return x

    def _first_inputs(self, token_ids: IntArray) -> Float32Array:
        if self._table is not None:
            return self._table.take(token_ids, axis=0)
        return self._first.project(self._weights.embedding.take(token_ids, axis=0))

    def _head(self, outputs: Float32Array) -> Float32Array:
        return affine(outputs, self._weights.dense_kernel, self._weights.dense_bias)
