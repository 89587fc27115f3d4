"""`score`: what a model pays for a text."""

import json
import sys
from dataclasses import dataclass
from typing import Annotated, Literal

import tyro

from textgen.bundle import Bundle, load
from textgen.cli.arguments import parse, run_and_rest
from textgen.config import CorpusConfig, UnknownPolicy
from textgen.corpora import read_corpus
from textgen.errors import ConfigError
from textgen.metrics import TextScore

_LABELS = {
    "nats_per_char": "nats per character",
    "bits_per_char": "bits per character",
    "bits_per_byte": "bits per byte",
    "loss": "nats per token",
}


@dataclass(frozen=True, kw_only=True)
class ScoreCommand:
    """Tell what a model pays for a text, in one pass with carried state (a long text in lanes).

    Without a RUN the newest one under runs/ is taken. Several files are scored as one
    text, as `train` reads them.
    """

    words: Annotated[
        tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="[RUN] [FILE ...]")
    ] = ()
    """A run directory; and text files, or - for standard input."""
    split: Literal["validation", "train"] | None = None
    """Score a split of the run's own corpus instead of files."""
    unknown: UnknownPolicy = "error"
    """What to do with a character that the model never saw."""
    json: bool = False
    """Print one JSON object."""


def run(arguments: list[str], prog: str) -> int:
    """Print the score to stdout."""
    command = parse(ScoreCommand, arguments, prog=prog)
    run_dir, files = run_and_rest(command.words)
    if bool(files) == (command.split is not None):
        raise ConfigError("Pass text files, or --split validation (or train), and not both.")
    bundle = load(run_dir.path)
    if command.split is not None:
        score = bundle.score_split(command.split)
    else:
        text = read_corpus(CorpusConfig(sources=tuple(files)))
        score = bundle.score(text, unknown=command.unknown)
        _note_unknown(bundle, text)
    print(json.dumps(score.as_dict()) if command.json else _table(score))
    if not command.words or run_dir.path.as_posix() != command.words[0]:
        print(f"run: {run_dir.path}", file=sys.stderr)
    return 0


def _note_unknown(bundle: Bundle, text: str) -> None:
    """Say how much of the text the model has never seen: it costs nothing, or little, as UNK."""
    tokenizer = bundle.tokenizer
    unknown = len(text) - len(tokenizer.decode(tokenizer.encode(text, "skip")))
    if unknown:
        print(f"{unknown:,} of {len(text):,} characters are unknown to the model", file=sys.stderr)


def _table(score: TextScore) -> str:
    rows = [
        (f"{value:,}" if isinstance(value, int) else f"{value:.4f}", _LABELS.get(name, name))
        for name, value in score.as_dict().items()
    ]
    width = max(len(value) for value, _ in rows)
    return "\n".join(f"{value:>{width}}  {name}" for value, name in rows)
