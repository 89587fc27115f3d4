"""The words of the style sheet: terms of the field instead of figures of speech."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
# A phrase to avoid, and what to write instead.
AVOID = {
    r"\bby heart\b": "overfit",
    r"\bpay(s|ing)? (for|a|the)\b|\b(a model|it) pays\b": "score, cost",
    r"(?<!look-)\bbehind\b": "after",
    r"\b(go|goes|going|went|gone) on\b": "continue, resume, advance",
    r"\b(stand|stands|stood|lie|lies) (in|on|at|beside|behind|under|there)\b": "is in, contains",
    r"\bby itself\b": "automatically, alone",
    r"\banew\b": "again",
    r"\bso many\b": "this many, a number of",
    r"\bcan(not| not) be had\b": "is unavailable",
    r"(?<![\"'`])\blearnt\b": "learned",
    r"\bunwatched\b": "on_progress",
    r"\bcosting\b": "score_from_nats",
    r"\bbegin_with_frequencies\b": "init_dense_bias",
    r"\bthe house\b|\brooms\b": "layers, packages",
    r"\b(whom?|what) (it|to) blames?\b|\bblames?\b": "reason",
}
RELATIVE_CLAUSE = re.compile(r"(What|How|When|Where|Which|Who)\b")
NOT_IMPERATIVE = re.compile(r"(Say|Tell|Go on|Let)\b")
THIS_FILE = Path(__file__)
PYTHON = sorted(
    path
    for folder in ("textgen", "benchmarks", "tests")
    for path in (ROOT / folder).rglob("*.py")
    if path != THIS_FILE
)
PROSE = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("data/*.md")])
NOTEBOOKS = sorted(ROOT.glob("notebooks/*.ipynb"))


def relative(path):
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", [*PYTHON, *PROSE, *NOTEBOOKS], ids=relative)
def test_terms_of_the_field_are_used(path):
    lines = path.read_text("utf-8").splitlines()
    found = [
        f"{relative(path)}:{number}: {match.group()!r}, better: {better}"
        for number, line in enumerate(lines, start=1)
        for phrase, better in AVOID.items()
        if (match := re.search(phrase, line))
    ]
    assert not found, "\n".join(found)


@pytest.mark.parametrize("path", PYTHON, ids=relative)
def test_module_docstrings_are_noun_phrases_and_function_docstrings_imperatives(path):
    tree = ast.parse(path.read_text("utf-8"))
    module = ast.get_docstring(tree)
    assert module, "a module needs a docstring"
    assert not RELATIVE_CLAUSE.match(module), module
    kinds = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
    for node in (node for node in ast.walk(tree) if isinstance(node, kinds)):
        docstring = ast.get_docstring(node) or ""
        is_class = isinstance(node, ast.ClassDef)
        pattern = RELATIVE_CLAUSE if is_class else NOT_IMPERATIVE
        assert not pattern.match(docstring), f"{node.name}: {docstring}"
