"""Documents: code that runs, tables and names that are current, links that resolve."""

import importlib.util
import re
import sys
from dataclasses import replace
from pathlib import Path

import pytest

import textgen
from textgen.config import choices_of
from textgen.presets import PRESETS

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("data/*.md")])
CODE = re.compile(r"(<!-- needs: (?P<needs>\S+) -->\n)?```python\n(?P<code>.*?)```", re.DOTALL)
LINK = re.compile(r"(?<!\!)\[[^\]]+\]\((?P<target>[^)\s]+)\)|\!\[[^\]]*\]\((?P<image>[^)\s]+)\)")


def code_blocks():
    """Each Python block of the documents, with the run that it needs."""
    for path in PAGES:
        for number, match in enumerate(CODE.finditer(path.read_text("utf-8")), start=1):
            name = f"{path.relative_to(ROOT)}-{number}"
            yield pytest.param(match["code"], match["needs"], id=name)


def anchors(page):
    """The anchors of a page: explicit ones, and those that headings make."""
    text = page.read_text("utf-8")
    explicit = set(re.findall(r'<a id="([^"]+)"', text))
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    slugs = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
    return explicit | slugs


@pytest.fixture(scope="module")
def tales_run(tiny_config, tmp_path_factory):
    """A run trained on the tales for one epoch, in place of the runs that documents name."""
    from textgen.training import train

    text = (ROOT / "data" / "tales.txt").read_text("utf-8")
    training = replace(tiny_config.training, epochs=1, validate_every=None)
    config = replace(tiny_config, training=training)
    return train(config, tmp_path_factory.mktemp("runs") / "tales", text=text)


@pytest.mark.parametrize("code, needs", code_blocks())
def test_the_code_of_the_documents_runs(code, needs, tales_run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").symlink_to(ROOT / "data")
    if needs:
        (tmp_path / needs).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / needs).symlink_to(tales_run.path)
    # One epoch of the same model instead of a minute: the test does not read the clock.
    code = code.replace("max_minutes=1)", "epochs=1)")
    exec(compile(code, "document", "exec"), {"__name__": "document"})


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_resolve(page):
    for match in LINK.finditer(page.read_text("utf-8")):
        target, _, anchor = (match["target"] or match["image"]).partition("#")
        if target.startswith(("http:", "https:")):
            continue
        path = (page.parent / target).resolve() if target else page
        assert path.exists(), f"{page}: {target}"
        if anchor:
            assert anchor in anchors(path), f"{page}: {target}#{anchor}"


@pytest.mark.parametrize(
    "path", sorted((ROOT / "textgen").rglob("*.py")), ids=lambda path: str(path.relative_to(ROOT))
)
def test_references_to_the_experiments_resolve(path):
    known = anchors(ROOT / "docs" / "experiments.md")
    references = re.findall(r"experiments\.md(#[\w-]+)?", path.read_text("utf-8"))
    assert all(anchor and anchor[1:] in known for anchor in references), references


def test_the_table_of_presets_is_complete_and_has_their_minutes():
    rows = re.findall(
        r"^\| `(\w+)` \|.*\| (.+) \|$", (ROOT / "docs" / "training.md").read_text(), re.M
    )
    minutes = {
        name: value for name, value in rows if name in choices_of(textgen.RunConfig, "preset")
    }
    assert set(minutes) == {*PRESETS, "auto"}
    for name, build in PRESETS.items():
        assert float(minutes[name]) == build().training.max_minutes


def test_presets_named_in_documents_exist():
    for page in PAGES:
        named = set(re.findall(r"--preset[ =]`?([a-z]+)", page.read_text("utf-8")))
        assert named <= {*PRESETS, "auto"}, page


def test_the_page_of_settings_is_current():
    path = ROOT / "docs" / "build_settings.py"
    spec = importlib.util.spec_from_file_location("build_settings", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    assert module.PAGE.read_text("utf-8") == module.settings_page(), "run `make docs`"


def test_every_page_is_in_the_index():
    index = (ROOT / "docs" / "index.md").read_text("utf-8")
    for page in ROOT.glob("docs/*.md"):
        assert page.name == "index.md" or f"({page.name})" in index, page


def test_every_exported_name_is_documented():
    for name in textgen.__all__:
        documentation = getattr(textgen, name).__doc__
        assert documentation and len(documentation) > 20, name
