"""The commands as a person types them: what they print where, and with which exit code."""

import json
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

import textgen
from textgen.cli import main
from textgen.cli.train import parse_train

ROOT = Path(__file__).resolve().parents[2]
SMALL = ["--embedding-dim", "8", "--hidden-size", "16", "--batch-size", "8", "--seq-len", "20"]


def _run(capfd, *arguments):
    """Run a command in this process; return its exit code, stdout and stderr."""
    try:
        code = main(list(map(str, arguments)), prog="textgen")
    except SystemExit as end:
        code = end.code or 0
    out, err = capfd.readouterr()
    return code, out, err


@pytest.fixture
def corpus_file(text, tmp_path):
    path = tmp_path / "bottles.txt"
    path.write_text(text, "utf-8")
    return path


def test_train_generate_score_info_from_a_file_to_figures(
    capfd, corpus_file, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    length = ["--epochs", 2, "--validate-every", 40]
    code, out, err = _run(capfd, "train", corpus_file, *SMALL, *length)
    assert (code, out) == (0, "")
    assert "bits per character" in err
    assert (tmp_path / "runs" / "bottles" / "model.safetensors").exists()
    samples = list((tmp_path / "runs" / "bottles" / "samples").iterdir())
    assert len(samples) == 2

    code, out, err = _run(capfd, "generate", "--prompt", "1 green", "--max-new-tokens", 30)
    assert (code, err) == (0, "")
    assert out.startswith("1 green") and len(out) == len("1 green") + 30 + 1

    code, out, err = _run(capfd, "score", "--split", "validation", "--json")
    score = json.loads(out)
    assert code == 0
    assert "runs/bottles" in err
    names = {"nats_per_char", "bits_per_char", "bits_per_byte", "perplexity"}
    assert names | {"tokens", "characters"} <= score.keys()

    code, out, err = _run(capfd, "score", "runs/bottles", corpus_file)
    assert code == 0 and "bits per character" in out
    code, out, _ = _run(capfd, "info")
    assert code == 0 and "fused" in out
    code, out, _ = _run(capfd, "info", "runs/bottles", "--json")
    assert json.loads(out)["vocab_size"] > 10


def test_streaming_prints_the_same_text(capfd, tiny_run):
    flags = ["--prompt", "3 green", "--max-new-tokens", "40", "--seed", "5"]
    _, whole, _ = _run(capfd, "generate", tiny_run.path, *flags)
    _, streamed, _ = _run(capfd, "generate", tiny_run.path, *flags, "--stream")
    assert streamed == whole


def test_peer_flags_and_several_samples_are_understood(capfd, tiny_run):
    code, out, _ = _run(
        capfd, "generate", tiny_run.path, "--primetext", "7 ", "--length=12", "-n", "3"
    )
    assert code == 0
    assert out.count("---") == 6
    assert out.count("7 ") >= 3


def test_every_engine_writes_the_same_text_from_the_command_line(capfd, tiny_run):
    flags = ["--prompt", "9 ", "--max-new-tokens", "50"]
    texts = {
        _run(capfd, "generate", tiny_run.path, *flags, "--engine", engine)[1]
        for engine in ("numpy", "reference", "tensorflow")
    }
    assert len(texts) == 1


def test_a_prompt_comes_from_a_file_or_from_standard_input(tiny_run, tmp_path):
    (tmp_path / "prompt.txt").write_text("5 green", "utf-8")
    outputs = [
        subprocess.run(
            [sys.executable, "generate.py", str(tiny_run.path), *words, "--max-new-tokens", "9"],
            cwd=ROOT,
            input="5 green",
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for words in (["--prompt-file", str(tmp_path / "prompt.txt")], ["-"])
    ]
    assert outputs[0] == outputs[1]
    assert outputs[0].startswith("5 green")


def test_auto_chooses_for_the_text_and_flags_win(capfd, caplog, corpus_file, tmp_path, monkeypatch):
    from textgen.training import throughput

    measured = []

    def measure(*arguments):
        measured.append(arguments)
        return 40_000.0

    monkeypatch.setattr(throughput, "measure_tokens_per_second", measure)
    folder = tmp_path / "run"
    code, _, _ = _run(
        capfd, "train", corpus_file, "--preset", "auto", "--run-dir", folder, "--epochs", 1,
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
def test_flags_are_judged_beside_the_preset(words, expected):
    command, text = parse_train(words, "train.py")
    assert text is None
    assert {name: getattr(command.config.model, name) for name in expected} == expected


def test_a_resumed_run_with_a_switch_that_is_on_takes_it_again(capfd, tiny_config, text, tmp_path):
    model = replace(tiny_config.model, num_layers=2, residual=True)
    run = textgen.train(replace(tiny_config, model=model), tmp_path / "run", text=text)
    resume = ["train", "--resume", "--run-dir", run.path, "--epochs", 3]
    code, _, err = _run(capfd, *resume, "--no-residual")
    assert code == 2 and "keeps its model" in err
    underscores = ["train", "--resume", f"--run_dir={run.path}", "--epochs", 3]
    assert _run(capfd, *underscores, "--residual")[0] == 0
    assert run.read_metrics()[-1]["epoch"] == 3


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["paint"], ["Unknown command", "train", "paint"]),
        (["train", "--colour", "red"], ["--colour", "--help"]),
        (["train", "--hidden-size", "many"], ["many"]),
        (["train", "--hidden-size", "0"], ["hidden_size", "at least 1"]),
        (["train", "--tokenizer", "morse"], ["morse", "char"]),
        (["train", "--preset", "hamlet"], ["preset", "shakespeare", "hamlet"]),
        (["train", "EMPTY", "--preset", "auto"], ["empty"]),
        (["train", "TALE", "--cell", "rnn", "--forget-bias", "1"], ["forget_bias", "rnn"]),
        (["train", "TALE", "--layer-dropout", "0.1"], ["num_layers", "at least 2"]),
        (["train", "TALE", "--cell", "rnn", "--kernel", "cudnn"], ["plain cell"]),
        (["train", "--resume", "--overwrite", "--run-dir", "RUN"], ["only one"]),
        (
            ["train", "--resume", "--run-dir", "RUN", "--hidden-size", "8"],
            ["keeps its model", "--run-dir"],
        ),
        (["train", "EMPTY"], ["empty"]),
        (["train", "SHORT", "--seq-len", "200"], ["seq_len", "--seq-len"]),
        (["train", "LATIN"], ["UTF-8", "3"]),
        (["train", "."], ["folder"]),
        (["train", "nowhere.txt"], ["nowhere.txt"]),
        (["train", "builtin:bible"], ["builtin:bible", "python-docs"]),
        (["train", "tfds:no_such_set"], ["no_such_set"]),
        (["train", "TALE", "--kernel", "cudnn"], ["tensorflow[and-cuda]", "--kernel"]),
        (["train", "TALE", "--matmul-dtype", "float16"], ["cuDNN", "--matmul-dtype"]),
        (["train", "TALE", "--hidden-size", "999999999"], ["GiB", "--hidden-size"]),
        (["train", "TALE", "--learning-rate", "inf"], ["learning_rate", "above 0"]),
        (["train", "TALE", "--seed", "99999999999"], ["seed"]),
        (["train", "TALE", "--overwrite"], ["--run-dir"]),
        (["train", "TALE", "--run-dir", "/proc/no/such"], ["/proc/no"]),
        (["train", "TALE", "--run-dir", "SHORT"], ["is a file"]),
        (["train", "TALE", "--run-dir", "RUN"], ["--overwrite", "--resume"]),
        (["generate", "nowhere"], ["No run directory at nowhere"]),
        (["generate", "RUN", "--prompt", "1 é"], ["'é'", "--unknown skip"]),
        (["generate", "RUN", "--temperature", "-1"], ["temperature", "at least 0"]),
        (["generate", "RUN", "--top-p", "0"], ["top_p", "(0, 1]"]),
        (["generate", "RUN", "--top-p", "1.5"], ["top_p", "(0, 1]"]),
        (["generate", "RUN", "--unknown", "unk", "--prompt", "é"], ["UNK"]),
        (["generate", "RUN", "-n", "0"], ["num_samples"]),
        (["generate", "RUN", "--stream", "-n", "2"], ["--stream"]),
        (["generate", "RUN", "--prompt", "a", "--prompt-file", "b"], ["twice"]),
        (["generate", "RUN", "--prompt-file", "nowhere"], ["nowhere"]),
        (["generate", "RUN", "RUN"], ["Expected a RUN", "--prompt"]),
        (["score", "RUN"], ["--split"]),
        (["score", "RUN", "EMPTY"], ["empty"]),
        (["score", "RUN", "LATIN"], ["UTF-8"]),
        (["score", "RUN", "TALE", "--protocol", "static"], ["static", "dynamic"]),
        (["score", "RUN", "TALE", "EMPTY"], ["EMPTY: ", "empty"]),
        (["info", "RUN", "RUN"], ["one RUN"]),
        (["info"], ["No run in runs/"]),
    ],
)
def test_bad_input_gets_one_line_and_exit_code_2_and_leaves_nothing(
    capfd, tiny_run, text, tmp_path, monkeypatch, arguments, words
):
    monkeypatch.chdir(tmp_path)
    files = {"EMPTY": b"", "SHORT": b"a short text", "LATIN": b"caf\xe9", "TALE": text.encode()}
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    before = sorted(tmp_path.rglob("*"))
    arguments = [str(tiny_run.path) if word == "RUN" else word for word in arguments]
    code, out, err = _run(capfd, *arguments)
    assert (code, out) == (2, "")
    lines = [line for line in err.splitlines() if not line.startswith(("run: ", "corpus: "))]
    assert len(lines) == 1, err
    assert lines[0].startswith("error: ")
    for word in words:
        assert word in lines[0]
    assert sorted(tmp_path.rglob("*")) == before


def test_help_answers_for_every_command(capfd):
    code, out, _ = _run(capfd, "--help")
    assert code == 0 and "score" in out
    for command in ("train", "generate", "score", "info", "doctor"):
        code, out, _ = _run(capfd, command, "--help")
        assert code == 0
        assert "usage: textgen " + command in out


def test_a_prompt_may_begin_with_a_dash_or_have_windows_line_ends(capfd, tiny_run, tmp_path):
    flags = ["--max-new-tokens", "5", "--unknown", "skip"]
    code, out, _ = _run(capfd, "generate", tiny_run.path, "--prompt", "--5 green", *flags)
    assert code == 0 and out.startswith("--5 green")
    (tmp_path / "prompt.txt").write_bytes(b"\xef\xbb\xbf7 green\r\nbottles")
    path = tmp_path / "prompt.txt"
    code, out, _ = _run(capfd, "generate", tiny_run.path, "--prompt-file", path, "--stream")
    assert code == 0 and out.startswith("7 green\nbottles")


def test_scoring_says_how_much_of_the_text_was_unknown(capfd, tiny_run, tmp_path):
    (tmp_path / "text.txt").write_text("1 green 漢字 bottle", "utf-8")
    words = ["score", tiny_run.path, tmp_path / "text.txt", "--unknown", "skip"]
    code, _, err = _run(capfd, *words)
    assert code == 0
    assert "2 of 17 characters are unknown" in err


def test_several_files_are_a_table_with_a_row_for_all_of_them(capfd, tiny_run, text, tmp_path):
    texts = {"one.txt": text[:500], "two.txt": "7 green\u6f22 bottles", "three.txt": text[500:9000]}
    for name, content in texts.items():
        (tmp_path / name).write_text(content, "utf-8")
    files = [tmp_path / name for name in texts]
    words = ["score", tiny_run.path, *files, "--unknown", "skip"]
    code, out, err = _run(capfd, *words)
    assert code == 0
    assert f"{files[1]}: 1 of 16 characters are unknown" in err
    head, *rows = [line.split() for line in out.splitlines()]
    assert head[1:] == [
        "nats/char",
        "bits/char",
        "bits/byte",
        "perplexity",
        "nats/token",
        "characters",
    ]
    assert [row[0] for row in rows] == [*map(str, files), "all"]
    code, out, _ = _run(capfd, *words, "--json")
    scores = json.loads(out)
    assert [score["file"] for score in scores] == [*map(str, files)]
    for row, score in zip(rows, scores, strict=False):
        assert float(row[1]) == pytest.approx(score["nats_per_char"], abs=1e-4)
        alone = json.loads(_run(capfd, *words[:2], score.pop("file"), *words[-2:], "--json")[1])
        assert alone == score
    characters = sum(score["characters"] for score in scores)
    nats = sum(score["loss"] * score["tokens"] for score in scores)
    assert float(rows[-1][1]) == pytest.approx(nats / characters, abs=1e-4)
    assert int(rows[-1][6].replace(",", "")) == characters


@pytest.mark.parametrize("protocol", ["carried", "windows", "dynamic"])
def test_each_protocol_of_scoring_gives_the_figures_of_the_library(capfd, tiny_run, protocol):
    words = ["score", tiny_run.path, "--split", "validation", "--json"]
    code, out, _ = _run(capfd, *words, "--protocol", protocol)
    expected = textgen.load(tiny_run.path).score_split("validation", protocol)
    assert (code, json.loads(out)) == (0, pytest.approx(expected.as_dict(), rel=1e-5))


def test_a_full_disk_and_a_narrow_terminal_give_no_traceback(tiny_run):
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


def test_a_reader_that_has_enough_ends_it_quietly(tiny_run):
    command = f"{sys.executable} generate.py {tiny_run.path} --stream --max-new-tokens 50000"
    result = subprocess.run(
        f"{command} | head -c 100", shell=True, cwd=ROOT, capture_output=True, check=True
    )
    assert len(result.stdout) == 100
    assert result.stderr == b""


def test_ctrl_c_saves_and_ends_with_130_and_resume_goes_on(corpus_file, tmp_path):
    run = tmp_path / "run"
    command = [sys.executable, str(ROOT / "train.py"), str(corpus_file), *SMALL]
    command += ["--epochs", "100000", "--run-dir", str(run)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    _wait_for((run / "metrics.jsonl").exists)
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


def test_a_process_that_is_killed_leaves_a_run_that_goes_on(corpus_file, tmp_path):
    run = tmp_path / "run"
    command = [sys.executable, str(ROOT / "train.py"), str(corpus_file), *SMALL]
    command += ["--epochs", "100000", "--run-dir", str(run)]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    _wait_for((run / "checkpoints" / "latest.safetensors").exists)
    process.kill()
    process.wait()
    copy = shutil.copytree(run, tmp_path / "copy")
    command = [sys.executable, str(ROOT / "train.py"), "--resume", "--run-dir", str(copy)]
    rows = len((copy / "metrics.jsonl").read_text().splitlines())
    subprocess.run([*command, "--epochs", str(rows + 2)], check=True, capture_output=True)


def _wait_for(condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError
        time.sleep(0.05)
