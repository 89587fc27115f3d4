"""The contract of `Engine`, for every engine, and the settings that a loop does not support."""

from dataclasses import fields, make_dataclass, replace

import numpy as np
import pytest

from tests.builders import assert_close
from textgen.config import SamplingConfig
from textgen.engines import make_engine
from textgen.engines.base import (
    CALLER_SETTINGS,
    REFINEMENTS,
    LoopEngine,
    unsupported_settings,
)
from textgen.engines.reference_engine import ReferenceEngine
from textgen.models.weights import NormWeights
from textgen.sampling import FILTER_SETTINGS

TOKENS = np.random.default_rng(7).integers(0, 9, (3, 11)).astype(np.int32)
APPLIED = frozenset({"temperature", "top_k"})
NAMES = frozenset(field.name for field in fields(SamplingConfig))
# A value other than the default for every field that a loop does not apply.
CHANGED = {
    "ban": ("b",),
    "bias": ("e=1.5",),
    "dry_allowed_length": 3,
    "dry_base": 2.0,
    "dry_multiplier": 0.8,
    "final_temperature": 1.0,
    "frequency_penalty": 0.1,
    "include_stop": True,
    "max_copy": 9,
    "max_new_tokens": 7,
    "min_new_tokens": 3,
    "min_p": 0.1,
    "mirostat": 3.0,
    "mirostat_rate": 0.2,
    "no_repeat_ngram": 3,
    "penalty_window": 64,
    "presence_penalty": 0.1,
    "regex": "a+",
    "repetition_penalty": 1.2,
    "seed": 5,
    "stop": ("a",),
    "stop_at_document": True,
    "stop_at_sentence": 4,
    "stop_regex": "b+",
    "top_n_sigma": 1.0,
    "top_p": 0.5,
    "typical_p": 0.5,
    "xtc_probability": 0.1,
    "xtc_threshold": 0.2,
}


@pytest.fixture(params=["reference", "numpy", "onnx", "tensorflow"])
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
        assert_close(logits, expected_logits)
        assert_close(next_state, expected_state)
        assert logits.dtype == next_state.dtype == np.float32
    np.testing.assert_array_equal(state, kept)
    np.testing.assert_array_equal(engine.initial_state(3), reference.initial_state(3))


@pytest.mark.parametrize("name", ["numpy", "onnx"])
def test_logits_and_states_equal_the_reference(lively_weights, name, parts):
    # Of the size of trained weights: larger ones make a plain cell chaotic, so that rounding grows.
    assert_equals_the_reference(name, lively_weights(9, 6, **parts))


def test_the_keras_model_equals_the_reference(lively_weights, few_parts):
    assert_equals_the_reference("tensorflow", lively_weights(9, 6, **few_parts))


@pytest.mark.parametrize("num_layers", [1, 3])
def test_forward_equals_prefill_equals_single_steps(random_weights, engine_name, num_layers):
    engine = make_engine(engine_name, random_weights(num_layers=num_layers))
    state = engine.initial_state(3)
    logits, last_state = engine.forward(TOKENS, state)
    last_logits, prefilled = engine.prefill(TOKENS, state)
    assert_close(last_logits, logits[:, -1])
    assert_close(prefilled, last_state)
    for time in range(TOKENS.shape[1]):
        step_logits, state = engine.decode_step(TOKENS[:, time], state)
        assert_close(step_logits, logits[:, time])
    assert_close(state, last_state)


def test_rows_do_not_depend_on_their_batch(random_weights, engine_name):
    engine = make_engine(engine_name, random_weights(num_layers=2))
    together, states = engine.forward(TOKENS, engine.initial_state(3))
    for row in range(3):
        alone, state = engine.forward(TOKENS[row : row + 1], engine.initial_state(1))
        assert_close(alone[0], together[row])
        assert_close(state[:, 0], states[:, row])


def test_an_engine_does_not_modify_the_state_that_it_receives(random_weights, engine_name):
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


@pytest.mark.parametrize("name", ["numpy", "onnx", "reference"])
def test_every_text_starts_with_the_learned_initial_state(random_weights, name):
    weights = random_weights(num_layers=2, cell="lstm", initial_state=True)
    state = make_engine(name, weights).initial_state(4)
    assert state.shape == (2, 4, 12)
    for row in range(4):
        np.testing.assert_array_equal(state[:, row], weights.learned_initial_state)
    state[:] = 0
    assert weights.learned_initial_state.any()


def test_a_norm_of_the_first_layers_input_is_applied(random_weights):
    weights = random_weights(num_layers=2, layer_norm=True)
    norm = NormWeights(scale=np.float32([2, 1, -1, 0.5, 3]), offset=np.float32([1, 0, 2, 0, -1]))
    first = replace(weights.layers[0], norm=norm)
    weights = replace(weights, layers=(first, weights.layers[1]))
    for name in ("numpy", "onnx"):
        assert_equals_the_reference(name, weights)


@pytest.mark.parametrize(
    ("name", "has_loop"),
    [("numpy", False), ("onnx", True), ("reference", False), ("tensorflow", False)],
)
def test_only_onnx_has_a_loop(random_weights, name, has_loop):
    assert isinstance(make_engine(name, random_weights()), LoopEngine) == has_loop


def test_defaults_and_applied_settings_are_supported():
    assert unsupported_settings(SamplingConfig(), APPLIED) == set()
    assert unsupported_settings(SamplingConfig(temperature=0.5, top_k=4), APPLIED) == set()


@pytest.mark.parametrize("name", sorted(CHANGED))
def test_a_setting_is_unsupported_unless_applied_by_the_caller_or_without_effect(name):
    expected = set() if name in CALLER_SETTINGS or name in REFINEMENTS else {name}
    sampling = SamplingConfig(**{name: CHANGED[name]})
    assert unsupported_settings(sampling, APPLIED) == expected
    assert unsupported_settings(sampling, APPLIED | {name}) == set()


@pytest.mark.parametrize("name", sorted(REFINEMENTS))
def test_a_refinement_is_unsupported_if_any_setting_that_it_refines_is_on(name):
    for refined in REFINEMENTS[name]:
        sampling = SamplingConfig(**{name: CHANGED[name], refined: CHANGED[refined]})
        assert unsupported_settings(sampling, APPLIED) == {name, refined}


def test_filters_have_no_effect_at_temperature_0():
    filters = set(FILTER_SETTINGS) - APPLIED
    values = {name: CHANGED[name] for name in filters}
    sampling = SamplingConfig(temperature=0.0, presence_penalty=0.1, mirostat_rate=0.2, **values)
    assert unsupported_settings(sampling, APPLIED) == {"presence_penalty"}
    sampled = replace(sampling, temperature=0.1)
    expected = {"presence_penalty", "mirostat_rate", *filters}
    assert unsupported_settings(sampled, APPLIED) == expected


def test_a_setting_added_to_the_class_is_unsupported_until_an_engine_names_it():
    extended = make_dataclass(
        "Extended", [("new_filter", float | None, None)], bases=(SamplingConfig,), frozen=True
    )
    sampling = extended(new_filter=0.5, top_k=3)
    assert unsupported_settings(sampling, APPLIED) == {"new_filter"}
    assert unsupported_settings(sampling, APPLIED | {"new_filter"}) == set()


def test_every_name_in_the_tables_is_a_field():
    named = CALLER_SETTINGS | set(REFINEMENTS)
    assert named.union(*REFINEMENTS.values()) <= NAMES
    assert set(CHANGED) | APPLIED == NAMES
