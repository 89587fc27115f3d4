"""`doctor`: a table for people, JSON for machines."""

import json

import pytest

from textgen.training import doctor

FINDINGS = {
    "versions": [
        {"name": "python", "found": "3.12.1", "wanted": None},
        {"name": "keras", "found": "3.15.1", "wanted": ">=3.15.1,<4"},
    ],
    "gpu": {
        "built_with_cuda": True,
        "wanted": {"cuda": "12.5.1", "cudnn": "9"},
        "found": {"driver": None, "cuda": "12.9"},
        "hardware": False,
        "visible": [],
        "reason": "there is no NVIDIA driver",
    },
    "cpu": {"cores": 2, "instruction_sets": ["avx2", "fma"]},
    "layers": [
        {
            "name": "gru_0",
            "kernel": "reference",
            "kernel_reason": "requested",
            "matmul_dtype": "float32",
            "matmul_dtype_reason": "as the weights are",
            "reason": "`kernel=reference` was requested",
        }
    ],
    "measured": [{"kernel": "fused", "matmul_dtype": "float32", "tokens_per_second": 51234}],
}
TABLE = """\
python    3.12.1         wanted any
keras     3.15.1         wanted >=3.15.1,<4
driver    not found      wanted any
cuda      12.9           wanted 12.5.1
GPUs      none           there is no NVIDIA driver
CPU       2 cores        avx2 fma
gru_0     reference      requested
          float32        as the weights are
          faster         --kernel=reference was requested
measured  fused float32  51,234 tokens/s
"""


@pytest.fixture
def diagnosed(monkeypatch):
    """The arguments of each diagnosis, which always has the same findings."""
    calls = []

    def diagnose(config, vocab_size, *, measure):
        calls.append((config, vocab_size, measure))
        return FINDINGS

    monkeypatch.setattr(doctor, "diagnose", diagnose)
    return calls


def test_the_table_has_a_row_per_finding(run_command, diagnosed):
    code, out, _ = run_command("doctor", "--measure")
    assert (code, out) == (0, TABLE)
    assert diagnosed == [(None, 66, True)]


def test_json_is_the_findings(run_command, diagnosed):
    code, out, _ = run_command("doctor", "--json")
    assert (code, json.loads(out)) == (0, FINDINGS)


def test_a_run_is_diagnosed_with_its_model_and_settings(run_command, diagnosed, tiny_run):
    assert run_command("doctor", tiny_run.path)[0] == 0
    vocab_size = tiny_run.read_tokenizer().vocab_size
    assert diagnosed == [(tiny_run.read_config(), vocab_size, False)]


def test_this_machine_is_diagnosed(run_command, tiny_run):
    code, out, _ = run_command("doctor", tiny_run.path, "--json")
    assert code == 0
    assert json.loads(out)["layers"][0]["kernel"] in ("cudnn", "fused")


def test_more_than_one_run_is_refused(run_command):
    code, _, err = run_command("doctor", "one", "two")
    assert code == 2 and "at most one run directory. Received: one two." in err
