"""Older schemas of stored settings, brought up to date when they are read."""

from typing import Any

from textgen.errors import ConfigError

# Schema 1 named some settings differently; 2 is the present schema.
SCHEMA_VERSION = 2

_RENAMED_IN_2 = {
    "model": {"first_state": "initial_state", "keep_bias": "forget_bias"},
    "training": {
        "average": "ema_decay",
        "change_penalty": "temporal_penalty",
        "state_reset": "state_reset_probability",
        "gru_kernel": "kernel",
        "precision": "matmul_dtype",
    },
}


def migrate_config(values: dict[str, Any]) -> dict[str, Any]:
    """Return the settings of a `config.json` under their present names.

    Args:
        values: Nested plain values with `schema_version`, of this schema or an older one.

    Returns:
        The values of schema `SCHEMA_VERSION`, without `schema_version`.

    Raises:
        ConfigError: `values` is no object, or its schema is newer than this program.
    """
    if not isinstance(values, dict):
        raise ConfigError(f"The settings must be a JSON object. Received: {values!r}.")
    version = values.get("schema_version", 1)
    if not isinstance(version, int) or isinstance(version, bool):
        raise ConfigError(f"`schema_version` must be an integer. Received: {version!r}.")
    if version > SCHEMA_VERSION:
        raise ConfigError(
            f"`schema_version` must be at most {SCHEMA_VERSION}. Received: {version}. "
            "A newer textgen wrote this run: upgrade to read it."
        )
    current = {name: value for name, value in values.items() if name != "schema_version"}
    return _from_schema_1(current) if version < 2 else current


def _from_schema_1(values: dict[str, Any]) -> dict[str, Any]:
    for part, names in _RENAMED_IN_2.items():
        if isinstance(values.get(part), dict):
            values[part] = {names.get(name, name): v for name, v in values[part].items()}
    model = values.get("model")
    if isinstance(model, dict) and model.get("initial_state") == "learnt":
        model["initial_state"] = "learned"
    return values
