"""The table and the JSON of measurements, compared with texts written by hand."""

import json

import pytest

from benchmarks.report import Measurement, format_table, format_value, report

MEASUREMENTS = [
    Measurement("hidden 512", "textgen", 96_912.4, "tokens/s"),
    Measurement("hidden 512", "PyTorch bfloat16", 45_031.0, "tokens/s"),
    Measurement("ratio", "textgen", 2.15213, "times"),
    Measurement("temperature", "textgen", 0.8, ""),
]

TABLE = """\
                          textgen  PyTorch bfloat16
hidden 512 [tokens/s]      96,912            45,031
ratio [times]               2.152
temperature                   0.8"""


def test_the_table_has_cases_by_subjects_and_empty_cells():
    assert format_table(MEASUREMENTS) == TABLE


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (0.000123456, "0.0001235"),
        (1.51487, "1.515"),
        (99.994, "99.99"),
        (100, "100"),
        (1234.5678, "1,235"),
        (-250.6, "-251"),
    ],
)
def test_values_have_four_digits_or_thousands_separators(value, text):
    assert format_value(value) == text


def test_the_table_is_printed_and_the_file_lists_every_measurement(tmp_path, capsys):
    hidden = Measurement("curve, after 5 s", "textgen", 2.5, "nats per character")
    report(MEASUREMENTS, tmp_path / "figures.json", json_only=[hidden])
    assert capsys.readouterr().out == TABLE + "\n"
    written = json.loads((tmp_path / "figures.json").read_text())
    assert len(written) == 5
    assert written[2] == {"case": "ratio", "subject": "textgen", "value": 2.15213, "unit": "times"}
    assert Measurement(**written[-1]) == hidden


def test_without_a_file_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    report(MEASUREMENTS, None)
    assert not any(tmp_path.iterdir())
