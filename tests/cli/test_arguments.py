"""Parsing: values that begin with a dash, and one line for every form of mistake."""

from dataclasses import dataclass
from typing import Literal

import pytest

from textgen.cli.arguments import canonical_words, flag_value, parse
from textgen.cli.generate import GenerateCommand
from textgen.cli.train import TrainCommand
from textgen.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Command:
    """Do something."""

    count: int | None = None
    """A count."""
    size: int = 1
    """A size."""
    rate: float | Literal["auto"] = 0.5
    """A rate."""
    kind: Literal["first", "second"] = "first"
    """A kind."""
    text: str = ""
    """A text."""
    on: bool = False
    """A switch."""


@pytest.mark.parametrize(
    "words, message",
    [
        (["--size", "x"], "--size must be an integer. Received: x."),
        (["--size", "1.5"], "--size must be an integer. Received: 1.5."),
        (["--count", "x"], "--count must be an integer, or None. Received: x."),
        (["--rate", "0,7"], "--rate must be a number or auto. Received: 0,7."),
        (["--rate", "atuo"], "--rate must be a number or auto. Received: atuo. Did you mean auto?"),
        (
            ["--kind", "FIRST"],
            "--kind must be first or second. Received: FIRST. Did you mean first?",
        ),
        (["--kind=third"], "--kind must be first or second. Received: third."),
        (["--size"], "--size needs a value."),
        (["--sise", "3"], "Unknown flag. Received: --sise. Did you mean --size?"),
        (["-q"], "Unknown flag. Received: -q."),
    ],
)
def test_each_form_of_mistake_is_one_line(words, message):
    with pytest.raises(ConfigError) as caught:
        parse(Command, words, prog="program")
    assert str(caught.value) == f"{message} See program --help."


@pytest.mark.parametrize("words", [["positional"], ["--on", "yes"], ["--on=yes"]])
def test_other_mistakes_are_one_line_too(words):
    with pytest.raises(ConfigError) as caught:
        parse(Command, words, prog="program")
    assert "\n" not in str(caught.value) and "│" not in str(caught.value)


def test_values_arrive():
    words = ["--size=3", "--rate", "auto", "--kind", "second", "--text", "-x-", "--on"]
    expected = Command(size=3, rate="auto", kind="second", text="-x-", on=True)
    assert parse(Command, words, prog="program") == expected


def test_texts_may_begin_with_a_dash():
    words = ["--stop", "-END-", "--ban", "-a", "--prompt", "--top-k", "--top-k", "4"]
    command = parse(GenerateCommand, words, prog="program")
    assert command.sampling.stop == ("-END-",)
    assert command.sampling.ban == ("-a",)
    assert (command.prompt, command.sampling.top_k) == ("--top-k", 4)


def test_a_flag_is_not_taken_for_the_value_of_another():
    assert canonical_words(TrainCommand, ["--document-end", "--overwrite"]) == [
        "--document-end",
        "--overwrite",
    ]


@pytest.mark.parametrize(
    "words, value",
    [
        (["--preset", "demo"], "demo"),
        (["--preset=demo"], "demo"),
        (["--preset", "demo", "--preset", "code"], "code"),
        (["--preset"], ""),
        (["--sample-prompt", "--preset"], None),
        ([], None),
    ],
)
def test_the_value_of_one_flag_is_found(words, value):
    found = flag_value(TrainCommand, words, "--preset")
    assert found == value or (value is None and words and found == "")
