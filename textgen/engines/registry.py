"""Engines by name, and the choice between them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from threading import Lock

from textgen.config import EngineName, SamplingConfig, WeightsFormat, convert
from textgen.engines.base import Engine, unsupported_settings
from textgen.engines.onnx import LOOP_SETTINGS
from textgen.errors import ConfigError
from textgen.machine import core_count
from textgen.models.quantized import QuantizedWeights
from textgen.models.weights import ModelWeights

# Measured crossing points of the two fast engines: docs/experiments.md#engine-choice.
_MAX_SHORT_TEXT = 2_000
_MIN_LARGE_MODEL = 512


@dataclass(frozen=True, eq=False, repr=False)
class EnginePool:
    """The engines of one model, each made at its first use; thread-safe.

    Attributes:
        weights: The model.
        quantized: Its products in 8 or 4 bits; None: the engines compute in float32.
        preferred: The engine to use; `"auto"`: the fastest for the given requests.

    Raises:
        ConfigError: `preferred` is not an engine, or does not support the weights format.
    """

    weights: ModelWeights
    quantized: QuantizedWeights | None = None
    preferred: EngineName = "auto"
    _engines: dict[EngineName, Engine] = field(default_factory=dict, init=False)
    _lock: Lock = field(default_factory=Lock, init=False)

    def __post_init__(self) -> None:
        require_engine(self.preferred, self.weights_format)

    def __repr__(self) -> str:
        """Return the settings without the arrays."""
        return f"EnginePool({self.weights_format}, preferred={self.preferred!r})"

    @property
    def weights_format(self) -> WeightsFormat:
        """Numeric format of the weights that the engines compute with."""
        return _format_of(self.quantized)

    def engine(self, name: EngineName | None = None) -> Engine:
        """Return the engine of that name, the same object at each call.

        Args:
            name: The engine; None: the preferred one. `"auto"`: onnx, the fastest at reading
                text.

        Returns:
            The engine.

        Raises:
            ConfigError: `name` is not an engine, or does not support the weights format.
        """
        name = self.preferred if name is None else name
        name = "onnx" if name == "auto" else name
        with self._lock:
            if name not in self._engines:
                self._engines[name] = make_engine(name, self.weights, self.quantized)
            return self._engines[name]

    def choose(self, samplings: Sequence[SamplingConfig], *, stepwise: bool = False) -> EngineName:
        """Return the name of the engine to generate with.

        Args:
            samplings: Settings of the texts that are generated in parallel.
            stepwise: Whether every token is drawn outside the engine, whatever the settings, for
                example to report its log-probability.

        Returns:
            The preferred engine; if that is `"auto"`, the fastest.
        """
        if self.preferred != "auto":
            return self.preferred
        return choose_engine(
            self.weights,
            self.weights_format,
            num_streams=len(samplings),
            max_new_tokens=max((sampling.max_new_tokens for sampling in samplings), default=0),
            stepwise=stepwise or any(map(_is_unsupported, samplings)),
        )


def choose_engine(
    weights: ModelWeights,
    weights_format: WeightsFormat,
    num_streams: int,
    max_new_tokens: int,
    *,
    stepwise: bool = False,
) -> EngineName:
    """Return the name of the fastest engine on a CPU, by measured crossing points.

    Args:
        weights: The model.
        weights_format: Format of its weights.
        num_streams: Number of texts that are generated in parallel.
        max_new_tokens: Length of the longest of them.
        stepwise: Whether every token is drawn outside the engine.

    Returns:
        `"onnx"`, which draws many tokens per call, except in float32 in three cases: `"numpy"` if
        every token is drawn outside the engine; for one text too short to make up for the 0.2 s
        that importing onnxruntime takes; and for one text from 512 units on, where nearly all time
        is spent reading the recurrent kernel, for which NumPy's product uses all cores.
    """
    if weights_format != "float32":
        return "onnx"
    is_short = max_new_tokens <= _MAX_SHORT_TEXT
    is_large = weights.hidden_size >= _MIN_LARGE_MODEL
    return "numpy" if stepwise or (num_streams == 1 and (is_short or is_large)) else "onnx"


def make_engine(
    name: EngineName, weights: ModelWeights, quantized: QuantizedWeights | None = None
) -> Engine:
    """Return a new engine of a model.

    Args:
        name: `"numpy"`; `"onnx"`, which draws many tokens per call; `"tensorflow"`, the Keras
            model; `"reference"`, the equations in float64; `"auto"`: onnx.
        weights: The model.
        quantized: Its products in 8 or 4 bits, for onnx only; None: float32.

    Returns:
        The engine; only `"tensorflow"` imports TensorFlow.

    Raises:
        ConfigError: `name` is not an engine, or does not support the weights format.
        RunError: `quantized` belongs to another model.
    """
    require_engine(name, _format_of(quantized))
    maker = _FLOAT32_MAKERS.get(name)
    return _make_onnx(weights, quantized) if maker is None else maker(weights)


def require_engine(name: EngineName, weights_format: WeightsFormat) -> None:
    """Raise `ConfigError` unless `name` is an engine that supports the weights format."""
    convert(name, EngineName, "engine")
    convert(weights_format, WeightsFormat, "weights_format")
    if weights_format != "float32" and name in _FLOAT32_MAKERS:
        raise ConfigError(
            f"`weights_format` must be float32 with the engine {name}. "
            f"Received: {weights_format}. Use `engine=onnx` for int8 and int4."
        )


def _is_unsupported(sampling: SamplingConfig) -> bool:
    return bool(unsupported_settings(sampling, LOOP_SETTINGS))


def _format_of(quantized: QuantizedWeights | None) -> WeightsFormat:
    return "float32" if quantized is None else quantized.weights_format


def _make_onnx(weights: ModelWeights, quantized: QuantizedWeights | None) -> Engine:
    from textgen.engines.onnx.engine import OnnxEngine

    return OnnxEngine(weights, quantized, core_count())


def _make_numpy(weights: ModelWeights) -> Engine:
    from textgen.engines.numpy_engine import NumpyEngine

    return NumpyEngine(weights)


def _make_reference(weights: ModelWeights) -> Engine:
    from textgen.engines.reference_engine import ReferenceEngine

    return ReferenceEngine(weights)


def _make_tensorflow(weights: ModelWeights) -> Engine:
    from textgen.engines.tensorflow_engine import TensorFlowEngine

    return TensorFlowEngine(weights)


# The engines that compute in float32 only.
_FLOAT32_MAKERS: dict[EngineName, Callable[[ModelWeights], Engine]] = {
    "numpy": _make_numpy,
    "reference": _make_reference,
    "tensorflow": _make_tensorflow,
}
