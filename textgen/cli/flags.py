"""The flags of a command: their settings, aliases, and names in messages."""

import dataclasses
import re
from collections.abc import Container, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import tyro

# Flags of other tools for the same thing.
PEER_FLAGS = {
    "--rnn-size": "--hidden-size",
    "--seq-length": "--seq-len",
    "--primetext": "--prompt",
    "--start-text": "--prompt",
    "--prefix": "--prompt",
    "--length": "--max-new-tokens",
    "--max-gen-length": "--max-new-tokens",
    "-n": "--num-samples",
}
# Former names of our own flags, which keep working and appear in no help text.
RENAMED_FLAGS = {
    "--average": "--ema-decay",
    "--change-penalty": "--temporal-penalty",
    "--first-state": "--initial-state",
    "--gru-kernel": "--kernel",
    "--keep-bias": "--forget-bias",
    "--precision": "--matmul-dtype",
    "--state-reset": "--state-reset-probability",
    "--weights": "--weights-format",
}
ALIASES = PEER_FLAGS | RENAMED_FLAGS
# Former values of a flag, which keep working too.
RENAMED_VALUES = {("--initial-state", "learnt"): "learned"}

# Arguments of the Python interface whose flag has another name.
_FLAG_OF_ARGUMENT = {"num_beams": "--beams", "passes": "--adapt"}
_QUOTED = re.compile(r"`([a-z][a-z_0-9]*)(=[^`]*)?`")


@dataclass(frozen=True)
class Flag:
    """One flag of a command.

    Attributes:
        name: As it is typed, for example `--top-k`.
        owner: The dataclass that has its field.
        field: The name of that field.
    """

    name: str
    owner: type
    field: str

    @property
    def takes_text(self) -> bool:
        """Whether its value may be any text."""
        return str in _classes(get_type_hints(self.owner)[self.field])

    @property
    def is_switch(self) -> bool:
        """Whether it takes no value."""
        return get_type_hints(self.owner)[self.field] is bool

    @property
    def may_be_negated(self) -> bool:
        """Whether it is a switch with a `--no-` form, unless its command creates none."""
        hint = get_type_hints(self.owner, include_extras=True)[self.field]
        return self.is_switch and tyro.conf.FlagCreatePairsOff not in get_args(hint)


def flags_of(command: Any) -> dict[str, Flag]:
    """Return the flags of a command by name, including those of nested configurations.

    Args:
        command: The command's dataclass.

    Returns:
        The flags, without positional arguments.
    """
    return {flag.name: flag for flag in _flags(command)}


def canonical(word: str, flags: Container[str]) -> str:
    """Return a flag and its value under their current names, with dashes; other words unchanged.

    Args:
        word: For example `-n=3`.
        flags: The command's flags: an alias of a flag that the command lacks is unknown to it.

    Returns:
        For example `--num-samples=3`.
    """
    name, equals, value = word.partition("=")
    if not name.startswith("-"):
        return word
    name = name.replace("_", "-")
    current = ALIASES.get(name, name)
    name = current if current in flags else name
    return name + equals + RENAMED_VALUES.get((name, value), value)


def with_flags(message: str) -> str:
    """Return a message with its backquoted arguments as flags: --top-k for `top_k`."""

    def flag(match: re.Match[str]) -> str:
        name, value = match.group(1), match.group(2) or ""
        found = _FLAG_OF_ARGUMENT.get(name, "--" + name.replace("_", "-"))
        return found + value if found in all_flags() or name in _FLAG_OF_ARGUMENT else match.group()

    return _QUOTED.sub(flag, message)


@cache
def all_flags() -> frozenset[str]:
    """Return the flags of every command."""
    from textgen.cli import doctor, generate, info, score, train

    commands = (
        doctor.DoctorCommand,
        generate.GenerateCommand,
        info.InfoCommand,
        score.ScoreCommand,
        train.TrainCommand,
    )
    return frozenset(name for command in commands for name in flags_of(command))


def _flags(command: Any) -> Iterator[Flag]:
    hints = get_type_hints(command, include_extras=True)
    for field in dataclasses.fields(command):
        hint = hints[field.name]
        plain = get_args(hint)[0] if get_origin(hint) is Annotated else hint
        if dataclasses.is_dataclass(plain) and isinstance(plain, type):
            yield from _flags(plain)
        elif not (get_origin(hint) is Annotated and tyro.conf.Positional in get_args(hint)):
            yield Flag("--" + field.name.replace("_", "-"), command, field.name)


def _classes(hint: Any) -> set[Any]:
    parts = get_args(hint)
    return {hint} if not parts else set().union(*map(_classes, parts))
