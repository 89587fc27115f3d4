"""`train`: presets, flags, interruption and resuming."""

import json
import shutil
import signal
import subprocess
import sys
from dataclasses import replace

import pytest

import textgen
from tests.cli.commands import ROOT, SMALL, wait_for
from textgen.cli.train import parse_train


def test_auto_chooses_for_the_text_and_flags_win(
    run_command, caplog, corpus_file, tmp_path, monkeypatch
):
    from textgen.training import throughput

    measured = []

    def measure(*arguments):
        measured.append(arguments)
        return 40_000.0

    monkeypatch.setattr(throughput, "measure_tokens_per_second", measure)
    folder = tmp_path / "run"
    code, _, _ = run_command(
        "train", corpus_file, "--preset", "auto", "--run-dir", folder, "--epochs", 1,
        "--hidden-size", 16, "--batch-size", 4, "--max-minutes", 1,
    )  # fmt: skip
    assert code == 0 and len(measured) == 1
    assert "auto: 16 units" in caplog.text and "4 lanes of 64 tokens" in caplog.text
    config = textgen.RunDirectory(folder).read_config()
    assert (config.preset, config.model.hidden_size, config.training.batch_size) == ("auto", 16, 4)
    assert (config.training.epochs, config.training.max_minutes) == (1, 1)


@pytest.mark.parametrize(
    "words, expected",
    [
        (["--preset", "medium", "--tie-weights", "--embedding-dim", "768"], {"tie_weights": True}),
        (["--preset", "gpu", "--no-residual"], {"residual": False, "layer_norm": True}),
        (["--preset=gpu", "--residual"], {"residual": True}),
        (["--residual", "--num-layers", "2"], {"residual": True}),
        (["--num_layers=3", "--preset", "gpu"], {"num_layers": 3, "residual": True}),
    ],
)
def test_flags_are_checked_against_the_settings_of_the_preset(words, expected):
    command, text = parse_train(words, "train.py")
    assert text is None
    assert {name: getattr(command.config.model, name) for name in expected} == expected


@pytest.mark.parametrize("words", [["--preset"], ["--preset", "--epochs", "1"]])
def test_a_preset_without_a_name_is_a_missing_value(words):
    with pytest.raises(textgen.TextgenError, match=r"^--preset needs a value\."):
        parse_train(words, "textgen train")


def test_a_resumed_run_accepts_a_switch_that_is_already_on(
    run_command, tiny_config, text, tmp_path
):
    model = replace(tiny_config.model, num_layers=2, residual=True)
    run = textgen.train(replace(tiny_config, model=model), tmp_path / "run", text=text)
    resume = ["train", "--resume", "--run-dir", run.path, "--epochs", 3]
    code, _, err = run_command(*resume, "--no-residual")
    assert code == 2 and "keeps its model" in err
    underscores = ["train", "--resume", f"--run_dir={run.path}", "--epochs", 3]
    assert run_command(*underscores, "--residual")[0] == 0
    assert run.read_metrics()[-1]["epoch"] == 3


def read_rows(run):
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text("utf-8").splitlines()]


def test_ctrl_c_saves_and_exits_with_130_and_the_run_resumes(corpus_file, tmp_path):
    run = tmp_path / "run"
    command = [sys.executable, str(ROOT / "train.py"), str(corpus_file), *SMALL]
    command += ["--epochs", "100000", "--run-dir", str(run)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    wait_for((run / "metrics.jsonl").exists)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "--resume" in err.splitlines()[-1]
    assert "Traceback" not in err
    rows = len((run / "metrics.jsonl").read_text().splitlines())
    command = [sys.executable, str(ROOT / "train.py"), "--resume", "--run-dir", str(run)]
    subprocess.run([*command, "--epochs", str(rows + 2)], check=True, capture_output=True)
    last = json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])
    assert last["epoch"] == rows + 2


def test_a_killed_run_resumes(corpus_file, tmp_path):
    run = tmp_path / "run"
    command = [sys.executable, str(ROOT / "train.py"), str(corpus_file), *SMALL]
    command += ["--epochs", "100000", "--run-dir", str(run)]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    wait_for((run / "metrics.jsonl").exists)
    wait_for((run / "checkpoints" / "latest.safetensors").exists)
    process.kill()
    process.wait()
    copy = shutil.copytree(run, tmp_path / "copy")
    command = [sys.executable, str(ROOT / "train.py"), "--resume", "--run-dir", str(copy)]
    before = read_rows(copy)
    epochs = int(before[-1]["epoch"]) + 4
    subprocess.run([*command, "--epochs", str(epochs)], check=True, capture_output=True)
    rows = read_rows(copy)
    assert rows[: len(before)] == before
    assert rows[-1]["epoch"] == epochs
    assert [row["step"] for row in rows] == sorted({row["step"] for row in rows})


def test_a_limit_of_the_user_replaces_the_limit_of_the_preset(caplog):
    def limits(*words):
        training = parse_train(list(words), "train.py")[0].config.training
        return training.epochs, training.max_minutes

    assert limits("--preset", "shakespeare") == (None, 3)
    assert limits("--preset", "shakespeare", "--epochs", "20") == (20, None)
    assert "3 minutes" in caplog.text
    assert limits("--epochs=20", "--preset=shakespeare", "--max_minutes", "7") == (20, 7)
    assert limits("--preset", "shakespeare", "--max-minutes", "1") == (None, 1)


@pytest.mark.parametrize(
    "words, part, expected",
    [
        (["--gru-kernel", "reference"], "training", {"kernel": "reference"}),
        (["--precision=float32"], "training", {"matmul_dtype": "float32"}),
        (["--average", "0.9", "--state-reset", "0.1"], "training", {"ema_decay": 0.9}),
        (["--state_reset", "0.1"], "training", {"state_reset_probability": 0.1}),
        (["--change-penalty", "2"], "training", {"temporal_penalty": 2.0}),
        (["--first-state", "learnt"], "model", {"initial_state": "learned"}),
        (["--keep-bias", "1", "--rnn-size", "9"], "model", {"forget_bias": 1.0, "hidden_size": 9}),
        (["--seq_length", "9"], "training", {"seq_len": 9}),
    ],
)
def test_earlier_names_of_flags_keep_working(words, part, expected):
    settings = getattr(parse_train(words, "train.py")[0].config, part)
    assert {name: getattr(settings, name) for name in expected} == expected


def test_the_last_value_of_a_repeated_preset_counts():
    command, _ = parse_train(["--preset", "demo", "--preset", "medium"], "train.py")
    assert command.config.preset == "medium"
    assert command.config.model.hidden_size == 768


def test_the_time_limit_keeps_the_epochs_that_auto_chose(monkeypatch, corpus_file):
    from textgen.training import throughput

    monkeypatch.setattr(throughput, "measure_tokens_per_second", lambda *_: 40_000.0)
    words = [str(corpus_file), "--preset", "auto", "--max-minutes", "5"]
    training = parse_train(words, "train.py")[0].config.training
    assert (training.epochs, training.max_minutes) == (40, 5)
