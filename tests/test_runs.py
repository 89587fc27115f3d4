"""The run directory: whole or refused, found by its path alone."""

import json
import os
import shutil
from pathlib import Path

import pytest

import textgen
from textgen.config.migrations import SCHEMA_VERSION
from textgen.errors import RunError
from textgen.runs import RunDirectory, newest_run, unused_run
from textgen.storage import write_atomically


def _copy(run, tmp_path):
    return RunDirectory(shutil.copytree(run.path, tmp_path / "copy"))


def test_a_write_that_dies_leaves_the_old_content(tmp_path, monkeypatch):
    path = tmp_path / "file"
    write_atomically(path, b"old")

    def die(*_):
        raise OSError("the machine died")

    monkeypatch.setattr(Path, "replace", die)
    with pytest.raises(OSError, match="died"):
        write_atomically(path, b"new content")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_copy_under_another_path_writes_the_same_text(tiny_run, tmp_path):
    copy = _copy(tiny_run, tmp_path)
    sampling = textgen.SamplingConfig(max_new_tokens=60)
    text = textgen.load(tiny_run.path).generate("1 green", sampling)
    assert len(text) == 60
    assert textgen.load(copy.path).generate("1 green", sampling) == text


def test_nothing_in_a_run_needs_pickle_or_names_its_own_path(tiny_run):
    files = [p for p in tiny_run.path.rglob("*") if p.is_file()]
    suffixes = {p.suffix for p in files if "tensorboard" not in p.parts}
    assert suffixes == {".json", ".jsonl", ".safetensors"}
    for path in tiny_run.path.rglob("*.json"):
        assert str(tiny_run.path) not in path.read_text("utf-8")


def test_a_missing_run_says_so():
    with pytest.raises(RunError, match="No run directory at nowhere"):
        textgen.load("nowhere")


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer/tokenizer.json"])
def test_an_incomplete_run_says_what_is_missing(tiny_run, tmp_path, name):
    copy = _copy(tiny_run, tmp_path)
    (copy.path / name).unlink()
    with pytest.raises(RunError, match=name.split("/")[-1]):
        textgen.load(copy.path)


def test_a_newer_schema_is_refused(tiny_run, tmp_path):
    copy = _copy(tiny_run, tmp_path)
    values = json.loads((copy.path / "config.json").read_text())
    values["schema_version"] = SCHEMA_VERSION + 1
    (copy.path / "config.json").write_text(json.dumps(values))
    with pytest.raises(RunError, match="newer textgen"):
        textgen.load(copy.path)


@pytest.mark.parametrize("content", ["", "[1]", "{torn", '{"schema_version": 1, "colour": 2}'])
def test_a_damaged_configuration_is_refused(tiny_run, tmp_path, content):
    copy = _copy(tiny_run, tmp_path)
    (copy.path / "config.json").write_text(content)
    with pytest.raises(RunError, match=r"config\.json"):
        textgen.load(copy.path)


def test_a_flipped_bit_in_the_weights_is_refused(tiny_run, tmp_path):
    copy = _copy(tiny_run, tmp_path)
    content = bytearray(copy.weights_path.read_bytes())
    content[-10] ^= 1
    copy.weights_path.write_bytes(content)
    with pytest.raises(RunError, match="damaged"):
        textgen.load(copy.path)


def test_a_tokenizer_of_another_run_is_refused(tiny_run, tmp_path):
    copy = _copy(tiny_run, tmp_path)
    path = copy.path / "tokenizer" / "tokenizer.json"
    values = json.loads(path.read_text("utf-8"))
    # as many characters, one of them another
    values["alphabet"] = values["alphabet"].replace("9", ":")
    path.write_text(json.dumps(values), "utf-8")
    with pytest.raises(RunError, match="tokenizer"):
        textgen.load(copy.path)


def test_a_folder_that_holds_anything_else_is_never_replaced(tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    for overwrite in (False, True):
        with pytest.raises(RunError, match="left alone"):
            RunDirectory(tmp_path).create(overwrite=overwrite)
    assert (tmp_path / "thesis.txt").exists()


def test_a_run_is_replaced_only_when_asked(tiny_run, tmp_path):
    copy = _copy(tiny_run, tmp_path)
    with pytest.raises(RunError, match="--overwrite"):
        copy.create()
    (copy.path / "notes.md").write_text("mine")
    with pytest.raises(RunError, match="left alone"):
        copy.create(overwrite=True)
    (copy.path / "notes.md").unlink()
    copy.create(overwrite=True)
    assert list(copy.path.iterdir()) == []


def test_the_newest_run_is_the_one_started_last(tmp_path):
    with pytest.raises(RunError, match="Train one first"):
        newest_run(tmp_path)
    for age, name in enumerate(["b", "a", "c"]):
        write_atomically(tmp_path / name / "config.json", b"{}")
        write_atomically(tmp_path / name / "model.safetensors", b"")
        os.utime(tmp_path / name / "config.json", (1000 - age, 1000 - age))
    write_atomically(tmp_path / "half" / "config.json", b"{}")
    assert newest_run(tmp_path).path.name == "b"


@pytest.mark.parametrize(
    "sources, name",
    [
        (["letters/to my aunt.txt"], "to-my-aunt"),
        (["-"], "stdin"),
        (["builtin:python-docs"], "python-docs"),
        (["tfds:wikipedia/2023.en:train[:1%]"], "wikipedia-2023.en"),
        (["詩.txt"], "詩"),
        (["...txt"], "run"),
    ],
)
def test_a_free_name_tells_of_the_corpus(tmp_path, sources, name):
    assert unused_run(sources, tmp_path).path == tmp_path / name
    (tmp_path / name).mkdir()
    assert unused_run(sources, tmp_path).path == tmp_path / f"{name}-2"


def test_metrics_survive_a_torn_line_and_can_be_cut(tmp_path):
    run = RunDirectory(tmp_path)
    for step in (1, 2, 3):
        run.append_metrics({"step": step})
    with run.metrics_path.open("a") as file:
        file.write('{"step": 4, "lo')
    assert [row["step"] for row in run.read_metrics()] == [1, 2, 3]
    run.keep_metrics_until(2)
    assert [row["step"] for row in run.read_metrics()] == [1, 2]
