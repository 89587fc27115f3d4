"""Settings of a run and of a request: refused values, round trips through JSON."""

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


@pytest.mark.parametrize(
    "cls, settings, name",
    [
        (SamplingConfig, {"temperature": -0.1}, "temperature"),
        (SamplingConfig, {"temperature": float("nan")}, "temperature"),
        (SamplingConfig, {"top_p": 0.0}, "top_p"),
        (SamplingConfig, {"top_p": 1.01}, "top_p"),
        (SamplingConfig, {"top_k": 0}, "top_k"),
        (SamplingConfig, {"max_new_tokens": -1}, "max_new_tokens"),
        (SamplingConfig, {"temperature": 0, "final_temperature": 1.0}, "final_temperature"),
        (SamplingConfig, {"bias": ("the",)}, "bias"),
        (SamplingConfig, {"bias": ("the=nan",)}, "bias"),
        (SamplingConfig, {"bias": ("the=1e308",)}, "bias"),
        (SamplingConfig, {"dry_allowed_length": 10**20}, "dry_allowed_length"),
        (SamplingConfig, {"stop": ("",)}, "stop"),
        (CorpusConfig, {"validation_fraction": 0.0}, "validation_fraction"),
        (CorpusConfig, {"validation_fraction": 1.0}, "validation_fraction"),
        (CorpusConfig, {"document_end": ""}, "document_end"),
        (ModelConfig, {"hidden_size": 0}, "hidden_size"),
        (ModelConfig, {"num_layers": 10**11}, "num_layers"),
        (ModelConfig, {"dropout": 1.0}, "dropout"),
        (ModelConfig, {"input_dropout": -0.1}, "input_dropout"),
        (ModelConfig, {"layer_dropout": 1.0}, "layer_dropout"),
        (ModelConfig, {"tie_weights": True, "embedding_dim": 3}, "embedding_dim"),
        (ModelConfig, {"residual": True}, "num_layers"),
        (ModelConfig, {"layer_norm": True}, "num_layers"),
        (ModelConfig, {"cell": "rnn", "forget_bias": 1.0}, "forget_bias"),
        (ModelConfig, {"forget_bias": float("nan")}, "forget_bias"),
        (TrainingConfig, {"ema_decay": 1.0}, "ema_decay"),
        (TrainingConfig, {"state_reset_probability": 1.0}, "state_reset_probability"),
        (TrainingConfig, {"temporal_penalty": -1.0}, "temporal_penalty"),
        (TrainingConfig, {"temporal_penalty": 1.0, "seq_len": 1}, "seq_len"),
        (TrainingConfig, {"seq_len": 8, "seq_len_jitter": 2}, "seq_len_jitter"),
        (TrainingConfig, {"batch_size": 0}, "batch_size"),
        (TrainingConfig, {"epochs": 10**20}, "epochs"),
        (TrainingConfig, {"validate_every": 10**20}, "validate_every"),
        (TrainingConfig, {"max_minutes": 0.0}, "max_minutes"),
        (TrainingConfig, {"clip_norm": 0.0}, "clip_norm"),
        (TrainingConfig, {"seed": 2**32}, "seed"),
        (TokenizerConfig, {"vocab_size": 100}, "vocab_size"),
        (TokenizerConfig, {"vocab_size": 10**14}, "vocab_size"),
        (TokenizerConfig, {"min_count": 1}, "min_count"),
        (TokenizerConfig, {"unknown": "unk"}, "unknown=unk"),
    ],
)
def test_a_value_out_of_range_names_the_setting_the_limit_and_the_value(cls, settings, name):
    with pytest.raises(ConfigError, match=rf"^`{name}` .*Received: .+\.$") as caught:
        cls(**settings)
    assert "\n" not in str(caught.value)
    assert "--" not in str(caught.value)


@pytest.mark.parametrize("value", [0, 0.5, 7.0])
def test_values_at_the_limits_are_accepted(value):
    sampling = SamplingConfig(temperature=value, top_p=1.0, top_k=1, seed=2**64 - 1)
    assert (sampling.temperature, sampling.top_p, sampling.top_k) == (value, 1.0, 1)


def test_sources_survive_json_as_a_tuple():
    config = RunConfig(corpus=CorpusConfig(sources=("a.txt", "b.txt")))
    assert RunConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


@pytest.mark.parametrize(
    "change, message",
    [
        ({"schema_version": SCHEMA_VERSION + 1}, "newer textgen"),
        ({"schema_version": "1"}, "schema_version"),
        ({"schema_version": True}, "schema_version"),
        ({"flavor": "red"}, "flavor"),
        ({"model": {"hidden_sise": 3}}, "Did you mean hidden_size?"),
        ({"model": []}, "object"),
        ({"model": {"hidden_size": "3"}}, "`hidden_size` must be an integer"),
        ({"model": {"hidden_size": True}}, "`hidden_size` must be an integer"),
        ({"training": {"batch_size": 8.5}}, "`batch_size` must be an integer"),
        ({"training": {"seed": 1.5}}, "`seed`"),
        ({"training": {"validate_every": 1e308}}, "`validate_every`"),
        ({"tokenizer": {"tokenizer": "bytes"}}, "char or subword"),
        ({"preset": "nonsense"}, "`preset`"),
    ],
)
def test_invalid_json_values_are_refused(change, message):
    with pytest.raises(ConfigError) as caught:
        RunConfig.from_dict({**RunConfig().to_dict(), **change})
    assert message in str(caught.value)


@pytest.mark.parametrize("values", [None, [], "config", 3])
def test_values_that_are_no_object_are_refused(values):
    with pytest.raises(ConfigError, match="JSON object"):
        RunConfig.from_dict(values)


@pytest.mark.parametrize(
    "epochs, minutes, steps",
    [(3, None, 30), (3, 1.0, 30), (None, 1.0, 1_000_000), (None, None, 1000)],
)
def test_total_steps_follow_the_limits(epochs, minutes, steps):
    assert TrainingConfig(epochs=epochs, max_minutes=minutes).total_steps(10) == steps


def test_validations_are_an_epoch_apart_or_as_many_epochs_as_make_100_steps():
    config = TrainingConfig()
    assert [config.validation_interval(n) for n in (7, 50, 100, 250)] == [105, 100, 100, 250]
    assert TrainingConfig(validate_every=3).validation_interval(250) == 3
