"""Which settings a loop leaves out, and that none is left out silently."""

from dataclasses import fields, make_dataclass, replace

import pytest

from textgen.config import SamplingConfig
from textgen.engines.base import (
    CALLER_SETTINGS,
    REFINED_SETTINGS,
    SAMPLED_SETTINGS,
    unsupported_settings,
)

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


def test_defaults_and_applied_settings_are_supported():
    assert unsupported_settings(SamplingConfig(), APPLIED) == set()
    assert unsupported_settings(SamplingConfig(temperature=0.5, top_k=4), APPLIED) == set()


@pytest.mark.parametrize("name", sorted(CHANGED))
def test_a_setting_is_unsupported_unless_applied_by_the_caller_or_without_effect(name):
    expected = set() if name in CALLER_SETTINGS or name in REFINED_SETTINGS else {name}
    sampling = SamplingConfig(**{name: CHANGED[name]})
    assert unsupported_settings(sampling, APPLIED) == expected
    assert unsupported_settings(sampling, APPLIED | {name}) == set()


@pytest.mark.parametrize("name", sorted(REFINED_SETTINGS))
def test_a_refinement_counts_once_any_of_its_main_settings_is_on(name):
    for main in REFINED_SETTINGS[name]:
        sampling = SamplingConfig(**{name: CHANGED[name], main: CHANGED[main]})
        assert unsupported_settings(sampling, APPLIED) == {name, main}


def test_settings_of_the_sampling_have_no_effect_at_temperature_0():
    values = {name: CHANGED[name] for name in SAMPLED_SETTINGS}
    sampling = SamplingConfig(temperature=0.0, presence_penalty=0.1, mirostat_rate=0.2, **values)
    assert unsupported_settings(sampling, APPLIED) == {"presence_penalty"}
    warm = replace(sampling, temperature=0.1)
    expected = {"presence_penalty", "mirostat_rate", *SAMPLED_SETTINGS}
    assert unsupported_settings(warm, APPLIED) == expected


def test_a_setting_added_to_the_class_is_unsupported_until_an_engine_names_it():
    extended = make_dataclass(
        "Extended", [("new_filter", float | None, None)], bases=(SamplingConfig,), frozen=True
    )
    sampling = extended(new_filter=0.5, top_k=3)
    assert unsupported_settings(sampling, APPLIED) == {"new_filter"}
    assert unsupported_settings(sampling, APPLIED | {"new_filter"}) == set()


def test_every_name_in_the_tables_is_a_field():
    named = CALLER_SETTINGS | SAMPLED_SETTINGS | set(REFINED_SETTINGS)
    assert named.union(*REFINED_SETTINGS.values()) <= NAMES
    assert set(CHANGED) | APPLIED == NAMES
