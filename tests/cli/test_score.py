"""`score`: figures, tables and protocols."""

import json

import pytest

import textgen


def test_scoring_reports_unknown_characters(run_command, tiny_run, tmp_path):
    (tmp_path / "text.txt").write_text("1 green 漢字 bottle", "utf-8")
    words = ["score", tiny_run.path, tmp_path / "text.txt", "--unknown", "skip"]
    code, _, err = run_command(*words)
    assert code == 0
    assert "2 of 17 characters are not in the vocabulary" in err


def test_several_files_are_a_table_with_a_row_for_all_of_them(
    run_command, tiny_run, text, tmp_path
):
    texts = {"one.txt": text[:500], "two.txt": "7 green\u6f22 bottles", "three.txt": text[500:9000]}
    for name, content in texts.items():
        (tmp_path / name).write_text(content, "utf-8")
    files = [tmp_path / name for name in texts]
    words = ["score", tiny_run.path, *files, "--unknown", "skip"]
    code, out, err = run_command(*words)
    assert code == 0
    assert f"{files[1]}: 1 of 16 characters are not in the vocabulary" in err
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
    code, out, _ = run_command(*words, "--json")
    scores = json.loads(out)
    assert [score["file"] for score in scores] == [*map(str, files)]
    for row, score in zip(rows, scores, strict=False):
        assert float(row[1]) == pytest.approx(score["nats_per_char"], abs=1e-4)
        alone = json.loads(run_command(*words[:2], score.pop("file"), *words[-2:], "--json")[1])
        assert alone == score
    characters = sum(score["characters"] for score in scores)
    nats = sum(score["loss"] * score["tokens"] for score in scores)
    assert float(rows[-1][1]) == pytest.approx(nats / characters, abs=1e-4)
    assert int(rows[-1][6].replace(",", "")) == characters


@pytest.mark.parametrize("protocol", ["carried", "windows", "dynamic"])
def test_each_protocol_of_scoring_gives_the_figures_of_the_library(run_command, tiny_run, protocol):
    words = ["score", tiny_run.path, "--split", "validation", "--json"]
    code, out, _ = run_command(*words, "--protocol", protocol)
    expected = textgen.load(tiny_run.path).score_split("validation", protocol)
    assert (code, json.loads(out)) == (0, pytest.approx(expected.as_dict(), rel=1e-5))
