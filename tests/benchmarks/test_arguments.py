"""The command line that all benchmarks share."""

import argparse
import importlib
from pathlib import Path

import pytest

import benchmarks
from benchmarks.arguments import add_corpus, benchmark_parser, corpus, output_file

FOLDER = Path(benchmarks.__file__).parent
BENCHMARKS = sorted(
    path.stem for path in FOLDER.glob("*.py") if 'if __name__ == "__main__"' in path.read_text()
)


class Parsed(Exception):
    """Carries the parsed arguments out of a benchmark before it measures."""


@pytest.mark.parametrize("name", BENCHMARKS)
def test_a_benchmark_runs_with_quick_and_json_alone(name, tmp_path, monkeypatch):
    parse_args = argparse.ArgumentParser.parse_args

    def parse_and_stop(parser):
        raise Parsed(parse_args(parser, ["--quick", "--json", str(tmp_path / "figures.json")]))

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parse_and_stop)
    with pytest.raises(Parsed) as caught:
        importlib.import_module(f"benchmarks.{name}").main()
    (arguments,) = caught.value.args
    assert arguments.quick
    assert arguments.json == tmp_path / "figures.json"


def test_without_flags_a_benchmark_is_complete_and_writes_no_file():
    arguments = benchmark_parser("What it measures.").parse_args([])
    assert not arguments.quick
    assert arguments.json is None


def test_the_help_has_the_lines_of_the_docstring(capsys):
    with pytest.raises(SystemExit):
        benchmark_parser("First line.\n\nSecond line.").parse_args(["--help"])
    assert "First line.\n\nSecond line." in capsys.readouterr().out


def test_a_file_in_a_missing_folder_is_refused_before_anything_is_measured(tmp_path, capsys):
    path = tmp_path / "missing" / "figures.json"
    with pytest.raises(argparse.ArgumentTypeError, match=r"must exist\. Received"):
        output_file(str(path))
    with pytest.raises(SystemExit, match="2"):
        benchmark_parser(None).parse_args(["--json", str(path)])
    assert "Received" in capsys.readouterr().err


def test_a_corpus_is_the_text_of_a_file_under_the_name_of_the_file(tmp_path):
    path = tmp_path / "tales.txt"
    path.write_bytes(b"once\r\nupon\n")
    assert corpus(str(path)) == ("tales", "once\nupon\n")


def test_the_default_corpus_is_the_one_of_training():
    parser = benchmark_parser(None)
    add_corpus(parser)
    name, text = parser.parse_args([]).corpus
    assert name == "builtin:python-docs"
    assert len(text) > 100_000


def test_a_missing_corpus_is_refused(tmp_path):
    with pytest.raises(argparse.ArgumentTypeError, match=r"missing\.txt"):
        corpus(str(tmp_path / "missing.txt"))
