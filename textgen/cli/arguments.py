"""From command-line words to a dataclass: tyro makes the flags, this makes it ours.

Nested configurations give flat flags, the flags of peer tools are understood, and a
mistake is one line.
"""

import contextlib
import io
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import tyro

from textgen.errors import ConfigError
from textgen.runs import RunDirectory, newest_run

T = TypeVar("T")

PEER_FLAGS = {
    "--rnn-size": "--hidden-size",
    "--rnn_size": "--hidden-size",
    "--seq-length": "--seq-len",
    "--seq_length": "--seq-len",
    "--primetext": "--prompt",
    "--start-text": "--prompt",
    "--prefix": "--prompt",
    "--length": "--max-new-tokens",
    "--max-gen-length": "--max-new-tokens",
    "-n": "--num-samples",
}


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
        command: A dataclass; its fields become flags, their strings the help texts.
        arguments: The words after the command's name.
        prog: What the user typed, for the help text.
        default: Values for what the words leave out; None: the dataclass's own.
        switches: How tyro makes flags of booleans; without any, each has a `--no-` as well,
            which defaults that are on need.

    Returns:
        The dataclass, its checks passed.

    Raises:
        ConfigError: A flag is unknown or its value does not fit.
        SystemExit: `--help` was asked for and has been printed.
    """
    words = [_as_ours(word) for word in _with_prompt(arguments)]
    complaint = io.StringIO()
    try:
        with contextlib.redirect_stderr(complaint):
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
        raise ConfigError(f"{_in_one_line(complaint.getvalue())} See {prog} --help.") from None


def _as_ours(word: str) -> str:
    flag, equals, value = word.partition("=")
    return PEER_FLAGS.get(flag, flag) + equals + value


def _with_prompt(words: Sequence[str]) -> list[str]:
    """Tie a prompt to its flag, so that one that looks like a flag is not taken for one."""
    flags = ("--prompt", *(peer for peer, ours in PEER_FLAGS.items() if ours == "--prompt"))
    at = next((i for i, word in enumerate(words[:-1]) if word in flags), None)
    if at is None:
        return list(words)
    return [*words[:at], f"--prompt={words[at + 1]}", *words[at + 2 :]]


def _in_one_line(box: str) -> str:
    """Return the message of one of tyro's framed errors, which ends at the first rule."""
    lines = [re.sub(r"^[│|]\s?|\s*[│|]$", "", line) for line in box.splitlines()]
    message: list[str] = []
    for line in lines:
        if re.match(r"^\s*[╭╰+]", line):
            continue
        if re.match(r"^\s*[─-]{5,}", line):
            break
        message.append(line.strip())
    text = " ".join(message).partition(" Got errors:")[0]
    return text if text.endswith(".") else text + "."


def run_and_rest(words: Sequence[str]) -> tuple[RunDirectory, list[str]]:
    """Take the RUN from the front of positional words; where there is none, the newest run.

    Args:
        words: Positional arguments. The first is a RUN unless it is `-` or an existing file.

    Returns:
        The run, and the words behind it.
    """
    if words and words[0] != "-" and not Path(words[0]).is_file():
        return RunDirectory(Path(words[0])), list(words[1:])
    return newest_run(), list(words)
