"""Optional packages: what runs without them, and the message where one is needed."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from textgen.errors import DependencyError
from textgen.startup import import_tensorflow_quietly, require_extra

ROOT = Path(__file__).resolve().parents[1]
OPTIONAL = (
    "keras",
    "outlines_core",
    "psutil",
    "sentencepiece",
    "tensorboard",
    "tensorflow",
    "tensorflow_datasets",
)
BLOCK = f"""
import sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {OPTIONAL}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Blocker())
"""


def run_without_optional_packages(code):
    """Run `code` in a process of its own where no optional package can be imported."""
    return subprocess.run(
        [sys.executable, "-c", BLOCK + code],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def test_an_existing_character_run_generates_and_scores_without_optional_packages(tiny_run, text):
    code = f"""
import json
import textgen

sampling = textgen.SamplingConfig(max_new_tokens=30, top_k=5, repetition_penalty=1.1)
found = {{}}
for engine in ("numpy", "onnx", "auto"):
    model = textgen.load({str(tiny_run.path)!r}, engine=engine)
    found[engine] = [
        model.generate("12 green", sampling),
        model.score({text[:300]!r}).loss,
        len(model.surprise("7 green")),
        model.search("1", 2, textgen.SamplingConfig(max_new_tokens=4))[0].text,
    ]
print(json.dumps(found))
"""
    result = run_without_optional_packages(code)
    assert result.returncode == 0, result.stderr
    found = json.loads(result.stdout)
    assert found["numpy"][0] == found["onnx"][0] == found["auto"][0]
    assert found["numpy"][1] == pytest.approx(found["onnx"][1], rel=1e-4)


@pytest.mark.parametrize(
    "words", [["generate", "--max-new-tokens", "5"], ["score", "--split", "validation"], ["info"]]
)
def test_commands_on_an_existing_run_need_no_optional_package(tiny_run, words):
    code = f"""
from textgen.cli import main
command, *options = {words!r}
sys.exit(main([command, {str(tiny_run.path)!r}, *options], prog="textgen"))
"""
    result = run_without_optional_packages(code)
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize(
    "code, package, extra",
    [
        ("import textgen; textgen.train", "tensorflow", "train"),
        ("from textgen.startup import import_tensorflow_quietly as f; f()", "tensorflow", "train"),
    ],
)
def test_the_message_names_the_package_and_the_command_that_installs_it(code, package, extra):
    result = run_without_optional_packages(code)
    assert result.stderr.splitlines()[-1] == (
        f"textgen.errors.DependencyError: This needs {package}, which is not installed. "
        f'Install it with: pip install "textgen[{extra}]"'
    )


def test_an_installed_package_is_returned():
    assert require_extra("json", "train") is json


def test_a_package_that_lacks_one_of_its_own_is_named_after_what_is_missing(tmp_path, monkeypatch):
    (tmp_path / "half_installed.py").write_text("import no_such_module.inside")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(DependencyError, match=r"needs no_such_module,.*textgen\[tfds\]"):
        require_extra("half_installed", "tfds")


def test_other_errors_of_an_import_are_not_hidden(tmp_path, monkeypatch):
    (tmp_path / "broken_module.py").write_text("raise OSError('no library')")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(OSError, match="no library"):
        require_extra("broken_module", "train")


def test_tensorflow_is_imported_once_and_stderr_works_afterwards(capfd):
    import_tensorflow_quietly()
    import_tensorflow_quietly()
    sys.stderr.write("after\n")
    assert capfd.readouterr().err == "after\n"
    assert "tensorflow" in sys.modules
