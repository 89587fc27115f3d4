"""The commands of `python -m textgen`, and the only place that prints.

Text goes to stdout, everything else to stderr. An error is one line and exit code 2;
Ctrl-C is exit code 130. A command imports what it runs when it runs, so that
`--help` answers at once.
"""

import importlib
import io
import logging
import os
import sys
from collections.abc import Sequence

from textgen.errors import TextgenError
from textgen.version import __version__

COMMANDS = {
    "train": "train a model on a text, or go on with a run",
    "generate": "write text with a trained model",
    "score": "tell what a model pays for a text: bits per character, perplexity",
    "info": "show what a run holds",
    "doctor": "tell what this machine computes with, and which kernel runs",
}


def main(argv: Sequence[str], *, prog: str) -> int:
    """Run one command.

    Args:
        argv: The command's name and its arguments.
        prog: What the user typed before them, for the help text.

    Returns:
        The exit code: 0, 2 for an error of the user's, 130 for Ctrl-C.
    """
    if argv and argv[0] == "--version":
        print(__version__)
        return 0
    if not argv or argv[0] in ("-h", "--help"):
        print(_overview(prog))
        return 0
    name, arguments = argv[0], list(argv[1:])
    if name not in COMMANDS:
        print(
            f"error: Unknown command. Known: {', '.join(COMMANDS)}. Received: {name}.",
            file=sys.stderr,
        )
        return 2
    if isinstance(sys.stdout, io.TextIOWrapper):
        # a terminal that cannot show a character of the text gets a question mark
        sys.stdout.reconfigure(errors="replace")
    logging.basicConfig(format="%(message)s", stream=sys.stderr)
    logging.getLogger("textgen").setLevel(logging.INFO)
    return _guarded(name, arguments, prog if prog.endswith(".py") else f"{prog} {name}")


def _guarded(name: str, arguments: list[str], prog: str) -> int:
    """Run the command `name`; turn what it raises into a line and an exit code."""
    try:
        code: int = importlib.import_module(f"textgen.cli.{name}").run(arguments, prog)
        sys.stdout.flush()
        return code
    except TextgenError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(file=sys.stderr)
        return 130
    except BrokenPipeError:
        # whoever read our output (head, less) has enough; keep the exit quiet
        _silence_stdout()
        return 0
    except OSError as error:
        _silence_stdout()
        print(f"error: {error.strerror or error}: {error.filename or 'output'}.", file=sys.stderr)
        return 2


def _silence_stdout() -> None:
    """Send what is still to be flushed nowhere, so that the interpreter's exit is quiet."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def _overview(prog: str) -> str:
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {what}" for name, what in COMMANDS.items()]
    return "\n".join(
        [f"usage: {prog} COMMAND [OPTIONS]", "", *lines, "", f"{prog} COMMAND --help tells more."]
    )
