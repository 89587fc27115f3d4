"""The fast engine for generation on a CPU: the whole loop, sampling included, in one call.

It knows token ids, states, logits and uniforms. It does NOT know text, or when to stop. `graph`
builds the graphs; this module makes a session of each at its first use, and runs it.
"""

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from textgen.arrays import Float32Array, Float64Array, Int32Array, IntArray, State
from textgen.config import SamplingConfig, require
from textgen.engines.base import unsupported_settings
from textgen.engines.common import chunk_steps
from textgen.engines.onnx import LOOP_SETTINGS
from textgen.engines.onnx.graph import Predictions, generation_graph, prediction_graph
from textgen.engines.onnx.graph_weights import prepare_weights
from textgen.engines.onnx.sampling import LoopGraphInputs, sampling_values
from textgen.errors import ConfigError
from textgen.models.quantized import QuantizedWeights
from textgen.models.weights import ModelWeights
from textgen.sampling.checks import check_bias

_LOG_ERRORS_ONLY = 3


class OnnxEngine:
    """Embedding, recurrent layers and Dense on ONNX Runtime; implements `LoopEngine`.

    Its states are float32 in every weights format. Thread-safe.

    Attributes:
        vocab_size: Number of token ids.

    With int8 weights, states are quantized with a fixed scale, which clips a learned initial state
    to [-1, 1]. Increase in loss of four GRUs of 512 units and 65 to 6,226 tokens, nats
    per token: at most 0.0001 in int8, 0.0029 in int4 (docs/experiments.md#quantization-loss).
    """

    def __init__(
        self, weights: ModelWeights, quantized: QuantizedWeights | None = None, threads: int = 1
    ) -> None:
        """Prepare the weights.

        Args:
            weights: The model.
            quantized: Its products in 8 or 4 bits; None: float32.
            threads: Number of threads that share the rows of a batch.

        Raises:
            ConfigError: `threads` is less than 1.
            RunError: `quantized` has other shapes than the products of `weights`.
        """
        require(threads >= 1, "threads", "at least 1", threads)
        self.vocab_size = weights.vocab_size
        self._weights = prepare_weights(weights, quantized)
        self._threads = threads
        self._pool = ThreadPoolExecutor(threads) if threads > 1 else None
        self._sessions: dict[LoopGraphInputs | Predictions, ort.InferenceSession] = {}

    def initial_state(self, batch: int) -> Float32Array:
        """Return the state at the start of a text, `[num_layers, batch, state_size]`."""
        return self._weights.model.initial_state(batch)

    def forward(self, token_ids: IntArray, state: State) -> tuple[Float32Array, Float32Array]:
        """Return the logits after every token, `[batch, time, vocab_size]`, and the next state."""

        def read(rows: slice) -> tuple[Float32Array, Float32Array]:
            chunks, states = zip(*self._read("all", token_ids[rows], state[:, rows]), strict=True)
            return np.concatenate(chunks).transpose(1, 0, 2), states[-1]

        return self._in_threads(read, len(token_ids), axis=0)

    def prefill(self, token_ids: IntArray, state: State) -> tuple[Float32Array, Float32Array]:
        """Return the logits after the last token, `[batch, vocab_size]`, and the next state."""

        def read(rows: slice) -> tuple[Float32Array, Float32Array]:
            chunks = self._read("last", token_ids[rows], state[:, rows])
            return deque(chunks, maxlen=1).pop()

        return self._in_threads(read, len(token_ids), axis=0)

    def decode_step(self, token_ids: IntArray, state: State) -> tuple[Float32Array, Float32Array]:
        """Return the logits after one token per row, `[batch, vocab_size]`, and the next state."""
        return self.prefill(token_ids[:, None], state)

    def unsupported(self, sampling: SamplingConfig) -> frozenset[str]:
        """Return the settings that `run_loop` cannot apply, as names of fields."""
        return unsupported_settings(sampling, LOOP_SETTINGS)

    def run_loop(
        self,
        token_ids: IntArray,
        state: State,
        uniforms: Float64Array,
        sampling: SamplingConfig,
        bias: Float32Array | None = None,
    ) -> tuple[Int32Array, Float32Array]:
        """Read one token per row and draw the next, once per row of `uniforms`.

        Args:
            token_ids: `[batch]`, the last token of each row, not yet read.
            state: `[num_layers, batch, state_size]`, before that token.
            uniforms: `[steps, batch]` in `[0, 1)`; each draws one token.
            sampling: Settings of every row.
            bias: float32 `[vocab_size]`, added to the logits; -inf bans a token; None: no bias.

        Returns:
            The drawn tokens `[steps, batch]`, and the state before the last of them, which is
            not yet read.

        Raises:
            ConfigError: `unsupported(sampling)` is not empty, the temperature is `"auto"`, or
                `bias` has another shape, contains NaN or +inf, or bans every token.

        The tokens are those of a loop of `decode_step`, the processors and `sampling.pick`, up to
        float32 rounding of the logits: the graph adds `bias` to the bias of Dense, not to the sum.
        """
        _require_supported(self.unsupported(sampling))
        values: dict[str, NDArray[Any]] = {"bias": _checked_bias(bias, self.vocab_size)}
        values |= sampling_values(sampling, self.vocab_size)
        if len(uniforms) == 0:
            return np.zeros((0, len(token_ids)), np.int32), np.array(state, np.float32)
        graph_inputs = LoopGraphInputs.of(values)
        build = partial(generation_graph, self._weights, graph_inputs)
        session = self._session(graph_inputs, build)
        # u * total could round up to total, which no cumulative probability exceeds.
        below_one = (uniforms * np.nextafter(1.0, 0.0))[..., None]

        def run(rows: slice) -> tuple[Int32Array, Float32Array]:
            inputs = {
                "token_ids": token_ids[rows].astype(np.int64),
                "state": np.ascontiguousarray(state[:, rows], np.float32),
                "uniforms": np.ascontiguousarray(below_one[:, rows]),
            }
            drawn, next_state = session.run(None, inputs | values)
            return drawn, next_state

        return self._in_threads(run, len(token_ids), axis=1)

    def _in_threads(
        self, run: Callable[[slice], tuple[NDArray[Any], Float32Array]], batch: int, axis: int
    ) -> tuple[NDArray[Any], Float32Array]:
        """Divide the rows among the threads, and join the results.

        A thread computes all steps of some rows, not some columns of each product: 64 streams at
        1024 units in int8 generate 144,000 tokens per second that way, and 95,000 the other way.

        Returns:
            The first values joined along `axis`, and the states.
        """
        if self._pool is None or batch == 1:
            return run(slice(0, batch))
        edges = np.linspace(0, batch, min(self._threads, batch) + 1).astype(int).tolist()
        parts = self._pool.map(run, (slice(*edge) for edge in pairwise(edges)))
        firsts, states = zip(*parts, strict=True)
        return np.concatenate(firsts, axis=axis), np.concatenate(states, axis=1)

    def _read(
        self, predictions: Predictions, token_ids: IntArray, state: State
    ) -> Iterator[tuple[Float32Array, Float32Array]]:
        """Yield logits and state chunk by chunk."""
        session = self._session(predictions, partial(prediction_graph, self._weights, predictions))
        ids = token_ids.T.astype(np.int64)
        state = np.ascontiguousarray(state, np.float32)
        length = chunk_steps(ids.shape[1], sum(self._weights.widths(0)))
        for start in range(0, len(ids), length):
            inputs = {"token_ids": ids[start : start + length], "state": state}
            logits, state = session.run(None, inputs)
            yield logits, state

    def _session(
        self, key: LoopGraphInputs | Predictions, build: Callable[[], bytes]
    ) -> ort.InferenceSession:
        """Return the session for `key`, built at its first use."""
        if key not in self._sessions:
            self._sessions[key] = _make_session(build())
        return self._sessions[key]


def _require_supported(unsupported: frozenset[str]) -> None:
    if unsupported:
        applied, received = (
            ", ".join(f"`{name}`" for name in sorted(names))
            for names in (LOOP_SETTINGS, unsupported)
        )
        raise ConfigError(
            f"`run_loop` applies only {applied}. Received: {received}. "
            "Draw each token after `decode_step` instead."
        )


def _checked_bias(bias: Float32Array | None, vocab_size: int) -> Float32Array:
    if bias is None:
        return np.zeros(vocab_size, np.float32)
    bias = np.ascontiguousarray(bias, np.float32)
    check_bias(bias, vocab_size)
    return bias


def _make_session(model: bytes) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.log_severity_level = _LOG_ERRORS_ONLY
    # A memory plan is kept for each shape until the session ends, and prompts differ in length.
    options.enable_mem_pattern = False
    # The arena's lock makes two threads slower than one: 110,000 tokens per second instead of
    # 323,000 for 8 streams at 256 units. One thread is 5 % faster without the arena.
    options.enable_cpu_mem_arena = False
    # On a CPU without VNNI, sums of the 8-bit product would otherwise saturate at 16 bits.
    options.add_session_config_entry("session.x64quantprecision", "1")
    return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
