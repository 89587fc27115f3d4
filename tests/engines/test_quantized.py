"""Quantized weights of a model: calibration, storage, and the limit on the loss."""

import logging
from dataclasses import replace

import numpy as np
import pytest

from tests.builders import make_quantized
from textgen.engines.numpy_engine import NumpyEngine
from textgen.engines.onnx.engine import OnnxEngine
from textgen.engines.onnx.graph_weights import layer_products
from textgen.engines.quantization import quantize_int4, quantize_int8
from textgen.engines.quantized import (
    generated_states,
    load_or_quantize,
    quantize_weights,
)
from textgen.errors import ConfigError, RunError
from textgen.models.quantized_file import load_quantized, serialize_quantized
from textgen.storage import tensors_sha256, write_if_possible

TOKENS = np.random.default_rng(7).integers(0, 9, (3, 11)).astype(np.int32)


class Store:
    """A folder that stores quantized weights as a run directory does."""

    def __init__(self, folder):
        self.folder = folder

    def path(self, weights_format):
        return self.folder / f"{weights_format}.safetensors"

    def read_quantized(self, weights_format, weights_sha256):
        return load_quantized(self.path(weights_format), weights_format, weights_sha256)

    def write_quantized(self, quantized):
        write_if_possible(self.path(quantized.weights_format), serialize_quantized(quantized))


class Losses:
    """Returns a loss of 2.0 nats for float32, and `increase` more for quantized weights."""

    def __init__(self, increase=0.001):
        self.increase, self.measured = increase, []

    def __call__(self, quantized):
        self.measured.append(quantized)
        return 2.0 if quantized is None else 2.0 + self.increase


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "quantized")


@pytest.fixture
def weights(lively_weights):
    return lively_weights()


def same_products(first, second):
    pairs = zip(first.products, second.products, strict=True)
    return all(np.array_equal(a.dequantize(), b.dequantize()) for a, b in pairs)


@pytest.mark.parametrize("cell", ["gru", "lstm", "rnn"])
def test_generated_states_are_those_of_every_layer_and_the_same_at_each_call(lively_weights, cell):
    engine = NumpyEngine(lively_weights(num_layers=2, cell=cell))
    states = generated_states(engine, 48)
    assert states.shape == (2, 3584, 48)
    np.testing.assert_array_equal(states, generated_states(engine, 48))
    assert 0.05 < states.std() < 1
    assert np.abs(states).max() <= 1


def test_int8_quantizes_every_product_of_the_model(lively_weights):
    weights = lively_weights(num_layers=2, cell="lstm")
    quantized = quantize_weights(weights, "int8")
    assert quantized.weights_sha256 == tensors_sha256(weights.to_tensors())
    for matrix, product in zip(quantized.products, layer_products(weights), strict=True):
        np.testing.assert_array_equal(matrix.dequantize(), quantize_int8(product).dequantize())


def test_int4_is_calibrated_with_the_states_of_each_layer(lively_weights):
    weights = lively_weights(num_layers=2)
    states = generated_states(OnnxEngine(weights, make_quantized(weights, "int8")), 48)
    quantized = quantize_weights(weights, "int4")
    for matrix, product, layer in zip(
        quantized.products, layer_products(weights), states, strict=True
    ):
        exact = layer.astype(np.float64)
        expected = quantize_int4(product, exact.T @ exact / len(exact))
        np.testing.assert_array_equal(matrix.dequantize(), expected.dequantize())
    assert not same_products(quantized, make_quantized(weights, "int4"))


@pytest.mark.parametrize("cell", ["gru", "lstm", "rnn"])
@pytest.mark.parametrize(("weights_format", "tolerance"), [("int8", 0.03), ("int4", 0.2)])
def test_quantized_logits_are_near_those_of_float32(
    lively_weights, weights_format, tolerance, cell
):
    weights = lively_weights(hidden_size=256, num_layers=2, cell=cell)
    engine = OnnxEngine(weights, quantize_weights(weights, weights_format))
    exact, _ = OnnxEngine(weights).forward(TOKENS, engine.initial_state(3))
    logits, state = engine.forward(TOKENS, engine.initial_state(3))
    error = np.sqrt(((logits - exact) ** 2).mean()) / exact.std()
    assert 1e-4 < error < tolerance
    assert np.isfinite(state).all()


@pytest.mark.parametrize("weights_format", ["int8", "int4"])
@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ({"output_gate": True}, "an output gate"),
        ({"residual": True}, "residual sums"),
        ({"layer_norm": True}, "layer norms"),
        ({"output_gate": True, "layer_norm": True}, "an output gate and layer norms"),
    ],
)
def test_models_with_more_than_plain_layers_are_refused(
    random_weights, weights_format, more, reason
):
    weights = random_weights(num_layers=2, cell="lstm", **more)
    message = f"model with {reason}, .*Received: {weights_format}.*`weights_format=float32`"
    with pytest.raises(ConfigError, match=message):
        quantize_weights(weights, weights_format)
    losses = Losses()
    with pytest.raises(ConfigError, match=message):
        load_or_quantize(weights, weights_format, losses)
    assert not losses.measured


@pytest.mark.parametrize("weights_format", ["int8", "int4"])
def test_weights_are_quantized_once_and_then_loaded_with_their_loss(weights, store, weights_format):
    losses = Losses()
    made = load_or_quantize(weights, weights_format, losses, store)
    assert losses.measured[0] is None
    assert same_products(losses.measured[1], made)
    assert (made.loss.float32, made.loss.quantized) == (2.0, 2.001)
    content = store.path(weights_format).read_bytes()
    loaded = load_or_quantize(weights, weights_format, losses, store)
    assert len(losses.measured) == 2
    assert loaded.loss == made.loss
    assert same_products(loaded, made)
    assert store.path(weights_format).read_bytes() == content


def test_stored_weights_are_used_as_they_are(weights, store):
    stored = replace(make_quantized(weights, "int4"), loss=None)
    store.write_quantized(stored)
    loaded = load_or_quantize(weights, "int4", Losses(), store)
    assert same_products(loaded, stored)
    assert not same_products(loaded, quantize_weights(weights, "int4"))
    assert store.read_quantized("int4", stored.weights_sha256).loss == loaded.loss is not None


def test_stored_weights_of_another_model_are_replaced(weights, lively_weights, store):
    other = lively_weights(seed=1)
    load_or_quantize(other, "int8", Losses(), store)
    quantized = load_or_quantize(weights, "int8", Losses(), store)
    assert same_products(quantized, make_quantized(weights, "int8"))
    stored = store.read_quantized("int8", quantized.weights_sha256)
    assert same_products(stored, quantized)


def test_damaged_weights_are_refused_with_the_advice_to_delete_them(weights, store):
    load_or_quantize(weights, "int8", Losses(), store)
    content = bytearray(store.path("int8").read_bytes())
    content[-1] ^= 1
    store.path("int8").write_bytes(content)
    with pytest.raises(RunError, match=r"int8.safetensors is damaged: .*sha256.*Delete it"):
        load_or_quantize(weights, "int8", Losses(), store)


@pytest.mark.parametrize("increase", [0.0051, float("nan")])
def test_an_increase_of_the_loss_above_the_limit_is_refused_each_time_and_measured_once(
    weights, store, increase
):
    losses = Losses(increase)
    for _ in range(2):
        with pytest.raises(RunError, match=r"at most 0.005 nats per token. Received: (0.0051|nan)"):
            load_or_quantize(weights, "int8", losses, store)
        assert len(losses.measured) == 2


@pytest.mark.parametrize("increase", [-0.1, 0.0, 0.0049])
def test_an_increase_of_the_loss_within_the_limit_is_accepted(weights, increase):
    assert load_or_quantize(weights, "int8", Losses(increase)).loss.increase <= 0.0049 + 1e-9


def test_a_store_that_cannot_be_written_logs_a_warning(weights, tmp_path, caplog):
    (tmp_path / "file").write_text("not a folder")
    store = Store(tmp_path / "file")
    with caplog.at_level(logging.WARNING, logger="textgen"):
        quantized = load_or_quantize(weights, "int8", Losses(), store)
    assert same_products(quantized, make_quantized(weights, "int8"))
    assert "int8.safetensors cannot be written" in caplog.text


def test_without_a_store_nothing_is_written(weights, tmp_path):
    load_or_quantize(weights, "int8", Losses())
    assert not list(tmp_path.iterdir())
