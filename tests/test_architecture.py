"""Imports point down the layers, and TensorFlow is imported only where it may be."""

import ast
import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

import textgen

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "textgen"

# Earlier names are lower; the names of one line may import those before them on it.
LAYERS = [
    [
        "version",
        "errors",
        "machine",
        "startup",
        "arrays",
        "storage",
        "metrics",
        "config",
        "presets",
    ],
    ["tokenizers", "corpora"],
    ["sampling", "models", "runs"],
    ["engines"],
    ["generation", "evaluation", "training", "inspection", "bundle"],
    ["cli"],
]
ORDER = [name for layer in LAYERS for name in layer]
MAY_IMPORT_TENSORFLOW = {"models", "training"}
TENSORFLOW = {"tensorflow", "keras", "tensorflow_datasets"}


# The same inside the package with the most modules.
GENERATION = ["stopping", "requests", "decoding", "restraints", "token_loop", "generator", "beam"]
GENERATION += ["calibration", "receipts"]
MODULE_NAME = re.compile(r"textgen(\.\w+)+")


def modules():
    return sorted(PACKAGE.rglob("*.py"))


def part_of(path, folder=PACKAGE):
    """The layer entry that a module belongs to: `training` for textgen/training/trainer.py."""
    return path.relative_to(folder).with_suffix("").parts[0]


def imports(path, *, top_level_only=False):
    """Every module that `path` imports, as dotted names; those named by a string included."""
    tree = ast.parse(path.read_text("utf-8"))
    nodes = tree.body if top_level_only else list(ast.walk(tree))
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            names = [alias.name for alias in node.names]
            yield from (f"textgen.{name}" for name in names if node.module == "textgen")
            if node.module != "textgen":
                yield node.module
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            # Such as the argument of importlib.import_module, or the start of an f-string.
            name = node.value.removesuffix(".")
            if MODULE_NAME.fullmatch(name) and exists(name):
                yield name


def exists(name):
    path = ROOT.joinpath(*name.split("."))
    return path.is_dir() or path.with_suffix(".py").is_file()


def relative(path):
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", modules(), ids=relative)
def test_imports_point_down_the_layers(path):
    part = part_of(path)
    if part in ("__init__", "__main__"):
        return
    for name in imports(path):
        if name.startswith("textgen."):
            target = name.split(".")[1]
            assert target in ORDER, f"{path} imports {name}, which is in no layer"
            assert ORDER.index(target) <= ORDER.index(part), f"{path} imports {name}: upwards"


def test_every_package_is_in_a_layer():
    parts = {part_of(path) for path in modules()} - {"__init__", "__main__"}
    assert parts == set(ORDER)


@pytest.mark.parametrize("path", sorted((PACKAGE / "generation").rglob("*.py")), ids=relative)
def test_imports_point_down_inside_generation(path):
    part = part_of(path, PACKAGE / "generation")
    if part == "__init__":
        return
    for name in imports(path):
        if name.startswith("textgen.generation."):
            assert GENERATION.index(name.split(".")[2]) <= GENERATION.index(part), name


def test_a_module_named_by_a_string_counts_as_imported(tmp_path):
    path = tmp_path / "module.py"
    path.write_text('NAME = f"textgen.cli.{x}"\nimport_module("textgen.engines.registry")\n')
    assert set(imports(path)) == {"textgen.engines.registry", "textgen.cli"}


@pytest.mark.parametrize("path", modules(), ids=relative)
def test_evaluation_does_not_import_generation(path):
    if part_of(path) == "evaluation":
        assert not any(name.startswith("textgen.generation") for name in imports(path))


def test_training_and_generation_do_not_import_each_other():
    for part, other in (("training", "generation"), ("generation", "training")):
        for path in (PACKAGE / part).rglob("*.py"):
            names = set(imports(path))
            assert not any(name.startswith(f"textgen.{other}") for name in names), path


@pytest.mark.parametrize("path", modules(), ids=relative)
def test_tensorflow_is_imported_where_it_may_be(path):
    names = {name.split(".")[0] for name in imports(path, top_level_only=True)}
    allowed = part_of(path) in MAY_IMPORT_TENSORFLOW or path == PACKAGE / "cli" / "progress.py"
    assert allowed or not names & TENSORFLOW


@pytest.mark.parametrize("path", modules(), ids=relative)
def test_only_the_command_line_prints(path):
    calls = [n for n in ast.walk(ast.parse(path.read_text("utf-8"))) if isinstance(n, ast.Call)]
    prints = [c for c in calls if isinstance(c.func, ast.Name) and c.func.id == "print"]
    assert not prints or part_of(path) == "cli"


def imported_by(code):
    """Run `code` in a process of its own; return the heavy packages it imported."""
    report = f"import sys; print('\\nheavy:', *({TENSORFLOW!r} & set(sys.modules)))"
    script = f"{code}\n{report}"
    result = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return result.stdout.rpartition("heavy:")[2].split()


def test_importing_the_package_imports_no_tensorflow():
    assert imported_by("import textgen, textgen.bundle, textgen.cli.generate") == []
    assert "tensorflow" in imported_by("import textgen; textgen.train")


@pytest.mark.parametrize("command", ["train", "generate", "score", "info", "doctor"])
def test_help_imports_no_tensorflow(command):
    code = f"""
from textgen.cli import main
try:
    main([{command!r}, "--help"], prog="textgen")
except SystemExit:
    pass
"""
    assert imported_by(code) == []


def test_generating_and_scoring_on_a_cpu_import_no_tensorflow(tiny_run):
    code = f"""
from textgen.cli import main
run = {str(tiny_run.path)!r}
assert main(["generate", run, "--max-new-tokens", "20", "--engine", "auto"], prog="t") == 0
assert main(["score", run, "--split", "validation"], prog="t") == 0
"""
    assert imported_by(code) == []


def test_public_names_are_sorted_documented_and_real():
    assert textgen.__all__ == sorted(textgen.__all__)
    assert set(textgen.__all__) == set(textgen._MODULE_OF)
    for name in textgen.__all__:
        assert getattr(textgen, name).__doc__, name
    with pytest.raises(AttributeError, match="no_such_name"):
        textgen.no_such_name  # noqa: B018


def test_every_module_says_what_it_is():
    for path in modules():
        assert ast.get_docstring(ast.parse(path.read_text("utf-8"))), path


def test_every_package_exports_names_that_exist():
    for folder in (p.parent for p in PACKAGE.rglob("__init__.py")):
        module = importlib.import_module(".".join(folder.relative_to(ROOT).parts))
        names = getattr(module, "__all__", [])
        assert len(set(names)) == len(names)
        assert all(hasattr(module, name) for name in names)
