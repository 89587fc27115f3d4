"""The fast engine for a CPU: float32, NumPy, nothing to compile and nothing to import.

It knows token ids, states and logits. It does NOT know text, sampling or TensorFlow.
Its slow twin is `reference.ReferenceEngine`; a test holds the two equal.

Where the time goes: at 512 units and above nearly all of it is reading the recurrent
kernel once a token, so everything around that product is kept small:

1. At the first layer `embedding @ kernel + bias` is a table with a row a token.
2. At the other layers the input product covers all steps of a chunk at once.
3. `sigmoid(x) = (1 + tanh(x / 2)) / 2`, and the halves are multiplied into the weights
   beforehand, which is exact in binary: two gates cost one call of tanh.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from textgen.models.weights import GruWeights, ModelWeights

Array = NDArray[np.float32]

# Up to here the first layer's table takes some 20 ms; past it a short text would wait for
# rows it never reads, and its product is made for the tokens that come.
TABLE_FLOPS = 4_000_000_000
# Values of one chunk's input product: 4 MB, whatever the prompt's length.
CHUNK_VALUES = 2**20
CACHE_LINE = 64


@dataclass(frozen=True, eq=False)
class _Layer:
    """A GRU layer with the halves of the sigmoids, and the z and r biases, folded in."""

    kernel: Array
    bias: Array
    recurrent_kernel: Array
    recurrent_bias: Array
    hidden_size: int

    def step(self, inputs: Array, h: Array, next_h: Array) -> None:
        """Write the state after one step into `next_h`; `inputs` is the input product."""
        size = self.hidden_size
        gates = np.dot(h, self.recurrent_kernel)
        update_reset, candidate = gates[:, : 2 * size], gates[:, 2 * size :]
        update_reset += inputs[:, : 2 * size]
        np.tanh(update_reset, out=update_reset)
        update_reset += 1.0
        candidate += self.recurrent_bias
        candidate *= update_reset[:, size:]
        candidate += inputs[:, 2 * size :]
        np.tanh(candidate, out=candidate)
        np.subtract(h, candidate, out=next_h)
        next_h *= update_reset[:, :size]
        next_h *= 0.5
        next_h += candidate

    def scan(self, inputs: Array, h: Array) -> Array:
        """Return the states after each step, `[time, batch, hidden_size]`."""
        states = np.empty((*inputs.shape[:2], self.hidden_size), np.float32)
        for step_inputs, next_h in zip(inputs, states, strict=True):
            self.step(step_inputs, h, next_h)
            h = next_h
        return states

    def project(self, inputs: Array) -> Array:
        """Return the input product over the last axis, biases added."""
        return _affine(inputs, self.kernel, self.bias)


class NumpyEngine:
    """Embedding, GRU layers and Dense in float32; keeps the contract of `Engine`.

    May be shared by threads: it changes nothing after its construction. A row's logits
    depend on the batch size by float32 rounding alone (one row is a matrix-vector
    product, several are a matrix product).
    """

    def __init__(self, weights: ModelWeights) -> None:
        self._weights = weights
        self._layers = tuple(_fold(layer) for layer in weights.gru)
        first = self._layers[0]
        flops = 2 * weights.embedding.size * first.bias.size
        self._table = first.project(weights.embedding) if flops <= TABLE_FLOPS else None
        self.vocab_size = weights.vocab_size

    def initial_state(self, batch: int) -> Array:
        """Return the state before any token: zeros, `[num_layers, batch, hidden_size]`."""
        shape = (self._weights.num_layers, batch, self._weights.hidden_size)
        return np.zeros(shape, np.float32)

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
        for _ in self._run(token_ids, next_state):
            pass
        return self._head(next_state[-1]), next_state

    def decode_step(self, token_ids: NDArray[np.integer], state: Array) -> tuple[Array, Array]:
        """Return the logits after one token a row, `[batch, vocab_size]`, and the next state."""
        next_state = np.empty(state.shape, np.float32)
        inputs = self._first_inputs(token_ids)
        for index, layer in enumerate(self._layers):
            if index:
                inputs = layer.project(next_state[index - 1])
            layer.step(inputs, state[index], next_state[index])
        return self._head(next_state[-1]), next_state

    def _run(self, token_ids: NDArray[np.integer], state: Array) -> Iterator[Array]:
        """Yield the last layer's outputs chunk by chunk, time first, advancing `state`."""
        batch, time = token_ids.shape
        length = max(1, CHUNK_VALUES // (batch * self._layers[0].bias.size))
        for start in range(0, time, length):
            inputs = self._first_inputs(token_ids[:, start : start + length].T)
            yield self._run_chunk(inputs, state)

    def _run_chunk(self, inputs: Array, state: Array) -> Array:
        outputs = self._layers[0].scan(inputs, state[0])
        state[0] = outputs[-1]
        for index, layer in enumerate(self._layers[1:], start=1):
            outputs = layer.scan(layer.project(outputs), state[index])
            state[index] = outputs[-1]
        return outputs

    def _first_inputs(self, token_ids: NDArray[np.integer]) -> Array:
        if self._table is not None:
            return self._table.take(token_ids, axis=0)
        return self._layers[0].project(self._weights.embedding.take(token_ids, axis=0))

    def _head(self, outputs: Array) -> Array:
        return _affine(outputs, self._weights.dense_kernel, self._weights.dense_bias)


def _fold(layer: GruWeights) -> _Layer:
    """Multiply the sigmoids' halves into the weights, and join the biases that add up."""
    size = layer.hidden_size
    gates = np.ones(3 * size, np.float32)
    gates[: 2 * size] = 0.5
    joined = layer.bias[0].copy()
    joined[: 2 * size] += layer.bias[1, : 2 * size]
    return _Layer(
        kernel=layer.kernel * gates,
        bias=joined * gates,
        # The candidate's half belongs to r = (1 + tanh) / 2, which multiplies it.
        recurrent_kernel=_aligned(layer.recurrent_kernel * np.float32(0.5)),
        recurrent_bias=layer.bias[1, 2 * size :] * np.float32(0.5),
        hidden_size=size,
    )


def _affine(inputs: Array, kernel: Array, bias: Array) -> Array:
    """Return `inputs @ kernel + bias` as one product: with 3 axes `np.dot` leaves BLAS."""
    product = np.dot(inputs.reshape(-1, inputs.shape[-1]), kernel)
    product += bias
    return product.reshape(*inputs.shape[:-1], product.shape[-1])


def _aligned(array: Array) -> Array:
    """Return a copy that begins at a cache line: at 256 units its product takes 7 µs, not 9."""
    room = np.empty(array.nbytes + CACHE_LINE, np.uint8)
    begin = -room.ctypes.data % CACHE_LINE
    copy = room[begin : begin + array.nbytes].view(np.float32).reshape(array.shape)
    copy[...] = array
    return copy
