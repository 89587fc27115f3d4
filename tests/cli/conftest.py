"""Fixtures of the command-line tests."""

import pytest

from textgen.cli import main


@pytest.fixture
def run_command(capfd):
    """Return a function that runs a command in this process: exit code, stdout, stderr."""

    def run(*arguments):
        try:
            code = main(list(map(str, arguments)), prog="textgen")
        except SystemExit as end:
            code = end.code or 0
        out, err = capfd.readouterr()
        return code, out, err

    return run


@pytest.fixture
def corpus_file(text, tmp_path):
    """A text file that trains in a second."""
    path = tmp_path / "bottles.txt"
    path.write_text(text, "utf-8")
    return path
