"""The ONNX engine: its loop against single steps, in every weights format.

Where two computations must draw the same tokens, the uniforms are such that float rounding cannot
change a draw, and both use the same quantized weights, so that the tests pass on every CPU.
`OPENBLAS_CORETYPE=Haswell` or `=Prescott` makes NumPy round as other CPUs do.
"""

from itertools import product

import numpy as np
import psutil
import pytest

from tests.builders import (
    assert_close,
    draw_step_by_step,
    find_safe_draws,
    make_lively_weights,
    make_quantized,
    make_safe_uniforms,
    with_exact_inputs,
)
from textgen.config import SamplingConfig
from textgen.engines import common
from textgen.engines.numpy_engine import NumpyEngine
from textgen.engines.onnx import engine as onnx_engine
from textgen.engines.onnx.engine import OnnxEngine
from textgen.engines.reference_engine import ReferenceEngine
from textgen.errors import ConfigError, RunError
from textgen.models.weights import ModelWeights

TOKENS = np.random.default_rng(7).integers(0, 9, (3, 11)).astype(np.int32)
FORMATS = ("float32", "int8", "int4")
CELLS = ("gru", "lstm", "rnn")
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


def make_engine(weights, weights_format="float32", threads=1):
    quantized = None if weights_format == "float32" else make_quantized(weights, weights_format)
    return OnnxEngine(weights, quantized, threads)


def noise_of(weights_format):
    """Return the rounding error of a logit: in 8 bits it can change a state by a whole level."""
    return 1e-4 if weights_format == "float32" else 1e-2


def loop_arguments(temperature=1.0, bias=None, **filters):
    """Return the last two arguments of `run_loop`."""
    return SamplingConfig(temperature=temperature, **filters), bias


def make_uniforms(steps, batch, seed=4):
    return np.random.default_rng(seed).random((steps, batch))


@pytest.mark.parametrize("weights_format", FORMATS)
@pytest.mark.parametrize("num_layers", [1, 3])
def test_forward_equals_prefill_equals_single_steps(weights_format, num_layers, monkeypatch):
    monkeypatch.setattr(common, "MAX_CHUNK_VALUES", 4 * 3 * 144)
    engine = make_engine(make_lively_weights(num_layers=num_layers), weights_format)
    state = engine.initial_state(3)
    logits, last_state = engine.forward(TOKENS, state)
    last_logits, prefilled = engine.prefill(TOKENS, state)
    assert_close(last_logits, logits[:, -1], rtol=1e-5)
    assert_close(prefilled, last_state, rtol=1e-5)
    for time in range(TOKENS.shape[1]):
        step_logits, state = engine.decode_step(TOKENS[:, time], state)
        assert_close(step_logits, logits[:, time], rtol=1e-5)
    assert_close(state, last_state, rtol=1e-5)
    assert not engine.initial_state(3).any()


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
@pytest.mark.parametrize("num_layers", [1, 2])
@pytest.mark.parametrize("batch", [1, 5])
def test_one_call_draws_the_tokens_of_numpy_in_single_steps(
    lively_weights, settings, num_layers, batch
):
    arguments = loop_arguments(**settings)
    weights, start, uniforms = find_safe_draws(
        lambda seed: lively_weights(num_layers=num_layers, seed=seed),
        NumpyEngine,
        batch,
        300,
        *arguments,
    )
    engine = OnnxEngine(weights)
    expected, expected_state = draw_step_by_step(NumpyEngine(weights), *start, uniforms, *arguments)
    drawn, state = engine.run_loop(*start, uniforms, *arguments)
    np.testing.assert_array_equal(drawn, expected)
    assert_close(state, expected_state, atol=1e-4)
    assert drawn.dtype == np.int32
    assert not start[1].any()


@pytest.mark.parametrize("temperature", [0.0, 2.0])
def test_one_call_draws_the_tokens_of_the_reference(lively_weights, parts, temperature):
    sampling = SamplingConfig(temperature=temperature)
    weights, start, uniforms = find_safe_draws(
        lambda seed: lively_weights(seed=seed, **parts), ReferenceEngine, 2, 30, sampling
    )
    reference = ReferenceEngine(weights)
    expected, expected_state = draw_step_by_step(reference, *start, uniforms, sampling)
    drawn, state = OnnxEngine(weights).run_loop(*start, uniforms, sampling)
    np.testing.assert_array_equal(drawn, expected)
    assert_close(state, expected_state, atol=1e-4)
    assert len(np.unique(drawn)) > 3 * temperature


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("weights_format", ["int8", "int4"])
@pytest.mark.parametrize("num_layers", [1, 2])
@pytest.mark.parametrize("name", ["greedy", "temperature", "everything"])
def test_a_quantized_engine_draws_the_tokens_of_its_single_steps(
    lively_weights, weights_format, num_layers, cell, name
):
    arguments = loop_arguments(**SETTINGS[name])
    engine, start, uniforms = find_safe_draws(
        lambda seed: make_engine(
            lively_weights(num_layers=num_layers, cell=cell, initial_state=True, seed=seed),
            weights_format,
        ),
        lambda engine: engine,
        4,
        200,
        *arguments,
        noise=noise_of(weights_format),
    )
    expected, expected_state = draw_step_by_step(engine, *start, uniforms, *arguments)
    drawn, state = engine.run_loop(*start, uniforms, *arguments)
    np.testing.assert_array_equal(drawn, expected)
    assert_close(state, expected_state, rtol=1e-5)


@pytest.mark.parametrize("weights_format", FORMATS)
def test_tokens_depend_neither_on_other_rows_nor_on_the_number_of_calls(weights_format):
    engine = make_engine(make_lively_weights(num_layers=2), weights_format)
    sampling = SamplingConfig(temperature=0.9, top_k=10)
    token_ids = np.arange(33) % VOCAB
    start = token_ids, engine.initial_state(33)
    uniforms = make_safe_uniforms(engine, *start, 120, sampling, noise=noise_of(weights_format))
    together, _ = engine.run_loop(*start, uniforms, sampling)
    for row in (0, 7, 32):
        last, state = token_ids[row : row + 1], engine.initial_state(1)
        pieces = []
        for piece in np.split(uniforms[:, row : row + 1], [1, 50, 50]):
            drawn, state = engine.run_loop(last, state, piece, sampling)
            pieces.append(drawn)
            last = drawn[-1] if len(drawn) else last
        np.testing.assert_array_equal(np.concatenate(pieces)[:, 0], together[:, row])


@pytest.mark.parametrize("threads", [2, 3])
def test_results_do_not_depend_on_the_number_of_threads(threads):
    weights = make_lively_weights(num_layers=2)
    quantized = make_quantized(weights, "int8")
    sampling = SamplingConfig(temperature=0.8, top_p=0.9)
    alone, engine = OnnxEngine(weights, quantized), OnnxEngine(weights, quantized, threads)
    for batch in (1, 2, 7):
        state = alone.prefill(np.arange(batch)[:, None], alone.initial_state(batch))[1]
        start = np.arange(batch), state
        uniforms = make_safe_uniforms(alone, *start, 100, sampling, noise=noise_of("int8"))
        tokens = np.random.default_rng(0).integers(0, VOCAB, (batch, 9))
        for actual, expected in (
            (
                engine.run_loop(*start, uniforms, sampling),
                alone.run_loop(*start, uniforms, sampling),
            ),
            (engine.forward(tokens, state), alone.forward(tokens, state)),
            (engine.prefill(tokens, state), alone.prefill(tokens, state)),
        ):
            assert_close(actual[0], expected[0], rtol=1e-5)
            assert_close(actual[1], expected[1], rtol=1e-5)


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("weights_format", FORMATS)
def test_a_vocabulary_too_large_for_a_table_gives_the_same_results(
    lively_weights, weights_format, cell, monkeypatch
):
    # Exact, since near the middle between two 8-bit levels any rounding error becomes a level.
    weights = with_exact_inputs(lively_weights(cell=cell, output_gate=weights_format == "float32"))
    with_table = make_engine(weights, weights_format)
    monkeypatch.setattr(common, "MAX_TABLE_FLOPS", 0)
    without = make_engine(weights, weights_format)
    start = with_table.initial_state(3)
    expected = with_table.forward(TOKENS, start)
    assert_close(without.forward(TOKENS, start)[0], expected[0], rtol=1e-5)
    arguments = np.arange(4), without.initial_state(4)
    sampling = SamplingConfig(temperature=0.9)
    noise = noise_of(weights_format)
    uniforms = make_safe_uniforms(with_table, *arguments, 50, sampling, noise=noise)
    drawn, _ = without.run_loop(*arguments, uniforms, sampling)
    expected, _ = with_table.run_loop(*arguments, uniforms, sampling)
    np.testing.assert_array_equal(drawn, expected)
    steps, _ = draw_step_by_step(without, *arguments, uniforms, sampling)
    np.testing.assert_array_equal(drawn, steps)


def with_constant_logits(bias):
    """Return the weights of a model whose logits are `bias`, whatever it reads."""
    weights = make_lively_weights()
    tensors = weights.to_tensors() | {
        "dense.kernel": np.zeros_like(weights.dense_kernel),
        "dense.bias": np.asarray(bias, np.float32),
    }
    return ModelWeights.from_tensors(tensors)


def test_among_equal_logits_the_lower_ids_survive():
    engine = OnnxEngine(with_constant_logits(np.repeat([0, 1, -1], [9, 9, 5])))
    start = np.zeros(3, int), engine.initial_state(3)
    for settings, expected in (
        ({"temperature": 0.0}, {9}),
        ({"top_k": 4}, {9, 10, 11, 12}),
        ({"top_k": 10}, {*range(9, 18), 0}),
        ({"top_p": 0.2}, {9, 10, 11}),
        ({"min_p": 0.9}, set(range(9, 18))),
        ({"top_k": 6, "top_p": 0.4}, {9, 10, 11}),
    ):
        drawn, _ = engine.run_loop(*start, make_uniforms(200, 3), *loop_arguments(**settings))
        assert set(drawn.ravel().tolist()) == expected, settings


def test_the_extreme_uniforms_draw_the_first_and_the_last_possible_token():
    # The six most probable tokens are 4, 9, 10, 15, 17 and 20.
    logits = np.full(VOCAB, -1.0)
    logits[[4, 9, 10, 15, 17, 20]] = 0.5, 3.0, 1.0, 2.5, 2.0, 1.5
    engine = OnnxEngine(with_constant_logits(logits))
    uniforms = np.full((40, 2), np.nextafter(1.0, 0.0))
    uniforms[:, 1] = 0.0
    sampling = SamplingConfig(temperature=0.7, top_k=6)
    drawn, _ = engine.run_loop(np.array([3, 3]), engine.initial_state(2), uniforms, sampling)
    np.testing.assert_array_equal(drawn, np.tile([20, 4], (40, 1)))


def test_without_uniforms_nothing_is_drawn_and_the_state_is_unchanged():
    engine = OnnxEngine(make_lively_weights())
    start = np.random.default_rng(0).uniform(-1, 1, (1, 2, 48)).astype(np.float32)
    drawn, state = engine.run_loop(np.zeros(2, int), start, np.zeros((0, 2)), SamplingConfig())
    assert drawn.shape == (0, 2)
    np.testing.assert_array_equal(state, start)
    assert state is not start


def test_a_session_is_made_once_per_set_of_graph_inputs(monkeypatch):
    built = []
    make = onnx_engine._make_session
    monkeypatch.setattr(
        onnx_engine, "_make_session", lambda *arguments: built.append(1) or make(*arguments)
    )
    engine = OnnxEngine(make_lively_weights())
    state, uniforms = engine.initial_state(1), make_uniforms(2, 1)
    for temperature, top_k in product((0.5, 1.0, 2.0), (3, 4, 99, None)):
        sampling = SamplingConfig(temperature=temperature, top_k=top_k)
        engine.run_loop(np.zeros(1, int), state, uniforms, sampling)
    assert len(built) == 2


def test_memory_does_not_grow_with_the_text():
    engine = make_engine(make_lively_weights(), "int8")
    state, token_ids = engine.initial_state(8), np.zeros(8, np.int32)
    sampling, resident = SamplingConfig(temperature=0.8, top_k=5), []
    for call in range(40):
        uniforms = make_uniforms(500 + call % 7, 8, seed=call)
        drawn, state = engine.run_loop(token_ids, state, uniforms, sampling)
        token_ids = drawn[-1]
        resident.append(psutil.Process().memory_info().rss)
    assert resident[-1] - resident[9] < 2_000_000


@pytest.mark.parametrize(
    "bias", [np.full(VOCAB, -np.inf), np.full(VOCAB, np.nan), np.full(VOCAB, np.inf), np.zeros(3)]
)
def test_a_bias_of_another_shape_or_without_a_finite_maximum_is_refused(bias):
    engine = OnnxEngine(make_lively_weights())
    arguments = (make_uniforms(2, 1), SamplingConfig(), bias.astype(np.float32))
    with pytest.raises(ConfigError, match=r"`bias` must .*Received"):
        engine.run_loop(np.zeros(1, int), engine.initial_state(1), *arguments)


@pytest.mark.parametrize(
    ("sampling", "message"),
    [
        (SamplingConfig(typical_p=0.9, regex="a"), "Received: `regex`, `typical_p`"),
        (SamplingConfig(temperature="auto"), "`temperature` of `run_loop` must be a number"),
    ],
)
def test_settings_that_the_loop_does_not_support_are_refused(sampling, message):
    engine = OnnxEngine(make_lively_weights())
    with pytest.raises(ConfigError, match=message):
        engine.run_loop(np.zeros(1, int), engine.initial_state(1), make_uniforms(2, 1), sampling)


def test_the_unsupported_settings_are_reported_by_name():
    engine = OnnxEngine(make_lively_weights())
    applied = SamplingConfig(temperature=0.5, top_k=4, top_p=0.5, min_p=0.1, stop=("a",))
    assert engine.unsupported(applied) == set()
    assert engine.unsupported(SamplingConfig(top_k=4, typical_p=0.5, seed=3)) == {"typical_p"}


def test_quantized_weights_of_another_model_and_zero_threads_are_refused():
    other = make_quantized(make_lively_weights(vocab_size=24), "int8")
    with pytest.raises(RunError, match=r"\(48, 167\).*Received: .*\(48, 168\)"):
        OnnxEngine(make_lively_weights(), other)
    with pytest.raises(ConfigError, match="`threads` must be at least 1"):
        OnnxEngine(make_lively_weights(), threads=0)
