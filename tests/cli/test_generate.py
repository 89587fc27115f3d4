"""`generate`: prompts, restraints, receipts, notes and errors."""

import io
import json
import shutil
import sys

import pytest

from textgen.cli import main


@pytest.fixture
def run(capfd, tiny_run, tmp_path):
    """Return a function that writes with a copy of the tiny run: exit code, stdout, stderr."""
    folder = shutil.copytree(tiny_run.path, tmp_path / "run")

    def write(*arguments, status=0):
        code = main(["generate", str(folder), *map(str, arguments)], prog="textgen")
        out, err = capfd.readouterr()
        assert code == status, err
        return out, err

    return write


def test_prompts_of_a_file_are_generated_side_by_side_as_json_lines(run, tmp_path):
    path = tmp_path / "prompts.txt"
    path.write_text("9 green\n\n8 \n", "utf-8")
    out, _ = run("--prompts", path, "-n", 2, "--output", "jsonl", "--max-new-tokens", 20)
    rows = [json.loads(line) for line in out.splitlines()]
    assert [(row["prompt"], row["sample_index"]) for row in rows] == [
        ("9 green", 0),
        ("9 green", 1),
        ("8 ", 0),
        ("8 ", 1),
    ]
    alone, _ = run("--prompt", "8 ", "--max-new-tokens", 20)
    assert alone == "8 " + rows[2]["text"] + "\n"


def test_prompts_as_json_have_settings_of_their_own(run, monkeypatch):
    lines = [
        {"prompt": "9 ", "max_new_tokens": 5},
        {"prompt": "8 ", "temperature": 0, "stop": [" "]},
    ]
    content = "\n".join(map(json.dumps, lines)).encode()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))
    out, _ = run("--prompts", "-", "--output", "jsonl", "--max-new-tokens", 60)
    rows = [json.loads(line) for line in out.splitlines()]
    assert rows[0]["num_tokens"] == 5
    assert rows[1]["finish_reason"] == "stop" and " " not in rows[1]["text"]


def test_the_text_matches_a_regular_expression_and_copies_no_more_than_allowed(run, text):
    out, _ = run("--regex", r"[0-9]+ (green|brown) bottles\.", "--temperature", 2)
    assert out.strip().split(" ", 1)[1] in ("green bottles.", "brown bottles.")
    free, free_err = run("--prompt", text[:40], "--temperature", 0.1, "--show", "copies")
    held, held_err = run(
        "--prompt", text[:40], "--temperature", 0.1, "--max-copy", 4, "--show", "copies"
    )
    assert "longest copy: " in free_err and "longest copy: 4 characters" in held_err
    assert free != held


def test_a_receipt_is_replayed_and_a_difference_is_reported(run, tmp_path):
    path = tmp_path / "receipt.json"
    out, _ = run("--prompt", "7 ", "-n", 2, "--max-new-tokens", 30, "--receipt", path)
    again, err = run("--replay", path)
    assert (again, err.strip()) == (out, "the same text")
    receipt = json.loads(path.read_text("utf-8"))
    receipt["requests"][1]["sampling"]["seed"] = 99
    path.write_text(json.dumps(receipt), "utf-8")
    _, err = run("--replay", path, status=1)
    assert err.strip() == "not the same: text 2 differs"


def test_an_adapted_model_generates_another_text_and_its_receipt_is_replayed(run, tmp_path):
    path = tmp_path / "receipt.json"
    flags = ["--prompt", "owls dream, moose dream, " * 3, "--max-new-tokens", 60]
    plain, _ = run(*flags)
    out, _ = run(*flags, "--adapt", 40, "--receipt", path)
    assert out != plain and out.startswith(flags[1])
    assert run("--replay", path) == (out, "the same text\n")
    streamed, _ = run(*flags, "--adapt", 40, "--stream")
    assert streamed == out
    receipt = json.loads(path.read_text("utf-8"))
    receipt["adaptations"][0]["passes"] = 1
    path.write_text(json.dumps(receipt), "utf-8")
    assert run("--replay", path, status=1)[1] == "not the same: text 1 differs\n"


def test_a_receipt_of_schema_1_is_replayed(run, tmp_path):
    path = tmp_path / "receipt.json"
    out, _ = run("--prompt", "7 ", "--max-new-tokens", 30, "--receipt", path)
    receipt = json.loads(path.read_text("utf-8"))
    del receipt["adaptations"]
    path.write_text(json.dumps(receipt | {"schema_version": 1}), "utf-8")
    assert run("--replay", path) == (out, "the same text\n")


def test_surprise_is_shown_in_colors_and_the_order_without_generating(run):
    plain, _ = run("--prompt", "7 ", "--max-new-tokens", 40, "--temperature", 1.5)
    out, err = run(
        "--prompt", "7 ", "--max-new-tokens", 40, "--temperature", 1.5, "--show", "surprise"
    )
    assert "\x1b[48;5;" in out and "bits" in err
    assert "".join(part.partition("m")[2] for part in ("m" + out).split("\x1b[")) == plain
    out, _ = run("--show", "order", "--top-k", 4, "--temperature", 0.5, "--max-copy", 9)
    assert out.splitlines() == ["max_copy(9)", "scale_by_temperature(0.5)", "keep_top_k(4)"]


def test_beam_search_prints_the_most_probable_texts_with_their_scores(run):
    out, err = run("--prompt", "7 green", "--beams", 3, "-n", 2, "--max-new-tokens", 12)
    assert len(out.splitlines()) >= 2
    assert err.count("log-probability") == 2


def test_temperature_auto_is_measured_once_and_kept(run, tmp_path):
    first, _ = run("--temperature", "auto", "--max-new-tokens", 30)
    kept = json.loads((tmp_path / "run" / "measurements" / "temperature.json").read_text("utf-8"))
    assert 0.3 <= kept["temperature"] <= 1.5
    assert run("--temperature", kept["temperature"], "--max-new-tokens", 30)[0] == first


def test_settings_that_cancel_each_other_are_noted(run):
    _, err = run("--temperature", 0, "--top-k", 40, "-n", 5, "--max-new-tokens", 5)
    assert "the 5 texts are equal" in err and "--top-k changes nothing" in err


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["--stop", ""], ["--stop", "non-empty"]),
        (["--bias", "a"], ["TEXT=NATS"]),
        (["--regex", "("], ["regular expression"]),
        (["--regex", "é+"], ["regex"]),
        (["--stop-regex", "["], ["--stop-regex"]),
        (["--max-copy", "0"], ["--max-copy"]),
        (["--min-p", "2"], ["--min-p"]),
        (["--temperature", "0", "--final-temperature", "1"], ["--final-temperature"]),
        (["--weights-format", "int8", "--engine", "numpy"], ["--weights-format", "float32"]),
        (["--stream", "--output", "jsonl"], ["--stream"]),
        (["--replay", "nowhere.json"], ["nowhere.json"]),
        (["--prompts", "nowhere.txt"], ["nowhere.txt"]),
        (["--logprobs", "-1"], ["--logprobs"]),
        (["--penalty-window", "99999999999"], ["--penalty-window"]),
        (["-n", "99999999999"], ["--num-samples"]),
        (["--beams", "0"], ["--beams"]),
        (["--beams", "4", "--ban", "e"], ["beam search", "--ban"]),
        (["--beams", "4", "--show", "order"], ["--beams", "--show"]),
        (["--receipt", "."], ["--receipt must be a file"]),
        (["--adapt", "1"], ["at least 2 tokens", "longer text"]),
        (["--adapt", "1", "--prompt", "7"], ["at least 2 tokens", "longer text"]),
        (["--adapt", "0", "--prompt", "7 green"], ["--adapt", "[1, 1,000]"]),
        (["--adapt", "5000", "--prompt", "7 green"], ["1,000", "--adapt"]),
        (["--adapt", "1", "--prompts", "prompts.txt"], ["--prompts"]),
        (["--adapt", "1", "--replay", "receipt.json"], ["--replay"]),
    ],
)
def test_invalid_settings_print_one_line(run, arguments, words):
    out, err = run(*arguments, status=2)
    assert out == ""
    assert err.startswith("error: ") and err.count("\n") == 1
    for word in words:
        assert word in err


def test_a_ban_of_everything_is_an_error(run, text):
    bans = [word for character in sorted(set(text)) for word in ("--ban", character)]
    _, err = run(*bans, status=2)
    assert "--ban must allow at least 1 token" in err


def test_a_json_setting_of_the_wrong_type_is_an_error(run, tmp_path):
    path = tmp_path / "prompts.jsonl"
    for line in (
        '"stop": "x"',
        '"stop": [1]',
        '"top_k": 2.5',
        '"temperature": "hot"',
        '"seed": true',
    ):
        path.write_text('{"prompt": "7", ' + line + "}", "utf-8")
        _, err = run("--prompts", path, status=2)
        assert "line 1" in err and "must be" in err
    path.write_text('{"prompt": "7", "temperature": 1, "top_k": null, "ban": ["x"]}', "utf-8")
    run("--prompts", path, "--max-new-tokens", 3)


def test_streaming_prints_the_same_text(run_command, tiny_run):
    flags = ["--prompt", "3 green", "--max-new-tokens", "40", "--seed", "5"]
    _, whole, _ = run_command("generate", tiny_run.path, *flags)
    _, streamed, _ = run_command("generate", tiny_run.path, *flags, "--stream")
    assert streamed == whole


def test_flags_of_other_tools_and_several_samples_work(run_command, tiny_run):
    code, out, _ = run_command(
        "generate", tiny_run.path, "--primetext", "7 ", "--length=12", "-n", "3"
    )
    assert code == 0
    assert out.count("---") == 6
    assert out.count("7 ") >= 3


def test_every_engine_generates_the_same_text(run_command, tiny_run):
    flags = ["--prompt", "9 ", "--max-new-tokens", "50"]
    texts = {
        run_command("generate", tiny_run.path, *flags, "--engine", engine)[1]
        for engine in ("numpy", "reference", "tensorflow")
    }
    assert len(texts) == 1
