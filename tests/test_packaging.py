"""The package as declared, locked, built and installed: the wheel in a bare environment."""

import ast
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import textgen
from textgen.tokenizers.subword import train_subwords

ROOT = Path(__file__).resolve().parents[1]
SCRIPTS = "Scripts" if os.name == "nt" else "bin"
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
LOCKS = ("requirements.lock", "requirements-dev.lock")
PIN = re.compile(r"^([\w.-]+)==(\S+)(?: ; .*)? \\\n(?:    --hash=sha256:[0-9a-f]{64}.*\n)+", re.M)
DISTRIBUTIONS = metadata.packages_distributions()


def requirements_of(*extras):
    """Requirements of the core and of some extras, those they refer to included."""
    project = PYPROJECT["project"]
    found = [] if extras else project["dependencies"]
    for extra in extras:
        for line in project["optional-dependencies"][extra]:
            requirement = Requirement(line)
            own = canonicalize_name(requirement.name) == "textgen"
            found = [*found, *(requirements_of(*requirement.extras) if own else [line])]
    return found


def requirements_of_group(name):
    """Requirements of a dependency group, those of the groups it includes too."""
    for item in PYPROJECT["dependency-groups"][name]:
        if isinstance(item, str):
            yield item
        else:
            yield from requirements_of_group(item["include-group"])


def read_lock(name):
    """What a lock file pins: lists of versions by canonical name."""
    pins = {}
    for package, version in PIN.findall((ROOT / name).read_text("utf-8")):
        pins.setdefault(canonicalize_name(package), []).append(version)
    return pins


@pytest.mark.parametrize("name", LOCKS)
def test_a_lock_pins_with_hashes_and_names_no_index(name):
    text = (ROOT / name).read_text("utf-8")
    pins = read_lock(name)
    assert sum(map(len, pins.values())) == len(re.findall(r"^[A-Za-z0-9]\S*==", text, re.M)) > 30
    assert "://" not in text
    assert not re.search(r"^-", text, re.M)


@pytest.mark.parametrize(
    ("name", "extras", "groups"),
    [
        ("requirements.lock", ["all"], ["build"]),
        ("requirements-dev.lock", ["all", "notebooks"], ["dev"]),
    ],
)
def test_a_lock_is_that_of_the_declared_requirements(name, extras, groups):
    pins = read_lock(name)
    declared = [*requirements_of(), *requirements_of(*extras)]
    for line in [*declared, *(line for group in groups for line in requirements_of_group(group))]:
        requirement = Requirement(line)
        versions = pins[canonicalize_name(requirement.name)]
        assert all(requirement.specifier.contains(version) for version in versions), line


def test_the_lock_for_tests_contains_the_lock_for_the_commands():
    everything = read_lock("requirements-dev.lock")
    for name, versions in read_lock("requirements.lock").items():
        assert everything[name] == versions


def distributions_of(package):
    return {canonicalize_name(name) for name in DISTRIBUTIONS.get(package, ())}


def names_of(requirements):
    return {canonicalize_name(Requirement(line).name) for line in requirements}


@pytest.mark.parametrize(
    "path", sorted((ROOT / "textgen").rglob("*.py")), ids=lambda path: str(path.relative_to(ROOT))
)
def test_every_import_is_declared(path):
    extras = PYPROJECT["project"]["optional-dependencies"]
    everything = names_of([*requirements_of(), *requirements_of(*extras)])
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        names, declared = [], everything
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module]
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("require_extra"):
            package, extra = (argument.value for argument in node.args)
            names, declared = [package], names_of(requirements_of(extra))
        for package in {name.partition(".")[0] for name in names} - {"textgen"}:
            known = package in sys.stdlib_module_names or distributions_of(package) & declared
            assert known, f"{path} imports {package}"


def test_make_bench_runs_every_benchmark():
    makefile = (ROOT / "Makefile").read_text("utf-8")
    recipe = makefile[makefile.index("\nbench:") : makefile.index("\nlock:")]
    modules = (ROOT / "benchmarks").glob("*.py")
    programs = {path.stem for path in modules if "__main__" in path.read_text("utf-8").split('"')}
    assert programs and programs <= set(re.findall(r"\w+", recipe))


@pytest.fixture(scope="session")
def wheel(tmp_path_factory):
    """The wheel, built from the checkout by the backend of this environment."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [
        sys.executable,
        "-m",
        "hatchling",
        "build",
        "--target",
        "wheel",
        "--directory",
        folder,
    ]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    [path] = folder.glob("*.whl")
    return path


def make_environment(folder):
    """Return the installer of a new virtual environment, as a command line."""
    uv = shutil.which("uv", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    python = folder / SCRIPTS / "python"
    if uv:
        subprocess.run([uv, "venv", "--quiet", "--python", sys.executable, folder], check=True)
        return [uv, "pip", "install", "--quiet", "--python", python]
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    return [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]


@pytest.fixture(scope="session")
def bare(wheel, tmp_path_factory):
    """A virtual environment with the wheel and its core dependencies alone."""
    folder = tmp_path_factory.mktemp("bare") / "venv"
    install = make_environment(folder)
    # One dependency first, to tell a missing registry from a wheel that cannot be installed.
    probe = subprocess.run([*install, "tyro"], check=False, capture_output=True, text=True)
    if probe.returncode:
        pytest.skip(f"no package registry can be reached: {probe.stderr.strip()[-200:]}")
    subprocess.run([*install, wheel], check=True)
    return folder / SCRIPTS


@pytest.fixture
def call(bare, tmp_path):
    """Run a program of the bare environment in an empty folder."""

    def run(program, *arguments):
        environment = {
            k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")
        }
        return subprocess.run(
            [bare / program, *map(str, arguments)],
            check=False,
            cwd=tmp_path,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            encoding="utf-8",
        )

    return run


def assert_asks_for(result, *extras):
    """The result is one line on stderr that gives the command to install one of the extras."""
    assert result.returncode == 2
    assert result.stdout == ""
    [line] = result.stderr.splitlines()
    assert any(f'pip install "textgen[{extra}]"' in line for extra in extras), line


def test_the_wheel_has_types_and_nothing_beside_the_package(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    assert "textgen/py.typed" in names
    assert {name.partition("/")[0] for name in names} == {
        "textgen",
        f"textgen-{textgen.__version__}.dist-info",
    }


@pytest.mark.parametrize("program", [["textgen"], ["python", "-m", "textgen"]], ids=" ".join)
def test_the_installed_command_has_the_version_of_the_checkout(call, program):
    result = call(*program, "--version")
    assert (result.returncode, result.stdout.strip()) == (0, textgen.__version__)


def test_the_core_has_no_tensorflow(call):
    code = (
        "import importlib.util as u, json; print(json.dumps([u.find_spec(n) is None for n in {}]))"
    )
    names = ["tensorflow", "keras", "psutil", "sentencepiece", "outlines_core"]
    assert json.loads(call("python", "-c", code.format(names)).stdout) == [True] * len(names)


@pytest.mark.parametrize("program", [["textgen"], ["python", "-m", "textgen"]], ids=" ".join)
@pytest.mark.parametrize("engine", ["auto", "numpy", "onnx"])
def test_the_core_generates(call, tiny_run, program, engine):
    flags = ["--max-new-tokens", "40", "--seed", "3", "--engine", engine]
    result = call(*program, "generate", tiny_run.path, "--prompt", "1 green", *flags)
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith("1 green")
    assert len(result.stdout.rstrip("\n")) > len("1 green") + 20


def test_the_core_scores(call, tiny_run):
    result = call("textgen", "score", tiny_run.path, "--split", "validation", "--json")
    assert result.returncode == 0, result.stderr
    assert "bits_per_char" in result.stdout


def test_the_core_describes_a_run(call, tiny_run):
    result = call("textgen", "info", tiny_run.path)
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("command", ["train", "generate", "score", "info", "doctor"])
def test_the_core_has_the_help_of_every_command(call, command):
    result = call("textgen", command, "--help")
    assert result.returncode == 0, result.stderr
    assert f"textgen {command}" in result.stdout


def test_training_without_tensorflow_names_the_extra(call, text, tmp_path):
    (tmp_path / "x.txt").write_text(text)
    assert_asks_for(call("textgen", "train", "x.txt"), "train")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x.txt"]


def test_the_doctor_without_tensorflow_names_the_extra(call):
    assert_asks_for(call("textgen", "doctor"), "train")


def test_a_tensorflow_engine_without_tensorflow_names_the_extra(call, tiny_run):
    assert_asks_for(call("textgen", "generate", tiny_run.path, "--engine", "tensorflow"), "train")


def test_training_from_python_without_tensorflow_names_the_extra(call):
    result = call("python", "-c", "import textgen; textgen.train(textgen.get_preset('demo'), 'x')")
    assert result.returncode == 1
    assert 'pip install "textgen[train]"' in result.stderr.splitlines()[-1]


def test_a_tfds_corpus_without_tfds_names_the_extra(call):
    assert_asks_for(call("textgen", "train", "tfds:tiny_shakespeare"), "tfds", "train")


def test_a_regex_without_outlines_names_the_extra(call, tiny_run):
    assert_asks_for(call("textgen", "generate", tiny_run.path, "--regex", "[a-z]+"), "regex")


def test_a_subword_run_without_sentencepiece_names_the_extra(call, tiny_run, text, tmp_path):
    shutil.copytree(tiny_run.path, tmp_path / "run")
    tokenizer = train_subwords(text, 300, "bpe")
    shutil.rmtree(tmp_path / "run" / "tokenizer")
    (tmp_path / "run" / "tokenizer").mkdir()
    for name, content in tokenizer.files().items():
        (tmp_path / "run" / "tokenizer" / name).write_bytes(content)
    assert_asks_for(call("textgen", "generate", "run"), "subword")


def test_an_editable_install_is_found_from_the_folder_above_the_checkout(tmp_path):
    """A folder named like the package must not hide it, as it would from an import hook."""
    code = f"from hatchling.build import build_editable; build_editable({str(tmp_path)!r})"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True)
    [built] = tmp_path.glob("*.whl")
    install = make_environment(tmp_path / "venv")
    subprocess.run([*install, "--no-deps", built], check=True)
    (tmp_path / "textgen").symlink_to(ROOT, target_is_directory=True)
    result = subprocess.run(
        [tmp_path / "venv" / SCRIPTS / "python", "-c", "import textgen; print(textgen.__file__)"],
        cwd=tmp_path,
        check=True,
        capture_output=True,
        text=True,
    )
    assert Path(result.stdout.strip()).resolve() == (ROOT / "textgen" / "__init__.py").resolve()
