"""The fast engine for writing on a CPU: the whole loop, sampling included, in one call.

It knows token ids, states, logits and uniforms. It does NOT know text, or when to stop. The
graphs stand in `onnx_graph`; this module builds the sessions that are asked for, and runs them.
"""

import math
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from textgen.config import SamplingConfig, WeightsFormat, require
from textgen.engines.base import Engine, unsupported_settings
from textgen.engines.numpy_engine import CHUNK_VALUES, TABLE_FLOPS
from textgen.engines.onnx import LOOP_SETTINGS
from textgen.engines.onnx.graph import (
    Predictions,
    prepare_weights,
    reading_graph,
    writing_graph,
)
from textgen.engines.onnx.sampling import Draw
from textgen.engines.quantization import (
    Matrix,
    quantize_int4,
    quantize_int8,
)
from textgen.errors import ConfigError
from textgen.models.weights import ModelWeights
from textgen.sampling.draw import pick
from textgen.sampling.filters import MASS_TOLERANCE, MIN_TEMPERATURE

Array = NDArray[np.float32]
Pair = tuple[NDArray[Any], Array]

ERRORS_ONLY = 3
_LARGEST_TEMPERATURE = float(np.finfo(np.float32).max)
# Tokens that a model writes so that its states are known: 4096, a tenth of a second at 512 units.
CALIBRATION_ROWS, CALIBRATION_STEPS = 32, 128
# The first of them still depend on where the text begins.
CALIBRATION_WARMUP = 16


class OnnxEngine:
    """Embedding, recurrent layers and Dense on ONNX Runtime; keeps the contract of `Engine`.

    Its states are float32 whatever the precision of the weights. May be shared by threads.

    Attributes:
        vocab_size: Number of token ids.
        weights_format: Of the weights.

    In `"int8"` a state has one fixed scale, and each column of weights its own; what a learned
    first state has beyond [-1, 1] is cut off. In `"int4"` 128 weights share one, chosen on
    text that the model writes itself, and a state is read in 8 bits. Lost on four GRUs of 512
    units and 65 to 6,226 tokens, in nats a token: at most 0.0001 in int8, 0.0029 in int4.
    """

    def __init__(
        self, weights: ModelWeights, weights_format: WeightsFormat = "float32", threads: int = 1
    ) -> None:
        """Round the weights.

        Args:
            weights: The model.
            weights_format: Of every matrix that a state is multiplied with.
            threads: That share the rows of a batch; one row has one thread.

        Raises:
            ConfigError: There is no such weights_format, or not for such a model, or `threads` is
                below 1.
        """
        require(threads >= 1, "threads", "at least 1", threads)
        self.vocab_size = weights.vocab_size
        self.weights_format = weights_format
        self._weights = prepare_weights(weights, _quantizer(weights, weights_format), TABLE_FLOPS)
        self._threads = threads
        self._pool = ThreadPoolExecutor(threads) if threads > 1 else None
        self._sessions: dict[Draw | Predictions, ort.InferenceSession] = {}

    def initial_state(self, batch: int) -> Array:
        """Return the state at the beginning of a text, `[num_layers, batch, state_size]`."""
        return self._weights.model.initial_state(batch)

    def forward(self, token_ids: NDArray[np.integer], state: Array) -> tuple[Array, Array]:
        """Return the logits after every token, `[batch, time, vocab_size]`, and the next state."""

        def read(rows: slice) -> tuple[Array, Array]:
            chunks, states = zip(*self._read("all", token_ids[rows], state[:, rows]), strict=True)
            return np.concatenate(chunks).transpose(1, 0, 2), states[-1]

        return self._spread(read, len(token_ids), axis=0)

    def prefill(self, token_ids: NDArray[np.integer], state: Array) -> tuple[Array, Array]:
        """Return the logits after the last token, `[batch, vocab_size]`, and the next state."""

        def read(rows: slice) -> tuple[Array, Array]:
            chunks = self._read("last", token_ids[rows], state[:, rows])
            return deque(chunks, maxlen=1).pop()

        return self._spread(read, len(token_ids), axis=0)

    def decode_step(self, token_ids: NDArray[np.integer], state: Array) -> tuple[Array, Array]:
        """Return the logits after one token a row, `[batch, vocab_size]`, and the next state."""
        return self.prefill(token_ids[:, None], state)

    def unsupported(self, sampling: SamplingConfig) -> frozenset[str]:
        """Return the settings that `run_loop` cannot apply, as names of fields."""
        return unsupported_settings(sampling, LOOP_SETTINGS)

    def run_loop(
        self,
        token_ids: NDArray[np.integer],
        state: Array,
        uniforms: NDArray[np.float64],
        sampling: SamplingConfig,
        bias: Array | None = None,
    ) -> tuple[NDArray[np.int32], Array]:
        """Draw one token after the other: read, draw, read what was drawn, draw.

        Args:
            token_ids: `[batch]`, the last token of each row, not yet read.
            state: `[num_layers, batch, state_size]`, before that token.
            uniforms: `[steps, batch]` in `[0, 1)`; each draws one token.
            sampling: Settings of every row.
            bias: float32 `[vocab_size]`, added to the logits; -inf bans a token; None: no bias.

        Returns:
            Tokens `[steps, batch]`, and the state before `tokens[-1]`, which is not yet read.

        Raises:
            ConfigError: `unsupported(sampling)` is not empty, the temperature is `"auto"`, or the
                bias has another shape, is NaN or +inf, or bans every token.

        The tokens are those of `decode_step`, the processors and `sampling.pick`, up to float32
        rounding of the logits: a finite bias is added to the head's before the product.
        """
        _require_supported(self.unsupported(sampling))
        if len(uniforms) == 0:
            return np.zeros((0, len(token_ids)), np.int32), np.array(state, np.float32)
        draw, values = _loop_inputs(sampling, _checked_bias(bias, self.vocab_size))
        session = self._session(draw, partial(writing_graph, self._weights, draw))
        # With u a little smaller, u * total can not round up to total, which nothing exceeds.
        below_one = (uniforms * np.nextafter(1.0, 0.0))[..., None]

        def run(rows: slice) -> tuple[NDArray[np.int32], Array]:
            inputs = {
                "token_ids": token_ids[rows].astype(np.int64),
                "state": np.ascontiguousarray(state[:, rows], np.float32),
                "uniforms": np.ascontiguousarray(below_one[:, rows]),
            }
            return tuple(session.run(None, inputs | values))

        return self._spread(run, len(token_ids), axis=1)

    def _spread(self, run: Callable[[slice], Pair], batch: int, axis: int) -> Pair:
        """Divide the rows among the threads, and join what comes first along `axis`.

        A thread takes some rows through all steps, and not some columns of each product: 64
        streams at 1024 units in int8 write 144,000 tokens a second so, 95,000 the other way.
        """
        if self._pool is None or batch == 1:
            return run(slice(0, batch))
        edges = np.linspace(0, batch, min(self._threads, batch) + 1).astype(int).tolist()
        parts = self._pool.map(run, (slice(*edge) for edge in pairwise(edges)))
        firsts, states = zip(*parts, strict=True)
        return np.concatenate(firsts, axis=axis), np.concatenate(states, axis=1)

    def _read(
        self, predictions: Predictions, token_ids: NDArray[np.integer], state: Array
    ) -> Iterator[tuple[Array, Array]]:
        """Yield logits and state chunk by chunk."""
        session = self._session(predictions, partial(reading_graph, self._weights, predictions))
        ids = token_ids.T.astype(np.int64)
        state = np.ascontiguousarray(state, np.float32)
        length = max(1, CHUNK_VALUES // (ids.shape[1] * sum(self._weights.widths(0))))
        for start in range(0, len(ids), length):
            inputs = {"token_ids": ids[start : start + length], "state": state}
            logits, state = session.run(None, inputs)
            yield logits, state

    def _session(self, key: Draw | Predictions, build: Callable[[], bytes]) -> ort.InferenceSession:
        """Return the session for `key`, built when it is first asked for."""
        if key not in self._sessions:
            self._sessions[key] = _make_session(build())
        return self._sessions[key]


def written_states(engine: Engine, hidden_size: int) -> Array:
    """Return the states `h` that a model comes through while it writes.

    Args:
        engine: The model.
        hidden_size: Units of each layer; what a state holds behind them is left out.

    Returns:
        `[num_layers, n, hidden_size]`, `n` = 3584; equal weights, equal states.
    """
    random = np.random.default_rng(0)
    token_ids = random.integers(engine.vocab_size, size=CALIBRATION_ROWS, dtype=np.int32)
    state = engine.initial_state(CALIBRATION_ROWS)
    states = []
    for uniforms in random.random((CALIBRATION_STEPS, CALIBRATION_ROWS)):
        logits, state = engine.decode_step(token_ids, state)
        token_ids = pick(logits, uniforms)
        states.append(state[..., :hidden_size])
    return np.concatenate(states[CALIBRATION_WARMUP:], axis=1)


def _quantizer(
    weights: ModelWeights, weights_format: WeightsFormat
) -> Callable[[Array, int], Matrix]:
    """Return what gives the matrix of a layer the form of `weights_format`."""
    if weights_format == "float32":
        return lambda matrix, _: matrix
    if weights_format not in ("int8", "int4"):
        raise ConfigError(
            f"`weights_format` must be one of float32, int8, int4. Received: {weights_format}. "
            "Pass --matmul-dtype."
        )
    _require_plain(weights, weights_format)
    if weights_format == "int8":
        return lambda matrix, _: quantize_int8(matrix)
    states = written_states(OnnxEngine(weights, "int8"), weights.hidden_size)
    return lambda matrix, layer: quantize_int4(
        matrix, states[layer].T @ states[layer] / len(states[layer])
    )


def _require_plain(weights: ModelWeights, weights_format: WeightsFormat) -> None:
    """Refuse weights in 8 or 4 bits whose matrices are multiplied with more than states."""
    parts = {
        "an output gate": any(layer.output_gate is not None for layer in weights.layers),
        "residual sums": weights.residual,
        "layer norms": any(layer.norm is not None for layer in weights.layers),
    }
    found = " and ".join(part for part, present in parts.items() if present)
    if found:
        raise ConfigError(
            f"`weights` must be float32 for a model with {found}, whose layers read more than "
            f"states in [-1, 1]. Received: {weights_format}. Pass --weights-format float32."
        )


def _require_supported(unsupported: frozenset[str]) -> None:
    if unsupported:
        names = ", ".join(f"`{name}`" for name in sorted(unsupported))
        raise ConfigError(
            f"`run_loop` applies {', '.join(f'`{name}`' for name in sorted(LOOP_SETTINGS))}. "
            f"Received: {names}. Draw each token after `decode_step` instead."
        )


def _loop_inputs(
    sampling: SamplingConfig, bias: Array
) -> tuple[Draw, dict[str, NDArray[np.generic]]]:
    """Return which graph draws so, and its inputs. What would keep every token is left out."""
    vocab_size = len(bias)
    values: dict[str, NDArray[np.generic]] = {"bias": bias}
    if isinstance(sampling.temperature, str):
        raise ConfigError(
            f"`temperature` must be a number here. Received: {sampling.temperature}. "
            "Measure it first: `Bundle.resolve` does."
        )
    if sampling.temperature == 0:
        return Draw(greedy=True), values
    temperature = min(max(sampling.temperature, MIN_TEMPERATURE), _LARGEST_TEMPERATURE)
    values["temperature"] = np.array(temperature, np.float32)
    if sampling.top_k is not None and sampling.top_k < vocab_size:
        values["top_k"] = np.array([sampling.top_k], np.int64)
    if sampling.top_p is not None and sampling.top_p < 1:
        values["top_p"] = np.array(sampling.top_p * (1 - MASS_TOLERANCE))
        if "top_k" not in values:
            values["least_share"] = np.array((1 - sampling.top_p) / (2 * vocab_size))
    if sampling.min_p is not None:
        values["log_min_p"] = np.array(math.log(sampling.min_p) - MASS_TOLERANCE)
    draw = Draw(top_k="top_k" in values, top_p="top_p" in values, min_p="log_min_p" in values)
    return draw, values


def _checked_bias(bias: Array | None, vocab_size: int) -> Array:
    if bias is None:
        return np.zeros(vocab_size, np.float32)
    bias = np.ascontiguousarray(bias, np.float32)
    if bias.shape != (vocab_size,) or not (bias < np.inf).all() or np.isneginf(bias).all():
        raise ConfigError(
            f"`bias` must be [{vocab_size}] numbers below infinity, one of them finite. "
            f"Received: shape {list(bias.shape)}, {np.isfinite(bias).sum()} finite. Ban fewer."
        )
    return bias


def _make_session(model: bytes) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.log_severity_level = ERRORS_ONLY
    # One memory plan a shape would be kept for ever, and every prompt has its own.
    options.enable_mem_pattern = False
    # Its lock makes two threads slower than one: 110,000 tokens a second instead of 323,000
    # for 8 streams at 256 units; and one thread is 5 % faster without it.
    options.enable_cpu_mem_arena = False
    # Without VNNI the 8-bit product would otherwise saturate at 16 bits.
    options.add_session_config_entry("session.x64quantprecision", "1")
    return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
