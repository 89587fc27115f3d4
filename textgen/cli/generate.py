"""`generate`: write text with a trained model."""

import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import tyro

from textgen.bundle import Bundle, load
from textgen.cli.arguments import parse, run_and_rest
from textgen.config import SamplingConfig, UnknownPolicy
from textgen.corpora import decode_text
from textgen.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class GenerateCommand:
    """Write text with a trained model.

    Without a RUN the newest one under runs/ is taken. An empty prompt starts where a
    text begins. The prompt is printed before the text.
    """

    words: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="[RUN] [-]")] = ()
    """A run directory; and - to read the prompt from standard input."""
    prompt: str | None = None
    """The text to go on from."""
    prompt_file: Path | None = None
    """A UTF-8 file with the text to go on from."""
    num_samples: int = 1
    """How many texts to write (also -n)."""
    stream: bool = False
    """Print the text while it is written."""
    unknown: UnknownPolicy = "error"
    """What to do with a character of the prompt that the model never saw."""
    engine: Literal["auto", "numpy", "reference", "tensorflow"] = "auto"
    """Which implementation writes; all write the same."""
    sampling: SamplingConfig = field(default_factory=SamplingConfig)

    def __post_init__(self) -> None:
        if self.num_samples < 1:
            raise ConfigError(
                f"`num_samples` must be at least 1. Received: {self.num_samples}. Pass -n."
            )
        if self.stream and self.num_samples > 1:
            raise ConfigError("--stream shows one text while it is written. Leave out -n.")


def run(arguments: list[str], prog: str) -> int:
    """Write the texts to stdout."""
    command = parse(GenerateCommand, arguments, prog=prog)
    run_dir, rest = run_and_rest(command.words)
    prompt = _prompt(command, rest)
    bundle = load(run_dir.path, engine=command.engine)
    if command.stream:
        _stream(bundle, prompt, command)
    else:
        _print_all(bundle, prompt, command)
    return 0


def _prompt(command: GenerateCommand, rest: list[str]) -> str:
    """Return the prompt from the one place that names it."""
    if rest not in ([], ["-"]):
        raise ConfigError(
            f"Expected a RUN, a folder, and - at most. Received: {' '.join(command.words)}. "
            "A text to go on from is given with --prompt or --prompt-file."
        )
    given = [command.prompt is not None, command.prompt_file is not None, rest == ["-"]]
    if sum(given) > 1:
        raise ConfigError("The prompt is given twice. Pass one of --prompt, --prompt-file and -.")
    if command.prompt_file is not None:
        return _read_prompt(command.prompt_file)
    if rest:
        return decode_text(sys.stdin.buffer.read(), "standard input")
    return command.prompt or ""


def _read_prompt(path: Path) -> str:
    try:
        return decode_text(path.read_bytes(), str(path))
    except OSError as error:
        raise ConfigError(
            f"The prompt file {path} cannot be read: {error.strerror}. Pass --prompt-file."
        ) from error


def _stream(bundle: Bundle, prompt: str, command: GenerateCommand) -> None:
    pieces = bundle.stream(prompt, command.sampling, unknown=command.unknown)
    print(prompt, end="", flush=True)
    for piece in pieces:
        print(piece, end="", flush=True)
    print()


def _print_all(bundle: Bundle, prompt: str, command: GenerateCommand) -> None:
    texts = bundle.generate_many(
        prompt, command.num_samples, command.sampling, unknown=command.unknown
    )
    for number, text in enumerate(texts):
        if len(texts) > 1:
            print(f"{'' if number == 0 else chr(10)}--- {number + 1} ---")
        print(prompt + text)
