"""Checks that every configuration runs when it is created, and its reconstruction from JSON."""

import dataclasses
import difflib
import types
from collections.abc import Callable, Iterable
from numbers import Integral, Real
from pathlib import PurePath
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import numpy as np

from textgen.config.limits import Check, Limits, require_within
from textgen.errors import ConfigError, describe_value

T = TypeVar("T")

_NAMES = {int: "an integer", float: "a number", bool: "True or False", str: "a string"}


def check_settings(config: object) -> None:
    """Check the type and the limits of every field of a frozen dataclass.

    NumPy numbers become Python numbers, lists become tuples, and paths become strings.

    Args:
        config: A dataclass whose fields carry their limits as `Annotated` metadata.

    Raises:
        ConfigError: A value does not have the type of its field, or is outside its limits.
    """
    for name, hint in _hints(type(config)).items():
        plain, limits = _parts(hint)
        value = convert(getattr(config, name), plain, name)
        object.__setattr__(config, name, value)
        for limit in limits:
            require_within(limit, name, value)


def check_setting(cls: type, name: str, value: Any) -> None:
    """Raise `ConfigError` unless `value` has the type and the limits of field `name` of `cls`.

    For functions that take one setting as an argument, such as `keep_top_p`.
    """
    check_argument(value, _hints(cls)[name], name)


def check_argument(value: Any, hint: Any, name: str) -> Any:
    """Return an argument as the type that `hint` describes.

    Args:
        value: What was received.
        hint: A type; limits may be its `Annotated` metadata, as in `Passes`.
        name: Name of the argument, for the message.

    Returns:
        The value as `convert` returns it.

    Raises:
        ConfigError: The value has another type, or is outside the limits.
    """
    plain, limits = _parts(hint)
    value = convert(value, plain, name)
    for limit in limits:
        require_within(limit, name, value)
    return value


def choices_of(cls: type, name: str) -> tuple[str, ...]:
    """Return the strings that a field with a `Literal` type accepts."""
    return tuple(
        choice
        for part in _alternatives(_parts(_hints(cls)[name])[0])
        if get_origin(part) is Literal
        for choice in get_args(part)
    )


def describe_setting(cls: type, name: str) -> tuple[str, tuple[str, ...]]:
    """Return a description of what a field accepts, and the choices of its `Literal` types."""
    plain, limits = _parts(_hints(cls)[name])
    ranges = [limit for limit in limits if isinstance(limit, Limits) and limit != Limits()]
    described = _describe(plain, "".join(_after_number(limit) for limit in ranges))
    return described, choices_of(cls, name)


def convert(value: Any, hint: Any, name: str) -> Any:
    """Return `value` as the type that `hint` describes.

    Args:
        value: What was received.
        hint: A type without `Annotated`: a class, a union, a `Literal`, or `tuple[T, ...]`.
        name: Name of the setting or argument, for the message.

    Returns:
        The value: NumPy numbers as Python numbers, a list as a tuple, a path as a string.

    Raises:
        ConfigError: The value has another type.
    """
    for part in _alternatives(hint):
        found = _as(value, part)
        if found is not _MISMATCH:
            return found
    choices = [c for part in _alternatives(hint) for c in get_args(part) if isinstance(c, str)]
    hint_text = suggestion(value.lower(), choices) if isinstance(value, str) else ""
    received = describe_value(value)
    raise ConfigError(f"`{name}` must be {_describe(hint)}. Received: {received}.{hint_text}")


def from_values(cls: type[T], values: dict[str, Any]) -> T:
    """Return the configuration that JSON values describe, nested ones first.

    Args:
        cls: A configuration class.
        values: Plain values by the names of its fields; a missing one takes its default.

    Returns:
        The configuration.

    Raises:
        ConfigError: `values` is not a dictionary, a key is unknown, or a value has the wrong
            type or is out of range.
    """
    if not isinstance(values, dict):
        raise ConfigError(f"Expected an object of settings. Received: {values!r}.")
    hints = _hints(cls)
    for key in values:
        if key not in hints:
            raise ConfigError(
                f"{cls.__name__} has no setting of that name. Received: {key}."
                f"{suggestion(key, hints)} Known: {', '.join(sorted(hints))}."
            )
    return cls(**{key: _revive(hints[key], value) for key, value in values.items()})


def suggestion(received: str, known: Iterable[str]) -> str:
    """Return " Did you mean X?" for the closest of `known`; empty if none is close."""
    close = difflib.get_close_matches(received, list(known), n=1)
    return f" Did you mean {close[0]}?" if close else ""


def _revive(hint: Any, value: Any) -> Any:
    plain = _parts(hint)[0]
    if dataclasses.is_dataclass(plain) and isinstance(plain, type):
        return from_values(plain, value)
    return tuple(value) if isinstance(value, list) else value


_CACHED_HINTS: dict[Any, dict[str, Any]] = {}


def _hints(cls: Any) -> dict[str, Any]:
    """Return the types of the fields of a class, metadata included."""
    if cls not in _CACHED_HINTS:
        _CACHED_HINTS[cls] = get_type_hints(cls, include_extras=True)
    return _CACHED_HINTS[cls]


def _parts(hint: Any) -> tuple[Any, tuple[Limits | Check, ...]]:
    """Return the type without its metadata, and the limits in the metadata."""
    limits: list[Limits | Check] = []
    while get_origin(hint) is Annotated:
        hint, *metadata = get_args(hint)
        limits = [*(m for m in metadata if isinstance(m, Limits | Check)), *limits]
    if len(_alternatives(hint)) > 1:
        parts = [_parts(alternative) for alternative in _alternatives(hint)]
        hint = Union[tuple(plain for plain, _ in parts)]  # noqa: UP007
        limits += [limit for _, found in parts for limit in found]
    return hint, tuple(limits)


def _alternatives(hint: Any) -> tuple[Any, ...]:
    return get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)


_MISMATCH = object()


def _as(value: Any, hint: Any) -> Any:
    """Return `value` as the type `hint`, or `_MISMATCH` if it has another type."""
    if get_origin(hint) is Literal:
        return value if isinstance(value, str) and value in get_args(hint) else _MISMATCH
    if get_origin(hint) is tuple:
        return _as_tuple(value, get_args(hint)[0])
    if hint in _CONVERTERS:
        return _CONVERTERS[hint](value)
    return value if isinstance(value, hint) else _MISMATCH


def _as_int(value: Any) -> Any:
    is_integer = isinstance(value, Integral) and not isinstance(value, bool)
    return int(value) if is_integer else _MISMATCH


def _as_float(value: Any) -> Any:
    """Return a number; an `int` stays an `int`, so that stored settings keep their form."""
    if type(value) in (int, float):
        return value
    is_number = isinstance(value, Real) and not isinstance(value, bool | np.bool_)
    return float(value) if is_number else _MISMATCH


def _as_bool(value: Any) -> Any:
    return bool(value) if isinstance(value, bool | np.bool_) else _MISMATCH


def _as_text(value: Any) -> Any:
    return str(value) if isinstance(value, str | PurePath) else _MISMATCH


def _as_none(value: Any) -> Any:
    return None if value is None else _MISMATCH


_CONVERTERS: dict[Any, Callable[[Any], Any]] = {
    int: _as_int,
    float: _as_float,
    bool: _as_bool,
    str: _as_text,
    None: _as_none,
    type(None): _as_none,
}


def _as_tuple(value: Any, entry_hint: Any) -> Any:
    if not isinstance(value, list | tuple):
        return _MISMATCH
    entries = tuple(_as(entry, entry_hint) for entry in value)
    return _MISMATCH if any(entry is _MISMATCH for entry in entries) else entries


def _after_number(limits: Limits) -> str:
    words = str(limits)
    return f" of {words}" if words.startswith("at ") else f" {words}"


def _describe(hint: Any, limits: str = "") -> str:
    """Return a description of what a type accepts; `limits` follows each number type."""
    parts = [_describe_one(part, limits) for part in _alternatives(hint) if part is not type(None)]
    nullable = type(None) in _alternatives(hint)
    return " or ".join(parts) + (", or None" if nullable else "")


def _describe_one(hint: Any, limits: str) -> str:
    if get_origin(hint) is Literal:
        *others, last = map(str, get_args(hint))
        return f"{', '.join(others)} or {last}" if others else last
    if get_origin(hint) is tuple:
        return f"a list, each entry {_describe(get_args(hint)[0])}"
    name = _NAMES.get(hint, f"a {getattr(hint, '__name__', hint)}")
    return name + limits if hint in (int, float) else name
