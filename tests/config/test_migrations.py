"""Settings of older schemas under their present names."""

from textgen.config import RunConfig
from textgen.config.migrations import migrate_config

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
