"""Run directories: complete or refused, loaded by their path alone."""

import json
import logging
import os
import shutil

import pytest

import textgen
from textgen import runs, storage
from textgen.config.migrations import SCHEMA_VERSION
from textgen.errors import ConfigError, RunError
from textgen.runs import RunDirectory, newest_run, unused_run
from textgen.storage import write_atomically


@pytest.fixture
def copied_run(tiny_run, tmp_path):
    return RunDirectory(shutil.copytree(tiny_run.path, tmp_path / "copy"))


@pytest.fixture
def warnings(caplog):
    """Return a function that returns what was logged since the last call."""
    runs._note_damaged_lines.cache_clear()
    storage._note_unwritable.cache_clear()
    caplog.set_level(logging.WARNING, "textgen")

    def take():
        messages = list(caplog.messages)
        caplog.clear()
        return messages

    return take


def test_a_copy_under_another_path_generates_the_same_text(tiny_run, copied_run):
    sampling = textgen.SamplingConfig(max_new_tokens=60)
    text = textgen.load(tiny_run.path).generate("1 green", sampling)
    assert len(text) == 60
    assert textgen.load(copied_run.path).generate("1 green", sampling) == text


def test_the_path_of_a_run_is_a_string_or_a_path(tiny_run):
    assert RunDirectory(str(tiny_run.path)).read_config() == tiny_run.read_config()
    with pytest.raises(ConfigError, match=r"`path` must be a string or a Path\. Received: 5 "):
        RunDirectory(5)


def test_no_file_of_a_run_is_a_pickle_or_contains_its_path(tiny_run):
    files = [p for p in tiny_run.path.rglob("*") if p.is_file()]
    suffixes = {p.suffix for p in files if "tensorboard" not in p.parts}
    assert suffixes == {".json", ".jsonl", ".safetensors"}
    for path in tiny_run.path.rglob("*.json"):
        assert str(tiny_run.path) not in path.read_text("utf-8")


def test_a_path_without_a_run_is_refused():
    with pytest.raises(RunError, match="No run directory at nowhere"):
        textgen.load("nowhere")


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer/tokenizer.json"])
def test_the_message_about_an_incomplete_run_names_what_is_missing(copied_run, name):
    (copied_run.path / name).unlink()
    with pytest.raises(RunError, match=name.split("/")[-1]):
        textgen.load(copied_run.path)


def test_a_later_schema_is_refused(copied_run):
    path = copied_run.path / "config.json"
    values = json.loads(path.read_text())
    values["schema_version"] = SCHEMA_VERSION + 1
    path.write_text(json.dumps(values))
    with pytest.raises(RunError, match="newer textgen"):
        textgen.load(copied_run.path)


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[1]",
        "{torn",
        '{"schema_version": 1, "flavor": 2}',
        '{"schema_version": 1, "model": []}',
        '{"schema_version": 1, "model": {"hidden_size": 8.5}}',
        '{"schema_version": 1, "training": {"seed": true}}',
        '{"schema_version": []}',
        '{"schema_version": 1, "schema_version": 1}',
    ],
)
def test_a_damaged_configuration_is_refused(copied_run, content):
    (copied_run.path / "config.json").write_text(content)
    with pytest.raises(RunError, match=r"config\.json"):
        textgen.load(copied_run.path)


PARTS = [
    "config.json",
    "corpus.safetensors",
    "environment.json",
    "model.safetensors",
    "passages.safetensors",
    "tokenizer/tokenizer.json",
    "measurements/temperature.json",
    "metrics.jsonl",
]


def read_everything(run):
    tokenizer = run.read_tokenizer()
    run.read_config()
    run.read_environment()
    run.read_weights(tokenizer)
    run.read_corpus()
    run.read_passages(tokenizer)
    run.read_measurement("temperature", "0")
    run.read_metrics()


@pytest.mark.parametrize("name", PARTS)
def test_a_directory_in_place_of_a_file_is_refused(copied_run, name):
    (copied_run.path / name).unlink(missing_ok=True)
    (copied_run.path / name).mkdir(parents=True)
    with pytest.raises(RunError, match="a directory"):
        read_everything(copied_run)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
@pytest.mark.parametrize("name", PARTS)
def test_a_named_pipe_in_place_of_a_file_is_refused(copied_run, name):
    (copied_run.path / name).unlink(missing_ok=True)
    (copied_run.path / name).parent.mkdir(exist_ok=True)
    os.mkfifo(copied_run.path / name)
    with pytest.raises(RunError, match="a named pipe"):
        read_everything(copied_run)


def test_a_flipped_bit_in_the_weights_is_refused(copied_run):
    content = bytearray(copied_run.weights_path.read_bytes())
    content[-10] ^= 1
    copied_run.weights_path.write_bytes(content)
    with pytest.raises(RunError, match="damaged"):
        textgen.load(copied_run.path)


def test_a_tokenizer_of_another_run_is_refused(copied_run):
    path = copied_run.path / "tokenizer" / "tokenizer.json"
    values = json.loads(path.read_text("utf-8"))
    # As many characters, one of them another.
    values["alphabet"] = values["alphabet"].replace("9", ":")
    path.write_text(json.dumps(values), "utf-8")
    with pytest.raises(RunError, match="tokenizer"):
        textgen.load(copied_run.path)


def test_a_folder_with_any_other_file_is_never_replaced(tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    for overwrite in (False, True):
        with pytest.raises(RunError, match="not replaced"):
            RunDirectory(tmp_path).create(overwrite=overwrite)
    assert (tmp_path / "thesis.txt").exists()


@pytest.mark.parametrize(
    "name", ["config.json.bak", "samples-kept", "tokenizer.md", ".samples", ".git"]
)
def test_a_file_whose_name_begins_like_a_part_of_a_run_is_never_deleted(copied_run, name):
    (copied_run.path / name).write_text("mine")
    with pytest.raises(RunError, match="not replaced"):
        copied_run.create(overwrite=True)
    assert (copied_run.path / name).exists()


def test_a_temporary_file_of_an_interrupted_write_does_not_prevent_replacement(copied_run):
    (copied_run.path / ".model.safetensors.k3x9q_1z").write_bytes(b"half")
    copied_run.create(overwrite=True)
    assert list(copied_run.path.iterdir()) == []


def test_a_file_in_place_of_the_folder_is_never_replaced(tmp_path):
    (tmp_path / "file").write_text("mine")
    for overwrite in (False, True):
        with pytest.raises(RunError, match="`run_dir` must be a folder"):
            RunDirectory(tmp_path / "file").create(overwrite=overwrite)
    assert (tmp_path / "file").read_text() == "mine"


def test_a_run_is_replaced_only_with_overwrite(copied_run):
    with pytest.raises(RunError, match="`overwrite`"):
        copied_run.create()
    (copied_run.path / "notes.md").write_text("mine")
    with pytest.raises(RunError, match="not replaced"):
        copied_run.create(overwrite=True)
    (copied_run.path / "notes.md").unlink()
    copied_run.create(overwrite=True)
    assert list(copied_run.path.iterdir()) == []


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
        ([], "run"),
    ],
)
def test_an_unused_run_is_named_after_its_first_source(tmp_path, sources, name):
    assert unused_run(sources, tmp_path).path == tmp_path / name
    (tmp_path / name).mkdir()
    assert unused_run(sources, tmp_path).path == tmp_path / f"{name}-2"
    (tmp_path / f"{name}-2").mkdir()
    assert unused_run(sources, tmp_path).path == tmp_path / f"{name}-3"


def test_metrics_can_be_cut_and_a_torn_last_line_is_removed(tmp_path):
    run = RunDirectory(tmp_path)
    for step in (1, 2, 3):
        run.append_metrics({"step": step})
    with run.metrics_path.open("a") as file:
        file.write('{"step": 4, "lo')
    assert [row["step"] for row in run.read_metrics()] == [1, 2, 3]
    run.keep_metrics_until(2)
    assert run.metrics_path.read_text() == '{"step": 1}\n{"step": 2}\n'


DAMAGE = [b"\xff", b"{}", b"null", b'{"step": true}', b'{"step": "9"}', b"[" * 10_000, b'{"st']


@pytest.mark.parametrize("line", DAMAGE)
def test_a_damaged_line_hides_no_row_and_is_kept_and_logged_once(tmp_path, warnings, line):
    run = RunDirectory(tmp_path)
    run.metrics_path.write_bytes(b'{"step": 1}\n' + line + b'\n{"step": 2}\n{"step": 3}')
    for _ in range(2):
        assert [row["step"] for row in run.read_metrics()] == [1, 2, 3]
    assert warnings() == [f"{run.metrics_path}: skipped 1 damaged lines, the first is line 2"]
    run.keep_metrics_until(2)
    run.append_metrics({"step": 9})
    assert run.metrics_path.read_bytes() == (
        b'{"step": 1}\n' + line + b'\n{"step": 2}\n{"step": 9}\n'
    )
    assert warnings() == []


def test_metrics_are_standard_json_whatever_the_numbers(tmp_path):
    run = RunDirectory(tmp_path)
    run.append_metrics({"step": 1, "loss": float("inf"), "perplexity": float("nan"), "epoch": 0.5})
    assert run.metrics_path.read_text() == (
        '{"step": 1, "loss": null, "perplexity": null, "epoch": 0.5}\n'
    )


def test_the_best_metrics_are_those_of_the_lowest_finite_validation_loss(tmp_path):
    run = RunDirectory(tmp_path)
    assert run.best_metrics() is None
    for step, loss in enumerate([3.0, float("nan"), 1.5, 2.0], start=1):
        run.append_metrics({"step": step, "validation_loss": loss})
    run.append_metrics({"step": 5})
    assert run.best_metrics() == {"step": 3, "validation_loss": 1.5}


def test_a_measurement_belongs_to_the_weights_it_was_measured_with(tmp_path):
    run = RunDirectory(tmp_path)
    assert run.read_measurement("entropy", "a") is None
    run.write_measurement("entropy", "a", {"bits": 1.5, "texts": 3})
    assert run.read_measurement("entropy", "a") == {"bits": 1.5, "texts": 3.0}
    assert run.read_measurement("entropy", "b") is None
    assert run.read_measurement("other", "a") is None


def test_a_measurement_has_finite_numbers_only(tmp_path):
    values = {"weights_sha256": "a", "x": 1, "text": "1", "flag": True, "none": None}
    content = json.dumps(values)[:-1] + f', "nan": NaN, "inf": 1e999, "huge": {"9" * 400}}}'
    write_atomically(tmp_path / "measurements" / "odd.json", content.encode())
    assert RunDirectory(tmp_path).read_measurement("odd", "a") == {"x": 1.0}


def test_results_are_not_stored_in_a_run_that_cannot_be_written(copied_run, monkeypatch, warnings):
    def refuse(path, content):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(storage, "write_atomically", refuse)
    for _ in range(2):
        copied_run.write_measurement("entropy", "a", {"bits": 1.5})
    assert copied_run.read_measurement("entropy", "a") is None
    path = copied_run.path / "measurements" / "entropy.json"
    assert warnings() == [
        f"{path} cannot be written (Permission denied): its content is used, but not stored"
    ]
    index = copied_run.read_passages(copied_run.read_tokenizer())
    assert index.longest_match("green bottles").length == len("green bottles")
    assert len(warnings()) == 1
    assert not (copied_run.path / "passages.safetensors").exists()
