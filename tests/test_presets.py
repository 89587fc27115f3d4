"""Presets: names, round trips, and what they may not be used for."""

import json
from dataclasses import replace

import pytest

from textgen.config import RunConfig, TrainingConfig, choices_of
from textgen.errors import ConfigError
from textgen.presets import AUTO, PRESETS, get_preset, require_applied
from textgen.training.sizing import choose_settings


def test_the_names_in_the_settings_are_those_of_the_presets():
    assert set(choices_of(RunConfig, "preset")) == {*PRESETS, AUTO}


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_a_preset_survives_json_and_changes_the_defaults(name):
    config = get_preset(name)
    assert RunConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config
    assert config.preset == name
    assert config != replace(RunConfig(), preset=name)


def test_auto_is_not_fixed_and_names_the_function_that_chooses():
    with pytest.raises(ConfigError, match="size_to_fit"):
        get_preset("auto")


def test_an_unknown_preset_lists_the_known_ones_and_the_nearest():
    with pytest.raises(ConfigError, match=r"demo, .*shakespeare.*Did you mean shakespeare"):
        get_preset("shakespear")


@pytest.mark.parametrize("name", [None, 3, b"demo", ["demo"]])
def test_a_name_of_another_type_is_refused(name):
    with pytest.raises(ConfigError, match="`preset` must be"):
        get_preset(name)


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_a_preset_that_only_names_itself_is_refused(name):
    with pytest.raises(ConfigError, match=f"get_preset\\('{name}'\\)"):
        require_applied(RunConfig(preset=name))
    with pytest.raises(ConfigError, match="default settings"):
        require_applied(RunConfig(preset=name, training=TrainingConfig(max_minutes=7)))


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_an_applied_preset_passes_with_changes(name):
    config = get_preset(name)
    require_applied(config)
    require_applied(replace(config, training=replace(config.training, max_minutes=None, epochs=2)))
    require_applied(RunConfig())


def test_auto_is_refused_until_its_settings_are_chosen():
    for config in (
        RunConfig(preset=AUTO),
        RunConfig(preset=AUTO, training=TrainingConfig(epochs=2)),
    ):
        with pytest.raises(ConfigError, match="size_to_fit"):
            require_applied(config)
    chosen = choose_settings(num_tokens=10**6, vocab_size=65, minutes=3, tokens_per_second=4e4)
    require_applied(chosen)
