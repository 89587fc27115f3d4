"""`score`: score a text with a trained model."""

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated

import tyro
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from textgen.bundle import Bundle, load
from textgen.cli.arguments import parse, run_and_rest
from textgen.config import CorpusConfig, ScoringProtocol, Split, UnknownPolicy
from textgen.corpora import read_corpus
from textgen.errors import ConfigError, TextgenError
from textgen.evaluation import OnProgress, join_scores
from textgen.metrics import TextScore

_LABELS = {
    "nats_per_char": "nats per character",
    "bits_per_char": "bits per character",
    "bits_per_byte": "bits per byte",
    "loss": "nats per token",
}
_COLUMNS = {
    "nats_per_char": "nats/char",
    "bits_per_char": "bits/char",
    "bits_per_byte": "bits/byte",
    "perplexity": "perplexity",
    "loss": "nats/token",
    "characters": "characters",
}


@dataclass(frozen=True, kw_only=True)
class ScoreCommand:
    """Score texts: nats and bits per character, perplexity.

    Without a RUN, the newest one under runs/ is used. Several files are separate texts: each is
    scored from its start, in a table that ends with a row for all of them. (train joins its files
    into one text; to score such a text, pipe the files together and pass -.)
    """

    words: Annotated[
        tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="[RUN] [FILE ...]")
    ] = ()
    """A run directory; and text files, or - for standard input."""
    split: Split | None = None
    """Score a split of the run's own corpus instead of files."""
    protocol: ScoringProtocol = "carried"
    """carried: one pass with carried state (a long text in parallel lanes), as in validation;
    windows: windows of 256 tokens, each from the initial state, as transformers are evaluated;
    dynamic: train on every 64 tokens after scoring them."""
    unknown: UnknownPolicy = "error"
    """What to do with a character that the vocabulary lacks."""
    json: bool = False
    """Print one JSON object, or for several files a list of objects with "file"."""


def run(arguments: list[str], prog: str) -> int:
    """Print the score to stdout."""
    command = parse(ScoreCommand, arguments, prog=prog)
    run_dir, files = run_and_rest(command.words)
    if bool(files) == (command.split is not None):
        raise ConfigError("Pass either text files or --split validation (or train).")
    bundle = load(run_dir.path)
    if len(files) > 1:
        _print_all(files, [_score_named(bundle, name, command) for name in files], command)
    else:
        score = (
            _score_split(bundle, command.split, command.protocol)
            if command.split is not None
            else _score_file(bundle, files[0], command)
        )
        print(json.dumps(score.as_dict()) if command.json else _list(score))
    if not command.words or run_dir.path.as_posix() != command.words[0]:
        print(f"run: {run_dir.path}", file=sys.stderr)
    return 0


def _score_split(bundle: Bundle, split: Split, protocol: ScoringProtocol) -> TextScore:
    with _bar(split) as on_progress:
        return bundle.score_split(split, protocol, on_progress)


def _score_file(bundle: Bundle, name: str, command: ScoreCommand, label: str = "") -> TextScore:
    text = read_corpus(CorpusConfig(sources=(name,)))
    with _bar(name) as on_progress:
        score = bundle.score(
            text, unknown=command.unknown, protocol=command.protocol, on_progress=on_progress
        )
    _note_unknown(bundle, text, label)
    return score


@contextmanager
def _bar(label: str) -> Iterator[OnProgress]:
    """Show a progress bar with the time left, on a terminal only."""
    console = Console(stderr=True)
    columns = TextColumn("{task.description}", markup=False), BarColumn(), TimeRemainingColumn()
    with Progress(
        *columns, console=console, transient=True, disable=not console.is_terminal
    ) as progress:
        task = progress.add_task(label, total=1.0)
        yield lambda fraction: progress.update(task, completed=fraction)


def _score_named(bundle: Bundle, name: str, command: ScoreCommand) -> TextScore:
    """Score one of several files; an error names it."""
    try:
        return _score_file(bundle, name, command, f"{name}: ")
    except TextgenError as error:
        raise type(error)(f"{name}: {error}") from error


def _note_unknown(bundle: Bundle, text: str, label: str) -> None:
    """Report characters that the vocabulary lacks, which make a score too low.

    Skipped characters cost nothing, and those that become UNK cost little.
    """
    tokenizer = bundle.tokenizer
    unknown = len(text) - len(tokenizer.decode(tokenizer.encode(text, "skip")))
    if unknown:
        counts = f"{unknown:,} of {len(text):,}"
        print(f"{label}{counts} characters are not in the vocabulary", file=sys.stderr)


def _print_all(files: Sequence[str], scores: Sequence[TextScore], command: ScoreCommand) -> None:
    if command.json:
        rows = zip(files, scores, strict=True)
        print(json.dumps([{"file": name, **score.as_dict()} for name, score in rows]))
    else:
        print(_table([*files, "all"], [*scores, join_scores(scores)]))


def _list(score: TextScore) -> str:
    rows = [(_figure(value), _LABELS.get(name, name)) for name, value in score.as_dict().items()]
    width = max(len(value) for value, _ in rows)
    return "\n".join(f"{value:>{width}}  {name}" for value, name in rows)


def _table(names: Sequence[str], scores: Sequence[TextScore]) -> str:
    """Return a table with one row per text."""
    rows = [["file", *_COLUMNS.values()]]
    for name, score in zip(names, scores, strict=True):
        values = score.as_dict()
        rows.append([name, *(_figure(values[column]) for column in _COLUMNS)])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(
            [row[0].ljust(widths[0])]
            + [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
        )
        for row in rows
    )


def _figure(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:.4f}"
