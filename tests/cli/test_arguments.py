"""Parsing: values that begin with a dash, and one line for every form of mistake."""

import io
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


@pytest.mark.parametrize(
    "on_terminal, encoding", [(True, "utf-8"), (False, "utf-8"), (False, "latin-1")]
)
def test_a_mistake_reads_the_same_on_every_kind_of_output(monkeypatch, on_terminal, encoding):
    stdout = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    monkeypatch.setattr(stdout, "isatty", lambda: on_terminal)
    monkeypatch.setattr("sys.stdout", stdout)
    monkeypatch.setenv("TERM", "xterm")
    for words, message in [
        (["--size", "x"], "--size must be an integer. Received: x."),
        (["--kind", "third"], "--kind must be first or second. Received: third."),
        (["--size"], "--size needs a value."),
    ]:
        with pytest.raises(ConfigError) as caught:
            parse(Command, words, prog="program")
        assert str(caught.value) == f"{message} See program --help."


@pytest.mark.parametrize(
    "command, words, message",
    [
        (TrainCommand, ["--weights", "int8"], "--weights. Did you mean --tie-weights?"),
        (GenerateCommand, ["--batch-size", "4"], "--batch-size."),
        (GenerateCommand, ["--lenght", "4"], "--lenght. Did you mean --length?"),
        (TrainCommand, ["--no-overwrite"], "--no-overwrite. Did you mean --overwrite?"),
    ],
)
def test_an_unknown_flag_is_named_as_typed_and_only_flags_of_its_command_suggested(
    command, words, message
):
    with pytest.raises(ConfigError) as caught:
        parse(command, words, prog="program", switches=())
    assert str(caught.value) == f"Unknown flag. Received: {message} See program --help."


@pytest.mark.parametrize("word", ["--overwrite=True", "--residual=True", "--no-residual=True"])
def test_a_switch_takes_no_value(word):
    with pytest.raises(ConfigError, match=r"^--[\w-]+ takes no value. Received: True. See program"):
        parse(TrainCommand, [word], prog="program", switches=())


@pytest.mark.parametrize("words", [["positional"], ["--on", "yes"], ["--on=yes"]])
def test_other_mistakes_are_one_line_too(words):
    with pytest.raises(ConfigError) as caught:
        parse(Command, words, prog="program")
    assert "\n" not in str(caught.value) and "│" not in str(caught.value)


@pytest.mark.parametrize("word", ["-", "b.txt"])
def test_a_positional_argument_apart_from_the_others_is_named(word):
    words = ["a.txt", "--seed", "3", word]
    message = f"Arguments without a flag must be adjacent. Received: {word}. See program --help."
    for command in (TrainCommand, GenerateCommand):
        with pytest.raises(ConfigError) as caught:
            parse(command, words, prog="program")
        assert str(caught.value) == message


@pytest.mark.parametrize("word", ["-5", "---x"])
def test_other_words_with_a_dash_are_unknown_flags(word):
    with pytest.raises(ConfigError) as caught:
        parse(GenerateCommand, ["run", "--seed", "3", word], prog="program")
    assert str(caught.value) == f"Unknown flag. Received: {word}. See program --help."


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
        (["--preset", "--epochs", "1"], ""),
        (["--sample-prompt", "--preset"], ""),
        ([], None),
    ],
)
def test_the_value_of_one_flag_is_found(words, value):
    assert flag_value(TrainCommand, words, "--preset") == value
