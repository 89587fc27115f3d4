"""Limits of settings, written once, in the type of each dataclass field."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from textgen.errors import ConfigError


@dataclass(frozen=True)
class Limits:
    """The numbers that a setting accepts; `None` and strings are never limited.

    Used as metadata of a field's type: `top_k: Annotated[int | None, Limits(minimum=1)] = None`.

    Attributes:
        minimum: Smallest accepted number.
        maximum: Largest accepted number.
        above: Number that the setting must be greater than.
        below: Number that the setting must be less than.

    NaN and infinity are always outside the limits.
    """

    minimum: float | None = None
    maximum: float | None = None
    above: float | None = None
    below: float | None = None

    def accepts(self, value: float) -> bool:
        """Return whether `value` is finite and within the limits."""
        return (
            math.isfinite(value)
            and (self.minimum is None or value >= self.minimum)
            and (self.maximum is None or value <= self.maximum)
            and (self.above is None or value > self.above)
            and (self.below is None or value < self.below)
        )

    def __str__(self) -> str:
        low = self.minimum if self.above is None else self.above
        high = self.maximum if self.below is None else self.below
        if low is not None and high is not None:
            opening = "[" if self.above is None else "("
            closing = "]" if self.below is None else ")"
            return f"in {opening}{_number(low)}, {_number(high)}{closing}"
        parts = {
            "at least": self.minimum,
            "greater than": self.above,
            "at most": self.maximum,
            "less than": self.below,
        }
        found = [f"{words} {_number(limit)}" for words, limit in parts.items() if limit is not None]
        return " and ".join(found) or "a finite number"


@dataclass(frozen=True)
class Check:
    """A condition on a setting that a range cannot express.

    Attributes:
        accepts: Returns whether a value is accepted; called for values that are not None.
        description: What a value must be, for example "non-empty strings".
    """

    accepts: Callable[[Any], bool]
    description: str

    def __str__(self) -> str:
        return self.description


FINITE = Limits()
AT_LEAST_ZERO = Limits(minimum=0)
AT_LEAST_ONE = Limits(minimum=1)
POSITIVE = Limits(above=0)
# A fraction; 0 is excluded because it would mean "off", which is None.
POSITIVE_FRACTION = Limits(above=0, maximum=1)
# A probability that must not be 1, such as a dropout rate.
BELOW_ONE = Limits(minimum=0, below=1)
NOT_EMPTY = Check(bool, "a non-empty string")
NOT_EMPTY_TEXTS = Check(all, "non-empty strings")


def require(accepted: bool, name: str, expected: object, received: object) -> None:
    """Raise unless a setting or an argument has an accepted value.

    Args:
        accepted: Whether the value is accepted.
        name: The setting or argument.
        expected: What it must be: the words after "must be".
        received: The value.

    Raises:
        ConfigError: `accepted` is false.
    """
    if not accepted:
        raise ConfigError(f"`{name}` must be {expected}. Received: {received}.")


def require_within(limits: Limits | Check, name: str, value: Any) -> None:
    """Raise `ConfigError` about `name` unless `value` is None or within `limits`."""
    if value is None or (isinstance(limits, Limits) and isinstance(value, str)):
        return
    received = repr(value) if isinstance(value, str) else value
    require(limits.accepts(value), name, limits, received)


def _number(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:g}"
