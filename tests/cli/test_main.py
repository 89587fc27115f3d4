"""The command line as a whole: exit codes, streams, one line per error."""

import json
import shutil
import subprocess
import sys

import pytest

from tests.cli.commands import ROOT, SMALL


def test_train_generate_score_info_from_a_file_to_figures(
    run_command, corpus_file, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    length = ["--epochs", 2, "--validate-every", 40]
    code, out, err = run_command("train", corpus_file, *SMALL, *length)
    assert (code, out) == (0, "")
    assert "bits per character" in err
    assert (tmp_path / "runs" / "bottles" / "model.safetensors").exists()
    samples = list((tmp_path / "runs" / "bottles" / "samples").iterdir())
    assert len(samples) == 2

    code, out, err = run_command("generate", "--prompt", "1 green", "--max-new-tokens", 30)
    assert (code, err) == (0, "")
    assert out.startswith("1 green") and len(out) == len("1 green") + 30 + 1

    code, out, err = run_command("score", "--split", "validation", "--json")
    score = json.loads(out)
    assert code == 0
    assert "runs/bottles" in err
    names = {"nats_per_char", "bits_per_char", "bits_per_byte", "perplexity"}
    assert names | {"tokens", "characters"} <= score.keys()

    code, out, err = run_command("score", "runs/bottles", corpus_file)
    assert code == 0 and "bits per character" in out
    code, out, _ = run_command("info")
    assert code == 0 and "fused" in out
    code, out, _ = run_command("info", "runs/bottles", "--json")
    assert json.loads(out)["vocab_size"] > 10


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["paint"], ["Unknown command", "train", "paint"]),
        (["train", "--colour", "red"], ["--colour", "--help"]),
        (["train", "--hiden-size", "9"], ["Did you mean --hidden-size?"]),
        (["trian"], ["Did you mean train?"]),
        (["train", "--hidden-size", "many"], ["many"]),
        (["train", "--hidden-size", "0"], ["--hidden-size", "at least 1"]),
        (["train", "--tokenizer", "morse"], ["morse", "char"]),
        (["train", "--preset", "hamlet"], ["--preset", "shakespeare", "hamlet"]),
        (["train", "EMPTY", "--preset", "auto"], ["EMPTY", "at least one character"]),
        (["train", "TALE", "--cell", "rnn", "--forget-bias", "1"], ["--forget-bias", "rnn"]),
        (["train", "TALE", "--layer-dropout", "0.1"], ["--num-layers", "at least 2"]),
        (["train", "TALE", "--cell", "rnn", "--kernel", "cudnn"], ["plain cell"]),
        (["train", "--resume", "--overwrite", "--run-dir", "RUN"], ["only one"]),
        (
            ["train", "--resume", "--run-dir", "RUN", "--hidden-size", "8"],
            ["keeps its model", "--run-dir"],
        ),
        (["train", "EMPTY"], ["EMPTY", "at least one character"]),
        (["train", "SHORT", "--seq-len", "200"], ["--seq-len + 1 = 201 tokens"]),
        (["train", "LATIN"], ["UTF-8", "3"]),
        (["train", "."], ["folder"]),
        (["train", "nowhere.txt"], ["nowhere.txt"]),
        (["train", "builtin:bible"], ["builtin:bible", "python-docs"]),
        (["train", "tfds:no_such_set"], ["no_such_set"]),
        (["train", "TALE", "--kernel", "cudnn"], ["tensorflow[and-cuda]", "--kernel"]),
        (["train", "TALE", "--matmul-dtype", "float16"], ["cuDNN", "--matmul-dtype"]),
        (["train", "TALE", "--hidden-size", "999999999"], ["GiB", "--hidden-size"]),
        (["train", "TALE", "--learning-rate", "inf"], ["--learning-rate", "greater than 0"]),
        (["train", "TALE", "--seed", "99999999999"], ["--seed"]),
        (["train", "TALE", "--overwrite"], ["--run-dir"]),
        (["train", "TALE", "--run-dir", "/proc/no/such"], ["/proc/no"]),
        (["train", "TALE", "--run-dir", "SHORT"], ["--run-dir must be a folder"]),
        (["train", "TALE", "--run-dir", "RUN"], ["--overwrite", "--resume"]),
        (["generate", "nowhere"], ["No run directory at nowhere"]),
        (["generate", "RUN", "--prompt", "1 é"], ["'é'", "--unknown"]),
        (["generate", "RUN", "--temperature", "-1"], ["--temperature", "at least 0"]),
        (["generate", "RUN", "--top-p", "0"], ["--top-p", "(0, 1]"]),
        (["generate", "RUN", "--top-p", "1.5"], ["--top-p", "(0, 1]"]),
        (["generate", "RUN", "--unknown", "unk", "--prompt", "é"], ["UNK"]),
        (["generate", "RUN", "-n", "0"], ["--num-samples"]),
        (["generate", "RUN", "--stream", "-n", "2"], ["--stream"]),
        (["generate", "RUN", "--prompt", "a", "--prompt-file", "b"], ["twice"]),
        (["generate", "RUN", "--prompt-file", "nowhere"], ["nowhere"]),
        (["generate", "RUN", "RUN"], ["run directory", "--prompt"]),
        (["score", "RUN"], ["--split"]),
        (["score", "RUN", "EMPTY"], ["EMPTY", "at least one character"]),
        (["score", "RUN", "LATIN"], ["UTF-8"]),
        (["score", "RUN", "TALE", "--protocol", "static"], ["static", "dynamic"]),
        (["score", "RUN", "TALE", "EMPTY"], ["EMPTY: ", "at least one character"]),
        (["info", "RUN", "RUN"], ["one run directory"]),
        (["info"], ["No run in runs/"]),
    ],
)
def test_bad_input_prints_one_line_exits_with_2_and_leaves_nothing(
    run_command, tiny_run, text, tmp_path, monkeypatch, arguments, words
):
    monkeypatch.chdir(tmp_path)
    files = {"EMPTY": b"", "SHORT": b"a short text", "LATIN": b"caf\xe9", "TALE": text.encode()}
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    before = sorted(tmp_path.rglob("*"))
    arguments = [str(tiny_run.path) if word == "RUN" else word for word in arguments]
    code, out, err = run_command(*arguments)
    assert (code, out) == (2, "")
    lines = [line for line in err.splitlines() if not line.startswith(("run: ", "corpus: "))]
    assert len(lines) == 1, err
    assert lines[0].startswith("error: ")
    for word in words:
        assert word in lines[0]
    assert sorted(tmp_path.rglob("*")) == before


def test_a_run_is_described_without_what_its_logs_lack(run_command, tiny_run, tmp_path):
    run = shutil.copytree(tiny_run.path, tmp_path / "run")
    (run / "environment.json").write_text('{"schema_version": 2}')
    (run / "metrics.jsonl").write_text('{"step": 7}\n')
    code, out, _ = run_command("info", run, "--json")
    facts = json.loads(out)
    assert (code, facts["kernel"], facts["tensorflow"]) == (0, None, None)
    assert facts["hidden_size"] and "steps" not in facts


def test_every_command_has_a_help_text(run_command):
    code, out, _ = run_command("--help")
    assert code == 0 and "score" in out
    for command in ("train", "generate", "score", "info", "doctor"):
        code, out, _ = run_command(command, "--help")
        assert code == 0
        assert "usage: textgen " + command in out


def test_a_full_disk_and_an_ascii_terminal_give_no_traceback(tiny_run):
    command = f"{sys.executable} generate.py {tiny_run.path} --max-new-tokens 9"
    full = subprocess.run(
        f"{command} > /dev/full",
        shell=True,
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert full.returncode == 2
    assert full.stderr.count("\n") == 1 and full.stderr.startswith("error: ")
    narrow = subprocess.run(
        f"PYTHONIOENCODING=ascii {command} --prompt 漢 --unknown skip",
        check=False,
        shell=True,
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert (narrow.returncode, narrow.stderr) == (0, "")


def test_a_closed_pipe_ends_the_command_quietly(tiny_run):
    command = f"{sys.executable} generate.py {tiny_run.path} --stream --max-new-tokens 50000"
    result = subprocess.run(
        f"{command} | head -c 100", shell=True, cwd=ROOT, capture_output=True, check=True
    )
    assert len(result.stdout) == 100
    assert result.stderr == b""
