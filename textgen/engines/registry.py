"""The engines by name, and the one place that chooses one."""

import importlib

from textgen.config import EngineName, WeightsFormat
from textgen.engines.base import Engine
from textgen.errors import ConfigError
from textgen.machine import core_count
from textgen.models.weights import ModelWeights

_SHORT_TEXT = 2_000
_LARGE_MODEL = 512


def choose_engine(
    weights: ModelWeights,
    weights_format: WeightsFormat,
    streams: int,
    tokens: int,
    *,
    stepwise: bool = False,
) -> EngineName:
    """Return the fastest engine on a CPU, by measured crossing points (docs/experiments.md).

    Args:
        weights: The model.
        weights_format: Of its weights.
        streams: Texts written side by side.
        tokens: To write in each.
        stepwise: Whether settings keep the engine from drawing many tokens a call.

    Returns:
        `"onnx"`, which draws many tokens a call. In float32 `"numpy"` where each token is
        drawn apart anyway; and for one stream where the text is too short to pay for
        onnxruntime's 0.2 s, and from 512 units on, where reading the kernel is all and
        NumPy's product has both cores.
    """
    if weights_format != "float32":
        return "onnx"
    small_or_large = tokens <= _SHORT_TEXT or weights.hidden_size >= _LARGE_MODEL
    return "numpy" if stepwise or (streams == 1 and small_or_large) else "onnx"


def make_engine(
    name: EngineName,
    weights: ModelWeights,
    weights_format: WeightsFormat = "float32",
) -> Engine:
    """Return the engine `name` for a model.

    Args:
        name: `"numpy"`; `"onnx"`, which draws many tokens a call; `"tensorflow"`, the Keras
            model itself; `"reference"`, the slow twin in float64; `"auto"`: onnx.
        weights: The model.
        weights_format: Of its weights; below float32 for `"onnx"` alone.

    Returns:
        An engine; TensorFlow is imported for `"tensorflow"` alone.

    Raises:
        ConfigError: There is no such engine, or it has no such precision for such a model.
    """
    name = "onnx" if name == "auto" else name
    if name not in _ENGINES:
        raise ConfigError(
            f"`engine` must be one of auto, {', '.join(_ENGINES)}. Received: {name}. Pass --engine."
        )
    if weights_format != "float32" and name != "onnx":
        raise ConfigError(
            f"`weights` must be float32 with the engine {name}. Received: {weights_format}. "
            "Pass --engine onnx."
        )
    module, made = _ENGINES[name]
    engine = getattr(importlib.import_module(f"textgen.engines.{module}"), made)
    return engine(weights, weights_format, core_count()) if name == "onnx" else engine(weights)


_ENGINES = {
    "numpy": ("numpy_engine", "NumpyEngine"),
    "onnx": ("onnx.engine", "OnnxEngine"),
    "reference": ("reference_engine", "ReferenceEngine"),
    "tensorflow": ("tensorflow_engine", "TensorFlowEngine"),
}
