"""Configurations: refused values, round trips, presets."""

import json

import pytest

from textgen.config import (
    CorpusConfig,
    ModelConfig,
    RunConfig,
    SamplingConfig,
    TokenizerConfig,
    TrainingConfig,
)
from textgen.config.migrations import SCHEMA_VERSION
from textgen.errors import ConfigError
from textgen.presets import PRESETS, get_preset


@pytest.mark.parametrize(
    "make",
    [
        lambda: SamplingConfig(temperature=-0.1),
        lambda: SamplingConfig(temperature=float("nan")),
        lambda: SamplingConfig(top_p=0.0),
        lambda: SamplingConfig(top_p=1.01),
        lambda: SamplingConfig(top_k=0),
        lambda: SamplingConfig(max_new_tokens=-1),
        lambda: CorpusConfig(validation_fraction=0.0),
        lambda: CorpusConfig(validation_fraction=1.0),
        lambda: ModelConfig(hidden_size=0),
        lambda: ModelConfig(dropout=1.0),
        lambda: ModelConfig(input_dropout=-0.1),
        lambda: ModelConfig(layer_dropout=1.0),
        lambda: ModelConfig(tie_weights=True, embedding_dim=3, hidden_size=4),
        lambda: ModelConfig(residual=True),
        lambda: ModelConfig(layer_norm=True, num_layers=1),
        lambda: ModelConfig(cell="rnn", forget_bias=1.0),
        lambda: ModelConfig(forget_bias=float("nan")),
        lambda: TrainingConfig(ema_decay=1.0),
        lambda: TrainingConfig(state_reset_probability=1.0),
        lambda: TrainingConfig(temporal_penalty=-1.0),
        lambda: TrainingConfig(seq_len=8, seq_len_jitter=2),
        lambda: TrainingConfig(batch_size=0),
        lambda: TrainingConfig(max_minutes=0.0),
        lambda: TrainingConfig(clip_norm=0.0),
        lambda: TokenizerConfig(vocab_size=100),
        lambda: TokenizerConfig(min_count=1),
        lambda: TokenizerConfig(unknown="unk"),
    ],
)
def test_a_value_out_of_range_is_refused_in_one_line_with_a_way_out(make):
    with pytest.raises(ConfigError) as caught:
        make()
    message = str(caught.value)
    assert "\n" not in message
    assert "Received" in message
    assert "Pass --" in message


@pytest.mark.parametrize("value", [0.0, 0.5, 7.0])
def test_borders_that_are_allowed_are_allowed(value):
    assert SamplingConfig(temperature=value, top_p=1.0, top_k=1).temperature == value


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_a_configuration_survives_json(name):
    config = get_preset(name)
    assert RunConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config
    assert config.preset == name
    assert config != RunConfig()


def test_sources_come_back_as_a_tuple():
    config = RunConfig(corpus=CorpusConfig(sources=("a.txt", "b.txt")))
    assert RunConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_unknown_keys_newer_schemas_and_unknown_choices_are_refused():
    values = RunConfig().to_dict()
    with pytest.raises(ConfigError, match="newer textgen"):
        RunConfig.from_dict({**values, "schema_version": SCHEMA_VERSION + 1})
    with pytest.raises(ConfigError, match="colour"):
        RunConfig.from_dict({**values, "colour": "red"})
    with pytest.raises(ConfigError, match="hidden_sise"):
        RunConfig.from_dict({**values, "model": {"hidden_sise": 3}})
    with pytest.raises(ConfigError, match="bytes"):
        RunConfig.from_dict({**values, "tokenizer": {"tokenizer": "bytes"}})


def test_auto_is_no_fixed_preset_and_says_where_it_is_chosen():
    with pytest.raises(ConfigError, match=r"size_to_fit.*--preset auto"):
        get_preset("auto")


def test_an_unknown_preset_names_the_known_ones_and_a_close_one():
    with pytest.raises(ConfigError, match=r"demo, .*shakespeare.*Did you mean shakespeare"):
        get_preset("shakespear")
