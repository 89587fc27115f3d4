import dataclasses
import tracemalloc

import numpy as np
import pytest

from textgen.config import SamplingConfig
from textgen.engines import choose_engine, make_engine, numpy_engine
from textgen.engines.numpy_engine import NumpyEngine
from textgen.engines.onnx.engine import OnnxEngine
from textgen.engines.reference_engine import ReferenceEngine, gru_step, sigmoid
from textgen.errors import ConfigError
from textgen.models.weights import NormWeights

TOKENS = np.random.default_rng(7).integers(0, 9, (3, 11)).astype(np.int32)


def close(actual, expected):
    np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-5)


@pytest.fixture(params=["reference", "numpy", "tensorflow"])
def engine_name(request):
    return request.param


def assert_equals_the_reference(name, weights):
    reference, engine = ReferenceEngine(weights), make_engine(name, weights)
    random = np.random.default_rng(1)
    shape = (weights.num_layers, 3, weights.state_size)
    state = random.uniform(-0.9, 0.9, shape).astype(np.float32)
    kept = state.copy()
    for call, tokens in (
        ("forward", TOKENS),
        ("prefill", TOKENS),
        ("decode_step", TOKENS[:, 0]),
    ):
        expected_logits, expected_state = getattr(reference, call)(tokens, state)
        logits, next_state = getattr(engine, call)(tokens, state)
        close(logits, expected_logits)
        close(next_state, expected_state)
        assert logits.dtype == next_state.dtype == np.float32
    np.testing.assert_array_equal(state, kept)
    np.testing.assert_array_equal(engine.initial_state(3), reference.initial_state(3))


@pytest.mark.parametrize("name", ["numpy", "onnx"])
def test_logits_and_states_equal_the_reference(random_weights, name, parts):
    assert_equals_the_reference(name, random_weights(**parts))


def test_the_keras_model_equals_the_reference(random_weights, few_parts):
    assert_equals_the_reference("tensorflow", random_weights(**few_parts))


@pytest.mark.parametrize("cell", ["gru", "lstm", "rnn"])
def test_the_reference_equals_layers_of_keras_put_together(random_weights, cell):
    weights = random_weights(
        num_layers=3, cell=cell, output_gate=True, residual=True, layer_norm=True, initial_state=True
    )
    x = weights.embedding[TOKENS]
    first, last = weights.initial_state(3), []
    for index, layer in enumerate(weights.layers):
        inputs = x if layer.norm is None else keras_norm(layer.norm, x)
        h, state = keras_layer(layer, inputs, first[index])
        last.append(state)
        before = np.concatenate([first[index][:, None, :6], h[:, :-1]], axis=1)
        gate = layer.output_gate
        opened = sigmoid(inputs @ gate.input_kernel + before @ gate.recurrent_kernel + gate.bias)
        outputs = opened * np.tanh(h)
        x = outputs + x if index else outputs
    reference = ReferenceEngine(weights)
    logits, state = reference.forward(TOKENS, reference.initial_state(3))
    close(logits, x @ weights.dense_kernel + weights.dense_bias)
    close(state, last)
    assert state.dtype == np.float64


def keras_norm(norm, x):
    import keras

    layer = keras.layers.LayerNormalization()
    layer.build(x.shape)
    layer.set_weights([norm.scale, norm.offset])
    return keras.ops.convert_to_numpy(layer(x))


def keras_layer(layer, inputs, state):
    """What a layer of Keras gives with these weights: all `h`, and the last state."""
    import keras

    kinds = {"gru": keras.layers.GRU, "lstm": keras.layers.LSTM, "rnn": keras.layers.SimpleRNN}
    stock = kinds[layer.cell](layer.hidden_size, return_sequences=True, return_state=True)
    stock.build(inputs.shape)
    bias = layer.bias if layer.cell == "gru" else layer.bias[0]
    stock.set_weights([layer.input_kernel, layer.recurrent_kernel, bias])
    initial = np.split(state, layer.state_size // layer.hidden_size, axis=-1)
    h, *last = stock(inputs, initial_state=[keras.ops.convert_to_tensor(part) for part in initial])
    last = [keras.ops.convert_to_numpy(part) for part in last]
    return keras.ops.convert_to_numpy(h), np.concatenate(last, axis=-1)


@pytest.mark.parametrize("num_layers", [1, 3])
def test_forward_equals_prefill_equals_single_steps(random_weights, engine_name, num_layers):
    engine = make_engine(engine_name, random_weights(num_layers=num_layers))
    state = engine.initial_state(3)
    logits, last_state = engine.forward(TOKENS, state)
    last_logits, prefilled = engine.prefill(TOKENS, state)
    close(last_logits, logits[:, -1])
    close(prefilled, last_state)
    for time in range(TOKENS.shape[1]):
        step_logits, state = engine.decode_step(TOKENS[:, time], state)
        close(step_logits, logits[:, time])
    close(state, last_state)


def test_rows_do_not_depend_on_their_batch(random_weights, engine_name):
    engine = make_engine(engine_name, random_weights(num_layers=2))
    together, states = engine.forward(TOKENS, engine.initial_state(3))
    for row in range(3):
        alone, state = engine.forward(TOKENS[row : row + 1], engine.initial_state(1))
        close(alone[0], together[row])
        close(state[:, 0], states[:, row])


def test_a_given_state_is_never_written_into(random_weights, engine_name):
    engine = make_engine(engine_name, random_weights(num_layers=2))
    state = engine.initial_state(3)
    assert state.shape == (2, 3, 6)
    for call, tokens in (
        (engine.forward, TOKENS),
        (engine.prefill, TOKENS),
        (engine.decode_step, TOKENS[:, 0]),
    ):
        _, next_state = call(tokens, state)
        kept = next_state.copy()
        call(tokens, next_state)
        np.testing.assert_array_equal(state, 0)
        np.testing.assert_array_equal(next_state, kept)


@pytest.mark.parametrize("cell", ["gru", "lstm", "rnn"])
@pytest.mark.parametrize("more", [{}, {"output_gate": True, "residual": True}], ids=str)
def test_prefill_in_chunks_equals_one_pass(random_weights, monkeypatch, cell, more):
    engine = NumpyEngine(random_weights(num_layers=2, cell=cell, **more))
    whole = engine.forward(TOKENS, engine.initial_state(3))
    monkeypatch.setattr(numpy_engine, "CHUNK_VALUES", 4 * 3 * 18)
    chunked = engine.forward(TOKENS, engine.initial_state(3))
    close(chunked[0], whole[0])
    close(chunked[1], whole[1])
    close(engine.prefill(TOKENS, engine.initial_state(3))[0], whole[0][:, -1])


def test_a_vocabulary_too_large_for_a_table_gives_the_same_logits(random_weights, monkeypatch):
    weights = random_weights()
    with_table = NumpyEngine(weights)
    monkeypatch.setattr(numpy_engine, "TABLE_FLOPS", 0)
    without = NumpyEngine(weights)
    close(
        without.forward(TOKENS, without.initial_state(3))[0],
        with_table.forward(TOKENS, with_table.initial_state(3))[0],
    )


def test_the_reference_step_equals_a_hand_computed_unit(random_weights):
    layer = random_weights(hidden_size=1, embedding_dim=1).layers[0]
    (w_z, w_r, w_h), (u_z, u_r, u_h) = layer.input_kernel[0], layer.recurrent_kernel[0]
    (b_z, b_r, b_h), (c_z, c_r, c_h) = layer.bias
    x, h = 0.7, -0.4
    z = 1 / (1 + np.exp(-(x * w_z + b_z + h * u_z + c_z)))
    r = 1 / (1 + np.exp(-(x * w_r + b_r + h * u_r + c_r)))
    candidate = np.tanh(x * w_h + b_h + r * (h * u_h + c_h))
    expected = z * h + (1 - z) * candidate
    np.testing.assert_allclose(gru_step(layer, np.array([[x]]), np.array([[h]])), [[expected]])


@pytest.mark.parametrize("name", ["numpy", "onnx", "reference"])
def test_every_text_begins_with_the_models_first_state(random_weights, name):
    weights = random_weights(num_layers=2, cell="lstm", initial_state=True)
    state = make_engine(name, weights).initial_state(4)
    assert state.shape == (2, 4, 12)
    for row in range(4):
        np.testing.assert_array_equal(state[:, row], weights.initial_state)
    state[:] = 0
    assert weights.initial_state.any()


def test_a_norm_of_the_first_layers_input_is_read_through_too(random_weights):
    weights = random_weights(num_layers=2, layer_norm=True)
    norm = NormWeights(scale=np.float32([2, 1, -1, 0.5, 3]), offset=np.float32([1, 0, 2, 0, -1]))
    first = dataclasses.replace(weights.layers[0], norm=norm)
    weights = dataclasses.replace(weights, layers=(first, weights.layers[1]))
    for name in ("numpy", "onnx"):
        assert_equals_the_reference(name, weights)


def test_sigmoid_neither_overflows_nor_loses_small_values():
    with np.errstate(all="raise", under="ignore"):
        values = sigmoid(np.array([-700.0, -2.0, 0.0, 800.0]))
    np.testing.assert_allclose(values, [np.exp(-700.0), 1 / (1 + np.exp(2.0)), 0.5, 1.0])


def test_auto_is_onnx_and_an_unknown_engine_is_refused(random_weights):
    assert isinstance(make_engine("auto", random_weights()), OnnxEngine)
    with pytest.raises(ConfigError, match="one of auto, numpy, onnx, reference, tensorflow"):
        make_engine("torch", random_weights())


def test_prefill_needs_no_more_memory_for_a_longer_prompt(random_weights, monkeypatch):
    monkeypatch.setattr(numpy_engine, "CHUNK_VALUES", 18 * 256)
    engine = NumpyEngine(random_weights(num_layers=2))
    peaks = []
    for length in (1_000, 1_000, 8_000):
        prompt, state = np.ones((1, length), np.int32), engine.initial_state(1)
        tracemalloc.start()
        engine.prefill(prompt, state)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[2] < peaks[1] + 8_192


@pytest.mark.parametrize(
    "hidden_size, weights_format, streams, tokens, stepwise, name",
    [
        (6, "float32", 1, 500, False, "numpy"),
        (6, "float32", 1, 5_000, False, "onnx"),
        (6, "float32", 8, 500, False, "onnx"),
        (6, "float32", 8, 500, True, "numpy"),
        (6, "int8", 1, 500, True, "onnx"),
        (512, "float32", 1, 5_000, False, "numpy"),
        (512, "float32", 2, 5_000, False, "onnx"),
    ],
)
def test_auto_follows_the_measured_crossing_points(
    random_weights, hidden_size, weights_format, streams, tokens, stepwise, name
):
    weights = random_weights(hidden_size=hidden_size)
    assert choose_engine(weights, weights_format, streams, tokens, stepwise=stepwise) == name
