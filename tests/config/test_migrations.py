"""Settings of older schemas under their present names."""

import pytest

from textgen.config import RunConfig
from textgen.config.migrations import (
    ENVIRONMENT_SCHEMA_VERSION,
    migrate_config,
    migrate_environment,
)
from textgen.errors import ConfigError

SCHEMA_1 = {
    "schema_version": 1,
    "preset": None,
    "model": {"first_state": "learnt", "keep_bias": 1.5, "hidden_size": 24},
    "training": {
        "average": 0.9,
        "change_penalty": 0.5,
        "state_reset": 0.1,
        "gru_kernel": "fused",
        "precision": "float32",
        "epochs": 2,
    },
}


def test_schema_1_is_read_with_every_value_kept():
    config = RunConfig.from_dict(SCHEMA_1)
    model, training = config.model, config.training
    assert (model.initial_state, model.forget_bias, model.hidden_size) == ("learned", 1.5, 24)
    assert (training.ema_decay, training.temporal_penalty) == (0.9, 0.5)
    assert (training.state_reset_probability, training.kernel) == (0.1, "fused")
    assert (training.matmul_dtype, training.epochs) == ("float32", 2)


def test_the_values_that_are_migrated_do_not_change():
    before = {**SCHEMA_1, "model": dict(SCHEMA_1["model"])}
    migrate_config(SCHEMA_1)
    assert before == SCHEMA_1


def test_the_present_schema_passes_unchanged():
    values = RunConfig().to_dict()
    expected = {name: value for name, value in values.items() if name != "schema_version"}
    assert migrate_config(values) == expected


SCHEMA_1_ENVIRONMENT = {
    "python": "3.11.7",
    "gru_kernel": "fused",
    "gru_kernel_reason": "no GPU",
    "precision": "bfloat16",
    "precision_reason": "the CPU has amx_bf16",
    "shards": 2,
}
ENVIRONMENT = {
    "python": "3.11.7",
    "kernel": "fused",
    "kernel_reason": "no GPU",
    "matmul_dtype": "bfloat16",
    "matmul_dtype_reason": "the CPU has amx_bf16",
    "shards": 2,
}


def test_an_environment_without_a_schema_is_read_with_every_value_kept():
    assert migrate_environment(SCHEMA_1_ENVIRONMENT) == ENVIRONMENT


def test_an_environment_of_the_present_schema_passes_unchanged():
    values = {"schema_version": ENVIRONMENT_SCHEMA_VERSION, **ENVIRONMENT}
    assert migrate_environment(values) == ENVIRONMENT


@pytest.mark.parametrize("migrate", [migrate_config, migrate_environment])
@pytest.mark.parametrize(
    "values, message",
    [
        ({"schema_version": 3}, "at most 2. Received: 3"),
        ({"schema_version": "2"}, "must be an integer. Received: '2'"),
        ([], r"JSON object. Received: \[\]"),
    ],
)
def test_newer_and_damaged_schemas_are_refused(migrate, values, message):
    with pytest.raises(ConfigError, match=message):
        migrate(values)
