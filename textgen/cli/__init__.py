"""The commands of `textgen`, and the only package that prints.

Text goes to stdout, everything else to stderr. An error is one line and exit code 2; Ctrl-C is
exit code 130. A command imports what it runs when it runs, so that `--help` is printed at once.
"""

import importlib
import io
import logging
import os
import sys
from collections.abc import Sequence

from textgen.config import suggestion
from textgen.errors import TextgenError
from textgen.version import __version__

COMMANDS = {
    "train": "train a model on a text, or resume a run",
    "generate": "generate text with a trained model",
    "score": "score a text: bits per character and perplexity",
    "info": "describe a run",
    "doctor": "report hardware, library versions and the kernel in use",
}


def entry_point() -> int:
    """Run the command line of the installed program `textgen`."""
    return main(sys.argv[1:], prog="textgen")


def main(argv: Sequence[str], *, prog: str) -> int:
    """Run one command.

    Args:
        argv: The command's name and its arguments.
        prog: The program as the user typed it, for the help text.

    Returns:
        The exit code: 0, 2 for a user's error, 130 for Ctrl-C.
    """
    if argv and argv[0] == "--version":
        print(__version__)
        return 0
    if not argv or argv[0] in ("-h", "--help"):
        print(_overview(prog))
        return 0
    name, arguments = argv[0], list(argv[1:])
    if name not in COMMANDS:
        hint = suggestion(name, COMMANDS)
        known = ", ".join(COMMANDS)
        print(f"error: Unknown command. Known: {known}. Received: {name}.{hint}", file=sys.stderr)
        return 2
    if isinstance(sys.stdout, io.TextIOWrapper):
        # Print a question mark for a character that the terminal's encoding lacks.
        sys.stdout.reconfigure(errors="replace")
    _log_to_stderr()
    return _guarded(name, arguments, prog if prog.endswith(".py") else f"{prog} {name}")


class _FlagFormatter(logging.Formatter):
    """Formats messages with arguments named as flags."""

    def format(self, record: logging.LogRecord) -> str:
        return _with_flags(super().format(record))


def _log_to_stderr() -> None:
    logging.basicConfig(stream=sys.stderr)
    for handler in logging.getLogger().handlers:
        if type(handler) is logging.StreamHandler:
            handler.setFormatter(_FlagFormatter("%(message)s"))
    logging.getLogger("textgen").setLevel(logging.INFO)


def _guarded(name: str, arguments: list[str], prog: str) -> int:
    """Run the command `name` and return its exit code; print an exception as one line."""
    try:
        code: int = importlib.import_module(f"textgen.cli.{name}").run(arguments, prog)
        sys.stdout.flush()
        return code
    except TextgenError as error:
        print(f"error: {_with_flags(str(error))}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(file=sys.stderr)
        return 130
    except BrokenPipeError:
        # The reader of the output (head, less) has closed it.
        _silence_stdout()
        return 0
    except OSError as error:
        _silence_stdout()
        print(f"error: {error.strerror or error}: {error.filename or 'output'}.", file=sys.stderr)
        return 2


def _with_flags(message: str) -> str:
    from textgen.cli.flags import with_flags

    return with_flags(message)


def _silence_stdout() -> None:
    """Discard unflushed output, so that the interpreter exits without a message."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def _overview(prog: str) -> str:
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {what}" for name, what in COMMANDS.items()]
    return "\n".join(
        [f"usage: {prog} COMMAND [OPTIONS]", "", *lines, "", f"See {prog} COMMAND --help."]
    )
