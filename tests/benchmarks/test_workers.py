"""Worker processes that take turns, and the subjects that need PyTorch."""

import importlib.util

import pytest

from benchmarks.workers import Worker, installed_subjects
from benchmarks.workload import Sizes

SUBJECTS = {
    "textgen": "benchmarks.peers.textgen_generate",
    "PyTorch": "benchmarks.peers.torch_generate",
}


def test_a_worker_answers_every_turn_and_exits():
    worker = Worker.start("memory", f"benchmarks.peers.memory_read {Sizes(8).flags()}")
    assert worker.run(1, 0, 5) > 0
    assert worker.run(1, 40, 5) > 0
    assert worker.peak_mib > 1
    worker.stop()
    assert worker.process.returncode == 0


def test_a_worker_that_fails_shows_its_error():
    with pytest.raises(SystemExit, match="No module named") as caught:
        Worker.start("the peer", "benchmarks.peers.missing")
    assert str(caught.value).startswith("the peer exited with status 1:\n")


@pytest.mark.parametrize("installed", [True, False])
def test_subjects_without_their_package_are_left_out_and_named(installed, monkeypatch, capsys):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: installed or None)
    expected = SUBJECTS if installed else {"textgen": SUBJECTS["textgen"]}
    assert installed_subjects(SUBJECTS) == expected
    assert ("Skipped PyTorch" in capsys.readouterr().err) != installed
