"""What every configuration checks and how it is rebuilt from plain values."""

import dataclasses
from typing import Any, TypeVar, get_args, get_type_hints

from textgen.errors import ConfigError

T = TypeVar("T")


def require(ok: bool, name: str, limit: str, received: object) -> None:
    """Raise `ConfigError` about the setting `name` unless `ok`; the message names its flag."""
    if not ok:
        flag = "--" + name.replace("_", "-")
        raise ConfigError(f"`{name}` must be {limit}. Received: {received}. Pass {flag}.")


def from_values(cls: type[T], values: dict[str, Any]) -> T:
    """Make a configuration from JSON values, nested ones first.

    Args:
        cls: One of the classes above.
        values: Plain values by the names of its fields; what is absent takes its default.

    Returns:
        The configuration.

    Raises:
        ConfigError: A key is unknown, or a value out of range.
    """
    hints = get_type_hints(cls)
    unknown = sorted(set(values) - set(hints))
    if unknown:
        raise ConfigError(
            f"Unknown setting in {cls.__name__}: {', '.join(unknown)}. "
            f"Known: {', '.join(sorted(hints))}."
        )
    return cls(**{key: _revive(hints[key], value) for key, value in values.items()})


def _revive(hint: Any, value: Any) -> Any:
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        return from_values(hint, value)
    if isinstance(value, list):
        return tuple(value)
    choices = get_args(hint)
    if choices and all(isinstance(c, str) for c in choices) and value not in choices:
        raise ConfigError(f"Expected one of {', '.join(choices)}. Received: {value!r}.")
    return value
