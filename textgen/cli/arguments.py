"""Parsing of command-line words into a dataclass.

tyro creates the flags; this module adds what it lacks: flags of peer tools, former names of
flags, values that begin with a dash, and errors in one line with a suggestion.
"""

import contextlib
import io
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import tyro

from textgen.cli.flags import ALIASES, RENAMED_VALUES, Flag, canonical, flags_of
from textgen.config import describe_setting, suggestion
from textgen.errors import ConfigError
from textgen.runs import RunDirectory, newest_run

T = TypeVar("T")


def parse(
    command: type[T],
    arguments: Sequence[str],
    *,
    prog: str,
    default: T | None = None,
    switches: tuple[Any, ...] = (tyro.conf.FlagCreatePairsOff,),
) -> T:
    """Return the command's settings.

    Args:
        command: A dataclass; its fields become flags, the strings under them help texts.
        arguments: The words after the command's name.
        prog: The program and command as the user typed them, for the help text.
        default: Values of the flags that are not given; None: the dataclass's defaults.
        switches: tyro's markers for booleans. `()` gives each boolean a `--no-` form as well,
            which is needed where `default` may turn it on.

    Returns:
        The dataclass, checked.

    Raises:
        ConfigError: A flag is unknown, or its value has the wrong type or is out of range.
        SystemExit: `--help` was given and the help has been printed.
    """
    words = canonical_words(command, arguments)
    are_paired = tyro.conf.FlagCreatePairsOff not in switches
    _require_known_flags(command, words, prog, are_paired=are_paired)
    output = io.StringIO()
    try:
        with contextlib.redirect_stderr(output):
            return tyro.cli(
                command,
                prog=prog,
                args=words,
                default=command() if default is None else default,
                config=(tyro.conf.OmitArgPrefixes, *switches),
            )
    except SystemExit as end:
        if end.code in (0, None):
            raise
        message = _one_line(output.getvalue(), flags_of(command))
        raise ConfigError(f"{message} See {prog} --help.") from None


def canonical_words(command: type, arguments: Sequence[str]) -> list[str]:
    """Return the words with flags under their current names and text values joined to them.

    Args:
        command: The command's dataclass.
        arguments: The words after the command's name.

    Returns:
        The words. `--stop -END-` becomes `--stop=-END-`, since a text may begin with a dash.
    """
    flags = flags_of(command)
    words: list[str] = []
    rest = list(arguments)
    while rest:
        word = canonical(rest.pop(0), flags)
        flag = flags.get(word)
        if flag is None or flag.is_switch or not rest:
            words.append(word)
        elif word == "--prompt" or (flag.takes_text and _is_value(rest[0], flags)):
            words.append(f"{word}={rest.pop(0)}")
        else:
            value = rest.pop(0)
            words += [word, RENAMED_VALUES.get((word, value), value)]
    return words


def flag_value(command: type, arguments: Sequence[str], flag: str) -> str | None:
    """Return the last value given for `flag`, `""` if it has no value, None if it is absent."""
    words = canonical_words(command, arguments)
    flags = flags_of(command)
    found = None
    for index, word in enumerate(words):
        name, equals, value = word.partition("=")
        if name == flag and not equals:
            following = words[index + 1 : index + 2]
            value = following[0] if following and _is_value(following[0], flags) else ""
        if name == flag:
            found = value
    return found


def run_and_rest(words: Sequence[str]) -> tuple[RunDirectory, list[str]]:
    """Return the run that the first word names, else the newest run; and the other words.

    Args:
        words: Positional arguments. The first is a RUN unless it is `-` or an existing file.

    Returns:
        The run, and the words after it.

    Raises:
        RunError: No word names a run, and there is no run under runs/.
    """
    if words and words[0] != "-" and not Path(words[0]).is_file():
        return RunDirectory(Path(words[0])), list(words[1:])
    return newest_run(), list(words)


def _is_value(word: str, flags: dict[str, Flag]) -> bool:
    return canonical(word, flags).partition("=")[0] not in {*flags, "-h", "--help"}


def _require_known_flags(
    command: type, words: Sequence[str], prog: str, *, are_paired: bool
) -> None:
    """Raise `ConfigError` if a word is an unknown flag, or a switch with a value."""
    flags = flags_of(command)
    switches = {name for name, flag in flags.items() if flag.is_switch}
    switches |= {f"--no-{n[2:]}" for n, f in flags.items() if are_paired and f.may_be_negated}
    values = {i + 1 for i, w in enumerate(words) if w in flags and w not in switches}
    for index, word in enumerate(words):
        name, equals, value = word.partition("=")
        if index in values or not re.match(r"--?[a-zA-Z]", name):
            continue
        if name not in {*flags, *switches, "-h", "--help"}:
            aliases = [alias for alias, current in ALIASES.items() if current in flags]
            hint = suggestion(name, [*flags, *switches, *aliases])
            raise ConfigError(f"Unknown flag. Received: {name}.{hint} See {prog} --help.")
        if equals and name in switches:
            raise ConfigError(f"{name} takes no value. Received: {value}. See {prog} --help.")


def _one_line(box: str, flags: dict[str, Flag]) -> str:
    """Return the message in one of tyro's framed errors, with our names and choices."""
    text = _unframed(box)
    if match := re.match(r"Missing value for argument '(--[\w-]+)'", text):
        return f"{match.group(1)} needs a value."
    if match := re.match(r"Unrecognized options: (.*[^.])", text):
        words = match.group(1)
        is_flag = words.startswith("-") and not words.startswith("- ") and words != "-"
        expected = "Unknown flag" if is_flag else "Arguments without a flag must be adjacent"
        return f"{expected}. Received: {words}."
    patterns = (
        r"Error parsing (?P<flag>--[\w-]+): .*? from \['(?P<value>.*)'\]\.",
        r"Error parsing (?P<flag>--[\w-]+): .*: '(?P<value>.*)'\.?$",
        r"invalid choice '(?P<value>.*)' for argument '(?P<flag>--[\w-]+)'",
    )
    for pattern in patterns:
        match = re.match(pattern, text)
        if match and match["flag"] in flags:
            flag, value = flags[match["flag"]], match["value"]
            expected, choices = describe_setting(flag.owner, flag.field)
            hint = suggestion(value.lower(), choices)
            return f"{flag.name} must be {expected}. Received: {value}.{hint}"
    return text if text.endswith(".") else text + "."


def _unframed(box: str) -> str:
    """Return the text inside a frame, up to its first horizontal rule.

    On a terminal the frame is colored. Where stdout is not UTF-8, it has no sides, and a rule
    separates the title from the text.
    """
    lines = re.sub(r"\x1b\[[\d;]*m", "", box).splitlines()
    if not any(line.lstrip().startswith("╭") for line in lines):
        lines = lines[2:]
    lines = [re.sub(r"^[│|]\s?|\s*[│|]$", "", line) for line in lines]
    message: list[str] = []
    for line in lines:
        if re.match(r"^\s*[╭╰+]", line):
            continue
        if re.match(r"^\s*[─-]{5,}", line):
            break
        message.append(line.strip())
    return " ".join(message).partition(" Got errors:")[0].strip()
