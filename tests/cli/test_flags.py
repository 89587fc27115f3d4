"""Flags: every one that a message, a help text or a document names exists."""

import ast
import re
from pathlib import Path

import pytest

from textgen.cli.flags import (
    ALIASES,
    PEER_FLAGS,
    RENAMED_FLAGS,
    all_flags,
    canonical,
    flags_of,
    with_flags,
)
from textgen.cli.train import TrainCommand

ROOT = Path(__file__).resolve().parents[2]
FLAG = re.compile(r"(?<![\w-])--[a-z][a-z0-9_-]*[a-z0-9]")
# Flags of other programs that documents name.
OTHER_PROGRAMS = {
    "--no-build-isolation",  # pip
    "--strict",  # mypy
    "--all-files",  # pre-commit
    "--import-mode",  # pytest
    "--no-deps",  # pip
    "--require-hashes",  # pip
    "--upgrade",  # pip
}
SOURCES = sorted((ROOT / "textgen").rglob("*.py"))
DOCUMENTS = sorted(
    path
    for folder, pattern in (
        (".", "*.md"),
        ("docs", "*.md"),
        ("data", "*.md"),
        ("notebooks", "*.ipynb"),
    )
    for path in (ROOT / folder).glob(pattern)
)


def known_flags():
    switches = {
        "--no-" + name[2:] for name, flag in flags_of(TrainCommand).items() if flag.is_switch
    }
    return all_flags() | switches | {"--help", "--version"}


def benchmark_flags():
    """Flags that the benchmarks define for themselves."""
    sources = (path.read_text("utf-8") for path in (ROOT / "benchmarks").rglob("*.py"))
    return {
        flag for source in sources for flag in re.findall(r'add_argument\(\s*"(--[\w-]+)"', source)
    }


def texts_of(path):
    """Every string in a Python file."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_flag_in_the_source_exists(path):
    named = {flag for text in texts_of(path) for flag in FLAG.findall(text)}
    aliases = set(ALIASES) if path.name == "flags.py" else set()
    assert named <= known_flags() | benchmark_flags() | aliases | {"--no"}


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_flag_in_a_document_exists(path):
    named = set(FLAG.findall(path.read_text("utf-8")))
    aliases = set(ALIASES) if path.name == "CHANGELOG.md" else set()
    assert named <= known_flags() | benchmark_flags() | OTHER_PROGRAMS | aliases


@pytest.mark.parametrize(
    "path",
    [path for path in SOURCES if path.relative_to(ROOT).parts[1] not in ("cli", "config")],
    ids=lambda path: str(path.relative_to(ROOT)),
)
def test_the_library_names_arguments_and_not_flags(path):
    """A caller from Python has no flags; the command line translates the arguments."""
    raised = [
        node for node in ast.walk(ast.parse(path.read_text("utf-8"))) if isinstance(node, ast.Raise)
    ]
    for node in raised:
        for part in ast.walk(node):
            if isinstance(part, ast.Constant) and isinstance(part.value, str):
                assert not FLAG.search(part.value), part.value


def test_every_alias_is_a_flag_of_a_command_and_no_flag_itself():
    assert set(ALIASES.values()) <= all_flags()
    assert not set(ALIASES) & all_flags()
    assert not set(PEER_FLAGS) & set(RENAMED_FLAGS)


@pytest.mark.parametrize(
    "word, expected",
    [
        ("--gru_kernel=fused", "--kernel=fused"),
        ("--first-state=" + "learnt", "--initial-state=learned"),
        ("--hidden_size", "--hidden-size"),
        # Flags of another command.
        ("--weights=int8", "--weights=int8"),
        ("-n", "-n"),
        ("-", "-"),
        ("a_b.txt", "a_b.txt"),
    ],
)
def test_words_are_brought_to_present_names(word, expected):
    assert canonical(word, flags_of(TrainCommand)) == expected


@pytest.mark.parametrize(
    "message, expected",
    [
        ("`top_k` must be at least 1.", "--top-k must be at least 1."),
        ("Set `unknown=skip`.", "Set --unknown=skip."),
        ("`passes` must be 1.", "--adapt must be 1."),
        ("Call `textgen.load` or `no_such_name`.", "Call `textgen.load` or `no_such_name`."),
    ],
)
def test_arguments_in_messages_become_flags(message, expected):
    assert with_flags(message) == expected
