"""The pipeline: which steps a configuration has, their order, and how they print."""

from dataclasses import fields

import numpy as np
import pytest

from textgen.config import SamplingConfig
from textgen.sampling import FILTER_SETTINGS, StepContext, build_processors

# A value of each setting that switches a processor on, and the processor.
PROCESSORS = {
    "repetition_penalty": (1.5, "penalize_repetition(history, 1.5)"),
    "presence_penalty": (0.5, "penalize_presence(history, 0.5)"),
    "frequency_penalty": (0.5, "penalize_frequency(history, 0.5)"),
    "no_repeat_ngram": (2, "forbid_repeated_ngrams(history, 2)"),
    "dry_multiplier": (0.8, "penalize_dry(history, 0.8, 1.75, 2)"),
    "top_k": (2, "keep_top_k(2)"),
    "top_p": (0.5, "keep_top_p(0.5)"),
    "min_p": (0.5, "keep_min_p(0.5)"),
    "typical_p": (0.5, "keep_typical(0.5)"),
    "top_n_sigma": (1.0, "keep_top_n_sigma(1.0)"),
    "xtc_probability": (1.0, "exclude_top_choices(uniforms, 1.0, 0.1)"),
    "mirostat": (1.5, "keep_surprise_below(max_surprise)"),
}
# Settings of those processors, and settings that the generation of a text applies.
OTHERS = {"dry_base", "dry_allowed_length", "xtc_threshold", "mirostat_rate", "penalty_window"}
OTHERS |= {"max_new_tokens", "min_new_tokens", "seed", "temperature", "final_temperature"}
OTHERS |= {"ban", "bias", "regex", "max_copy", "stop", "stop_regex", "stop_at_document"}
OTHERS |= {"stop_at_sentence", "include_stop"}


def context(batch=1):
    return StepContext(
        history=np.array([[0, 1, 0, 1]] * batch, np.int32),
        temperature=0.7,
        uniforms=np.zeros(batch),
        max_surprise=np.full(batch, 1.5),
    )


def log_row(*probs):
    return np.log(np.array([probs])).astype(np.float32)


def test_every_setting_has_a_processor_or_belongs_to_another_part():
    assert set(PROCESSORS) | OTHERS == {field.name for field in fields(SamplingConfig)}
    assert not set(PROCESSORS) & OTHERS


@pytest.mark.parametrize("setting", PROCESSORS)
def test_a_setting_adds_its_processor_which_changes_the_logits(setting):
    value, shown = PROCESSORS[setting]
    steps = build_processors(SamplingConfig(temperature=0.7, **{setting: value}))
    assert {str(step) for step in steps} == {"scale_by_temperature(0.7)", shown}
    (step,) = (step for step in steps if str(step) == shown)
    logits = log_row(0.4, 0.3, 0.2, 0.1)
    before = logits.copy()
    changed = step(logits, context())
    assert changed.shape == logits.shape
    assert changed.dtype == logits.dtype
    assert not np.array_equal(changed, logits)
    np.testing.assert_array_equal(logits, before)


def test_all_processors_are_applied_in_the_documented_order():
    settings = {name: value for name, (value, _) in PROCESSORS.items()}
    bias = np.zeros(3, np.float32)
    steps = build_processors(SamplingConfig(temperature=0.7, **settings), bias)
    penalties = [shown for _, shown in PROCESSORS.values() if "history" in shown]
    rest = [shown for _, shown in PROCESSORS.values() if "history" not in shown]
    expected = ["add_bias()", *penalties, "scale_by_temperature(0.7)", *rest]
    assert [str(step) for step in steps] == expected


def test_at_temperature_0_only_bias_and_penalties_remain():
    settings = {name: value for name, (value, _) in PROCESSORS.items()}
    bias = np.zeros(3, np.float32)
    steps = build_processors(SamplingConfig(temperature=0, **settings), bias)
    penalties = [shown for _, shown in PROCESSORS.values() if "history" in shown]
    assert [str(step) for step in steps] == ["add_bias()", *penalties]
    assert set(FILTER_SETTINGS) == {
        n for n, (_, shown) in PROCESSORS.items() if shown not in penalties
    }
    assert build_processors(SamplingConfig(temperature=0, top_k=3)) == ()


def test_a_final_temperature_prints_with_the_first():
    (step,) = build_processors(SamplingConfig(temperature=0.7, final_temperature=0.2))
    assert str(step) == "scale_by_temperature(0.7 to 0.2)"


def test_top_p_measures_mass_among_the_tokens_that_top_k_kept():
    logits = log_row(0.4, 0.2, 0.2, 0.2)
    for step in build_processors(SamplingConfig(temperature=1.0, top_k=2, top_p=0.6)):
        logits = step(logits, context())
    assert np.flatnonzero(np.isfinite(logits[0])).tolist() == [0]


def test_a_banned_token_takes_no_place_among_the_top_k():
    bias = np.array([-np.inf, 0, 0, 0], np.float32)
    logits = log_row(0.4, 0.3, 0.2, 0.1)
    for step in build_processors(SamplingConfig(top_k=2), bias):
        logits = step(logits, context())
    assert np.flatnonzero(np.isfinite(logits[0])).tolist() == [1, 2]
