"""The quantized weights of a model: made once, stored, and checked for their increase in loss.

Calibration depends on float rounding, so two machines may quantize a model differently; stored
weights are the same everywhere. This module does NOT know where they are stored, or on which text
the loss is measured.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Protocol

import numpy as np

from textgen.arrays import Float32Array, Float64Array
from textgen.config import QuantizedFormat
from textgen.engines.base import Engine
from textgen.engines.quantization import quantize_int4, quantize_int8
from textgen.errors import ConfigError, RunError
from textgen.models.quantized import QuantizationLoss, QuantizedWeights
from textgen.models.weights import ModelWeights
from textgen.sampling.draw import pick
from textgen.storage import tensors_sha256

# Nats per token on the validation text.
MAX_LOSS_INCREASE = 0.005

# Calibration generates 4,096 tokens to collect states, which takes 0.1 s at 512 units.
_CALIBRATION_ROWS, _CALIBRATION_STEPS = 32, 128
# Steps whose states are dropped, since they still depend on the initial state.
_CALIBRATION_WARMUP = 16

# Returns the loss on the validation text, nats per token, with these weights; None: float32.
MeasureLoss = Callable[[QuantizedWeights | None], float]


class QuantizedStore(Protocol):
    """Storage for the quantized weights of a run."""

    def read_quantized(
        self, weights_format: QuantizedFormat, weights_sha256: str
    ) -> QuantizedWeights | None:
        """Return the stored weights.

        Args:
            weights_format: Their format.
            weights_sha256: Hash of the float32 weights that they must have been made from.

        Returns:
            The weights; None if none are stored, or if they were made from other weights.
        """

    def write_quantized(self, quantized: QuantizedWeights) -> None:
        """Store the weights, or log a warning if that fails."""


def load_or_quantize(
    weights: ModelWeights,
    weights_format: QuantizedFormat,
    measure_loss: MeasureLoss,
    store: QuantizedStore | None = None,
) -> QuantizedWeights:
    """Return the quantized weights of a model from `store`, or make them and store them.

    Args:
        weights: The model.
        weights_format: `"int8"` or `"int4"`.
        measure_loss: Called twice for new weights: with None, and with the quantized weights.
        store: Where the weights are stored; None: they are made, and not stored.

    Returns:
        The quantized weights, with their loss.

    Raises:
        ConfigError: The model has layers that cannot be quantized.
        RunError: The weights increase the loss by more than `MAX_LOSS_INCREASE`, or the stored
            ones are damaged.
    """
    _require_plain(weights, weights_format)
    weights_sha256 = tensors_sha256(weights.to_tensors())
    quantized = store.read_quantized(weights_format, weights_sha256) if store else None
    if quantized is None or quantized.loss is None:
        quantized = quantized or quantize_weights(weights, weights_format)
        loss = QuantizationLoss(float32=measure_loss(None), quantized=measure_loss(quantized))
        quantized = replace(quantized, loss=loss)
        # Stored even if refused below, so that measuring, which takes a minute, is not repeated.
        if store:
            store.write_quantized(quantized)
    _require_small_loss(quantized)
    return quantized


def quantize_weights(weights: ModelWeights, weights_format: QuantizedFormat) -> QuantizedWeights:
    """Quantize the products of a model.

    Args:
        weights: The model.
        weights_format: `"int8"`: one scale per column. `"int4"`: one scale per 128 weights of a
            column, calibrated with the states of a text that the model generates in int8.

    Returns:
        The quantized weights, without their loss. int8 is the same on every machine; int4 depends
        on the rounding of float32 products.

    Raises:
        ConfigError: The model has layers that cannot be quantized.
    """
    # Imported here, since importing onnx takes 0.1 s.
    from textgen.engines.onnx.engine import OnnxEngine
    from textgen.engines.onnx.graph_weights import layer_products

    _require_plain(weights, weights_format)
    products = layer_products(weights)
    int8 = QuantizedWeights(
        weights_format="int8",
        products=tuple(map(quantize_int8, products)),
        weights_sha256=tensors_sha256(weights.to_tensors()),
    )
    if weights_format == "int8":
        return int8
    states = generated_states(OnnxEngine(weights, int8), weights.hidden_size)
    pairs = zip(products, map(_covariance, states), strict=True)
    matrices = tuple(quantize_int4(matrix, covariance) for matrix, covariance in pairs)
    return replace(int8, weights_format="int4", products=matrices)


def generated_states(engine: Engine, hidden_size: int) -> Float32Array:
    """Return states `h` of a model from text that it generates.

    Args:
        engine: The model.
        hidden_size: Units of each layer; the rest of a state, the `c` of an LSTM, is left out.

    Returns:
        `[num_layers, 3584, hidden_size]`; the seed is fixed.
    """
    random = np.random.default_rng(0)
    token_ids = random.integers(engine.vocab_size, size=_CALIBRATION_ROWS, dtype=np.int32)
    state = engine.initial_state(_CALIBRATION_ROWS)
    states = []
    for uniforms in random.random((_CALIBRATION_STEPS, _CALIBRATION_ROWS)):
        logits, state = engine.decode_step(token_ids, state)
        token_ids = pick(logits, uniforms)
        states.append(state[..., :hidden_size])
    return np.concatenate(states[_CALIBRATION_WARMUP:], axis=1)


def _covariance(states: Float32Array) -> Float64Array:
    """Return the mean of `h hᵀ` over states `[n, hidden_size]`: `[hidden_size, hidden_size]`.

    In float64, so that the order of a machine's additions changes no level.
    """
    exact = states.astype(np.float64)
    return np.asarray(exact.T @ exact / len(exact))


def _require_plain(weights: ModelWeights, weights_format: QuantizedFormat) -> None:
    """Raise `ConfigError` unless a state `h` is the only input of each product."""
    parts = {
        "an output gate": any(layer.output_gate is not None for layer in weights.layers),
        "residual sums": weights.residual,
        "layer norms": any(layer.norm is not None for layer in weights.layers),
    }
    found = " and ".join(part for part, present in parts.items() if present)
    if found:
        raise ConfigError(
            f"`weights_format` must be float32 for a model with {found}, since only plain "
            f"recurrent layers can be quantized. Received: {weights_format}. "
            "Use `weights_format=float32`."
        )


def _require_small_loss(quantized: QuantizedWeights) -> None:
    if quantized.loss is not None and not quantized.loss.increase <= MAX_LOSS_INCREASE:
        raise RunError(
            f"The {quantized.weights_format} weights must increase the loss on the validation "
            f"text by at most {MAX_LOSS_INCREASE} nats per token. "
            f"Received: {quantized.loss.increase:.4f}. Use `weights_format=float32`."
        )
