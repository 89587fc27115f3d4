"""The command line that all benchmarks share."""

import argparse
from pathlib import Path
from typing import NamedTuple

from textgen.config import CorpusConfig
from textgen.corpora import read_corpus
from textgen.errors import TextgenError

# The corpus of benchmarks that train or count, unless another is given.
DEFAULT_SOURCE = "builtin:python-docs"


def benchmark_parser(description: str | None) -> argparse.ArgumentParser:
    """Return a parser with the two flags of every benchmark, `--quick` and `--json`.

    Args:
        description: The benchmark's docstring.

    Returns:
        A parser to which the benchmark adds its own arguments, all with defaults.
    """
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="end within two minutes")
    parser.add_argument(
        "--json", type=output_file, metavar="FILE", help="also write the figures as JSON"
    )
    return parser


def output_file(path: str) -> Path:
    """Return the path of a file to write; an argparse type.

    Raises:
        ArgumentTypeError: Its folder does not exist: the figures would be lost at the end.
    """
    file = Path(path)
    if not file.parent.is_dir():
        raise argparse.ArgumentTypeError(
            f"its folder must exist. Received: {path}. Create {file.parent} first."
        )
    return file


class Corpus(NamedTuple):
    """A text, and the name to show for it."""

    name: str
    text: str


def corpus(source: str) -> Corpus:
    """Return a corpus source as `train.py` reads it; an argparse type.

    Args:
        source: A UTF-8 file, or `builtin:NAME`.

    Returns:
        The text, not empty, and the name of the source without folder and suffix.

    Raises:
        ArgumentTypeError: The source cannot be read.
    """
    try:
        text = read_corpus(CorpusConfig(sources=(source,)))
    except TextgenError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    return Corpus(Path(source).stem, text)


def add_corpus(parser: argparse.ArgumentParser) -> None:
    """Add the optional argument `corpus`, a source of one text."""
    parser.add_argument(
        "corpus",
        nargs="?",
        type=corpus,
        default=DEFAULT_SOURCE,
        metavar="SOURCE",
        help=f"UTF-8 file (default: {DEFAULT_SOURCE})",
    )
