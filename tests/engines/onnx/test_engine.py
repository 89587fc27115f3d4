from itertools import product

import numpy as np
import psutil
import pytest

from textgen.config import SamplingConfig
from textgen.engines import make_engine
from textgen.engines.numpy_engine import NumpyEngine
from textgen.engines.onnx import engine as onnx_engine
from textgen.engines.onnx.engine import OnnxEngine, written_states
from textgen.engines.reference_engine import ReferenceEngine
from textgen.errors import ConfigError
from textgen.models.weights import ModelWeights
from textgen.sampling.draw import pick, pick_greedy
from textgen.sampling.filters import (
    keep_min_p,
    keep_top_k,
    keep_top_p,
    scale_by_temperature,
)

TOKENS = np.random.default_rng(7).integers(0, 9, (3, 11)).astype(np.int32)
PRECISIONS = ("float32", "int8", "int4")
VOCAB = 23
BIAS = np.zeros(VOCAB, np.float32)
BIAS[[2, 5]] = -np.inf
BIAS[[1, 7]] = 1.5, -0.75

SETTINGS = {
    "greedy": {"temperature": 0.0},
    "greedy and bias": {"temperature": 0.0, "bias": BIAS},
    "temperature": {"temperature": 0.8},
    "hot": {"temperature": 3.0},
    "bias": {"temperature": 0.8, "bias": BIAS},
    "top_k": {"temperature": 0.8, "top_k": 5},
    "top_k of 1": {"temperature": 0.8, "top_k": 1},
    "top_k of all": {"temperature": 0.8, "top_k": 100},
    "top_p": {"temperature": 0.8, "top_p": 0.7},
    "top_p of nearly nothing": {"temperature": 0.8, "top_p": 1e-9},
    "top_p of nearly all": {"temperature": 3.0, "top_p": 0.9999},
    "top_p of all": {"temperature": 0.8, "top_p": 1.0},
    "min_p": {"temperature": 1.2, "min_p": 0.1},
    "top_k and top_p": {"temperature": 1.5, "top_k": 9, "top_p": 0.8},
    "everything": {"temperature": 1.5, "top_k": 12, "top_p": 0.9, "min_p": 0.05, "bias": BIAS},
}


def make_weights(vocab_size=VOCAB, hidden_size=48, num_layers=1, seed=0):
    """Weights as large as trained ones: a random model that neither saturates nor is flat."""
    random = np.random.default_rng(seed)
    shapes = {"embedding": (vocab_size, 8), "dense.kernel": (hidden_size, vocab_size)}
    for index in range(num_layers):
        shapes[f"gru_{index}.kernel"] = (hidden_size if index else 8, 3 * hidden_size)
        shapes[f"gru_{index}.recurrent_kernel"] = (hidden_size, 3 * hidden_size)
    tensors = {
        name: random.standard_normal(shape) / shape[0] ** 0.5 for name, shape in shapes.items()
    }
    tensors["embedding"] *= 2
    tensors["dense.kernel"] *= 4
    tensors["dense.bias"] = random.standard_normal(vocab_size)
    for index in range(num_layers):
        tensors[f"gru_{index}.bias"] = 0.3 * random.standard_normal((2, 3 * hidden_size))
    return ModelWeights.from_tensors({k: v.astype(np.float32) for k, v in tensors.items()})


def loop_arguments(temperature=1.0, bias=None, **filters):
    """The last two arguments of `run_loop`."""
    return SamplingConfig(temperature=temperature, **filters), bias


def close(actual, expected, tolerance=1e-5):
    np.testing.assert_allclose(actual, expected, rtol=tolerance, atol=tolerance)


def write_step_by_step(engine, token_ids, state, uniforms, sampling, bias=None):
    """What `write` must equal: an engine's steps, the processors, and `pick`."""
    written = []
    for step_uniforms in uniforms:
        logits, state = engine.decode_step(token_ids, state)
        if bias is not None:
            logits = logits + bias
        if sampling.temperature == 0:
            token_ids = pick_greedy(logits)
        else:
            logits = scale_by_temperature(logits, sampling.temperature)
            for keep, value in (
                (keep_top_k, sampling.top_k),
                (keep_top_p, sampling.top_p),
                (keep_min_p, sampling.min_p),
            ):
                logits = logits if value is None else keep(logits, value)
            token_ids = pick(logits, step_uniforms)
        written.append(token_ids)
    return np.array(written), state


def make_uniforms(steps, batch, seed=4):
    return np.random.default_rng(seed).random((steps, batch))


@pytest.mark.parametrize("weights_format", PRECISIONS)
@pytest.mark.parametrize("num_layers", [1, 3])
def test_forward_equals_prefill_equals_single_steps(weights_format, num_layers, monkeypatch):
    monkeypatch.setattr(onnx_engine, "CHUNK_VALUES", 4 * 3 * 144)
    engine = OnnxEngine(make_weights(num_layers=num_layers), weights_format)
    state = engine.initial_state(3)
    logits, last_state = engine.forward(TOKENS, state)
    last_logits, prefilled = engine.prefill(TOKENS, state)
    close(last_logits, logits[:, -1])
    close(prefilled, last_state)
    for time in range(TOKENS.shape[1]):
        step_logits, state = engine.decode_step(TOKENS[:, time], state)
        close(step_logits, logits[:, time])
    close(state, last_state)
    assert not engine.initial_state(3).any()


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
@pytest.mark.parametrize("num_layers", [1, 2])
def test_one_call_writes_what_numpy_writes_step_by_step(settings, num_layers):
    weights = make_weights(num_layers=num_layers)
    numpy_engine, engine = NumpyEngine(weights), OnnxEngine(weights)
    for batch in (1, 5):
        token_ids, uniforms = np.arange(batch, dtype=np.int32), make_uniforms(300, batch)
        start = engine.initial_state(batch)
        arguments = (token_ids, start, uniforms, *loop_arguments(**settings))
        expected, expected_state = write_step_by_step(numpy_engine, *arguments)
        written, state = engine.run_loop(*arguments)
        np.testing.assert_array_equal(written, expected)
        close(state, expected_state, 1e-4)
        assert written.dtype == np.int32
        assert not start.any()


def test_one_call_writes_what_the_slow_loop_writes(lively_weights, parts):
    weights = lively_weights(**parts)
    reference, engine = ReferenceEngine(weights), OnnxEngine(weights)
    for settings in (SamplingConfig(temperature=0.0), SamplingConfig(temperature=2.0)):
        arguments = (np.array([3, 8]), engine.initial_state(2), make_uniforms(30, 2), settings)
        expected, expected_state = write_step_by_step(reference, *arguments)
        written, state = engine.run_loop(*arguments)
        np.testing.assert_array_equal(written, expected)
        close(state, expected_state, 1e-4)
    assert len(np.unique(written)) > 3


@pytest.mark.parametrize("cell", ["gru", "lstm", "rnn"])
@pytest.mark.parametrize("weights_format", ["int8", "int4"])
@pytest.mark.parametrize("num_layers", [1, 2])
def test_a_rounded_engine_writes_what_its_own_steps_write(
    lively_weights, weights_format, num_layers, cell
):
    weights = lively_weights(num_layers=num_layers, cell=cell, initial_state=True)
    engine = OnnxEngine(weights, weights_format)
    token_ids, uniforms = np.arange(4), make_uniforms(200, 4)
    for name in ("greedy", "temperature", "everything"):
        arguments = (token_ids, engine.initial_state(4), uniforms, *loop_arguments(**SETTINGS[name]))
        expected, expected_state = write_step_by_step(engine, *arguments)
        written, state = engine.run_loop(*arguments)
        np.testing.assert_array_equal(written, expected)
        close(state, expected_state)


@pytest.mark.parametrize("weights_format", PRECISIONS)
def test_rows_do_not_depend_on_their_batch_nor_text_on_its_pieces(weights_format):
    engine = OnnxEngine(make_weights(num_layers=2), weights_format)
    settings, uniforms = SamplingConfig(temperature=0.9, top_k=10), make_uniforms(120, 33)
    token_ids = np.arange(33) % VOCAB
    together, _ = engine.run_loop(token_ids, engine.initial_state(33), uniforms, settings)
    for row in (0, 7, 32):
        last, state = token_ids[row : row + 1], engine.initial_state(1)
        pieces = []
        for piece in np.split(uniforms[:, row : row + 1], [1, 50, 50]):
            written, state = engine.run_loop(last, state, piece, settings)
            pieces.append(written)
            last = written[-1] if len(written) else last
        np.testing.assert_array_equal(np.concatenate(pieces)[:, 0], together[:, row])


@pytest.mark.parametrize("threads", [2, 3])
def test_threads_share_the_rows_and_change_nothing(threads):
    weights, settings = make_weights(num_layers=2), SamplingConfig(temperature=0.8, top_p=0.9)
    alone, engine = OnnxEngine(weights, "int8"), OnnxEngine(weights, "int8", threads)
    for batch in (1, 2, 7):
        state = alone.prefill(np.arange(batch)[:, None], alone.initial_state(batch))[1]
        tokens = np.random.default_rng(0).integers(0, VOCAB, (batch, 9))
        arguments = (np.arange(batch), state, make_uniforms(100, batch), settings)
        for actual, expected in (
            (engine.run_loop(*arguments), alone.run_loop(*arguments)),
            (engine.forward(tokens, state), alone.forward(tokens, state)),
            (engine.prefill(tokens, state), alone.prefill(tokens, state)),
        ):
            close(actual[0], expected[0])
            close(actual[1], expected[1])


def test_among_equal_logits_the_lower_ids_survive():
    weights = make_weights()
    tensors = weights.to_tensors() | {
        "dense.kernel": np.zeros_like(weights.dense_kernel),
        "dense.bias": np.repeat(np.float32([0, 1, -1]), [9, 9, 5]),
    }
    engine = OnnxEngine(ModelWeights.from_tensors(tensors))
    for settings, expected in (
        ({"temperature": 0.0}, {9}),
        ({"top_k": 4}, {9, 10, 11, 12}),
        ({"top_k": 10}, {*range(9, 18), 0}),
        ({"top_p": 0.2}, {9, 10, 11}),
        ({"min_p": 0.9}, set(range(9, 18))),
        ({"top_k": 6, "top_p": 0.4}, {9, 10, 11}),
    ):
        written, _ = engine.run_loop(
            np.zeros(3, int),
            engine.initial_state(3),
            make_uniforms(200, 3),
            *loop_arguments(**settings),
        )
        assert set(written.ravel().tolist()) == expected, settings


def test_the_largest_uniform_draws_the_last_possible_token():
    weights, settings = make_weights(), SamplingConfig(temperature=0.7, top_k=6)
    uniforms = np.full((40, 2), np.nextafter(1.0, 0.0))
    uniforms[:, 1] = 0.0
    engine, numpy_engine = OnnxEngine(weights), NumpyEngine(weights)
    arguments = (np.array([3, 3]), engine.initial_state(2), uniforms, settings)
    expected, _ = write_step_by_step(numpy_engine, *arguments)
    np.testing.assert_array_equal(engine.run_loop(*arguments)[0], expected)


@pytest.mark.parametrize("cell", ["gru", "lstm", "rnn"])
@pytest.mark.parametrize(("weights_format", "tolerance"), [("int8", 0.03), ("int4", 0.2)])
def test_rounded_logits_are_near_and_never_nan(lively_weights, weights_format, tolerance, cell):
    weights = lively_weights(hidden_size=256, num_layers=2, cell=cell)
    engine = OnnxEngine(weights, weights_format)
    exact, _ = OnnxEngine(weights).forward(TOKENS, engine.initial_state(3))
    logits, state = engine.forward(TOKENS, engine.initial_state(3))
    error = np.sqrt(((logits - exact) ** 2).mean()) / exact.std()
    assert 1e-4 < error < tolerance
    assert np.isfinite(state).all()


@pytest.mark.parametrize("cell", ["gru", "lstm", "rnn"])
@pytest.mark.parametrize("weights_format", PRECISIONS)
def test_a_vocabulary_too_large_for_a_table_gives_the_same(
    lively_weights, weights_format, cell, monkeypatch
):
    weights = lively_weights(cell=cell, output_gate=weights_format == "float32")
    arguments = (np.arange(4), make_uniforms(50, 4), SamplingConfig(temperature=0.9))
    with_table = OnnxEngine(weights, weights_format)
    monkeypatch.setattr(onnx_engine, "TABLE_FLOPS", 0)
    without = OnnxEngine(weights, weights_format)
    start = with_table.initial_state(3)
    close(without.forward(TOKENS, start)[0], with_table.forward(TOKENS, start)[0], 1e-3)
    token_ids, uniforms, settings = arguments
    written, _ = without.run_loop(token_ids, without.initial_state(4), uniforms, settings)
    expected, _ = write_step_by_step(
        without, token_ids, without.initial_state(4), uniforms, settings
    )
    np.testing.assert_array_equal(written, expected)


def test_sessions_are_built_once_a_kind_of_settings(monkeypatch):
    built = []
    make = onnx_engine._make_session
    monkeypatch.setattr(
        onnx_engine, "_make_session", lambda *arguments: built.append(1) or make(*arguments)
    )
    engine = OnnxEngine(make_weights())
    state, uniforms = engine.initial_state(1), make_uniforms(2, 1)
    for temperature, top_k in product((0.5, 1.0, 2.0), (3, 4, 99, None)):
        settings = SamplingConfig(temperature=temperature, top_k=top_k)
        engine.run_loop(np.zeros(1, int), state, uniforms, settings)
    assert len(built) == 2


@pytest.mark.parametrize("cell", ["gru", "lstm", "rnn"])
def test_written_states_are_the_same_each_time_and_of_every_layer(lively_weights, cell):
    engine = NumpyEngine(lively_weights(num_layers=2, cell=cell))
    states = written_states(engine, 48)
    assert states.shape == (2, 3584, 48)
    np.testing.assert_array_equal(states, written_states(engine, 48))
    assert 0.05 < states.std() < 1
    assert np.abs(states).max() <= 1


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
def test_layers_that_read_more_than_states_are_not_rounded(random_weights, weights_format, more, reason):
    weights = random_weights(num_layers=2, cell="lstm", **more)
    message = f"float32 for a model with {reason}, .*{weights_format}.*--weights-format float32"
    with pytest.raises(ConfigError, match=message):
        make_engine("onnx", weights, weights_format)


def test_a_long_text_needs_no_more_memory():
    engine = OnnxEngine(make_weights(), "int8")
    state, token_ids = engine.initial_state(8), np.zeros(8, np.int32)
    settings, resident = SamplingConfig(temperature=0.8, top_k=5), []
    for call in range(40):
        uniforms = make_uniforms(500 + call % 7, 8, seed=call)
        written, state = engine.run_loop(token_ids, state, uniforms, settings)
        token_ids = written[-1]
        resident.append(psutil.Process().memory_info().rss)
    assert resident[-1] - resident[9] < 2_000_000


@pytest.mark.parametrize(
    "bias", [np.full(VOCAB, -np.inf), np.full(VOCAB, np.nan), np.full(VOCAB, np.inf), np.zeros(3)]
)
def test_a_bias_that_leaves_nothing_to_draw_is_refused(bias):
    engine = OnnxEngine(make_weights())
    arguments = (make_uniforms(2, 1), SamplingConfig(), bias.astype(np.float32))
    with pytest.raises(ConfigError, match="`bias` must be"):
        engine.run_loop(np.zeros(1, int), engine.initial_state(1), *arguments)


def test_settings_that_the_loop_cannot_apply_are_refused():
    engine = OnnxEngine(make_weights())
    for sampling, message in (
        (SamplingConfig(typical_p=0.9), "`typical_p`"),
        (SamplingConfig(temperature="auto"), "`temperature` must be a number"),
    ):
        with pytest.raises(ConfigError, match=message):
            engine.run_loop(np.zeros(1, int), engine.initial_state(1), make_uniforms(2, 1), sampling)


def test_an_unknown_precision_and_no_thread_are_refused():
    with pytest.raises(ConfigError, match="one of float32, int8, int4"):
        OnnxEngine(make_weights(), "int3")
    with pytest.raises(ConfigError, match="`threads` must be at least 1"):
        OnnxEngine(make_weights(), threads=0)
