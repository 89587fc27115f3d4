"""The core count respects the affinity of the process."""

import os

import pytest

from textgen.machine import core_count


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no affinity here")
def test_cores_that_the_process_may_not_use_do_not_count():
    allowed = os.sched_getaffinity(0)
    assert core_count() == len(allowed)
    try:
        os.sched_setaffinity(0, {min(allowed)})
        assert core_count() == 1
    finally:
        os.sched_setaffinity(0, allowed)


@pytest.mark.parametrize("reported, expected", [(6, 6), (None, 1)])
def test_without_affinity_all_cores_count(monkeypatch, reported, expected):
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: reported)
    assert core_count() == expected
