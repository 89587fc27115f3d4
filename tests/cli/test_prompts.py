"""Prompts from files, standard input and flags."""

import subprocess
import sys

from tests.cli.commands import ROOT


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


def test_a_prompt_may_begin_with_a_dash_or_have_windows_line_ends(run_command, tiny_run, tmp_path):
    flags = ["--max-new-tokens", "5", "--unknown", "skip"]
    code, out, _ = run_command("generate", tiny_run.path, "--prompt", "--5 green", *flags)
    assert code == 0 and out.startswith("--5 green")
    (tmp_path / "prompt.txt").write_bytes(b"\xef\xbb\xbf7 green\r\nbottles")
    path = tmp_path / "prompt.txt"
    code, out, _ = run_command("generate", tiny_run.path, "--prompt-file", path, "--stream")
    assert code == 0 and out.startswith("7 green\nbottles")
