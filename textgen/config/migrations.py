"""Migrations of older schemas of `config.json` and `environment.json`, applied on reading."""

from typing import Any

from textgen.errors import ConfigError

# Schema 2 renamed some settings.
SCHEMA_VERSION = 2
# Schema 2 added `schema_version` and renamed some keys.
ENVIRONMENT_SCHEMA_VERSION = 2

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
_ENVIRONMENT_RENAMED_IN_2 = {
    "gru_kernel": "kernel",
    "gru_kernel_reason": "kernel_reason",
    "precision": "matmul_dtype",
    "precision_reason": "matmul_dtype_reason",
}


def migrate_config(values: dict[str, Any]) -> dict[str, Any]:
    """Return the settings of a `config.json` under their current names.

    Args:
        values: Nested plain values with `schema_version`, of this schema or an older one.

    Returns:
        The values of schema `SCHEMA_VERSION`, without `schema_version`.

    Raises:
        ConfigError: `values` is not a dictionary, or its schema is newer than this program.
    """
    version = _version_of(values, SCHEMA_VERSION)
    current = {name: value for name, value in values.items() if name != "schema_version"}
    return _from_schema_1(current) if version < 2 else current


def migrate_environment(values: dict[str, Any]) -> dict[str, Any]:
    """Return the values of an `environment.json` under their current names.

    Args:
        values: Plain values, of this schema or an older one.

    Returns:
        The values of schema `ENVIRONMENT_SCHEMA_VERSION`, without `schema_version`.

    Raises:
        ConfigError: `values` is not a dictionary, or its schema is newer than this program.
    """
    version = _version_of(values, ENVIRONMENT_SCHEMA_VERSION)
    current = {name: value for name, value in values.items() if name != "schema_version"}
    if version >= 2:
        return current
    return {_ENVIRONMENT_RENAMED_IN_2.get(name, name): v for name, v in current.items()}


def _version_of(values: dict[str, Any], newest: int) -> int:
    """Return the `schema_version` of stored values, 1 where there is none."""
    if not isinstance(values, dict):
        raise ConfigError(f"The settings must be a JSON object. Received: {values!r}.")
    version = values.get("schema_version", 1)
    if not isinstance(version, int) or isinstance(version, bool):
        raise ConfigError(f"`schema_version` must be an integer. Received: {version!r}.")
    if version > newest:
        raise ConfigError(
            f"`schema_version` must be at most {newest}. Received: {version}. "
            "A newer textgen wrote this run: upgrade to read it."
        )
    return version


def _from_schema_1(values: dict[str, Any]) -> dict[str, Any]:
    for part, names in _RENAMED_IN_2.items():
        if isinstance(values.get(part), dict):
            values[part] = {names.get(name, name): v for name, v in values[part].items()}
    model = values.get("model")
    if isinstance(model, dict) and model.get("initial_state") == "learnt":
        model["initial_state"] = "learned"
    return values
