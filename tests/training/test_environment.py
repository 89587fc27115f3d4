"""The record of software and hardware in `environment.json`."""

import json
import platform

import keras
import tensorflow as tf

from textgen.models.kernels import Execution
from textgen.runs import RunDirectory
from textgen.training import environment
from textgen.training.environment import describe_environment

EXECUTION = Execution(
    kernel="fused",
    kernel_reason="no GPU: no driver",
    matmul_dtype="bfloat16",
    matmul_dtype_reason="the CPU has amx_bf16",
    shards=2,
)


def test_kernel_and_dtype_are_recorded_with_their_reasons():
    found = describe_environment(EXECUTION, seed=7)
    assert found["schema_version"] == 2
    assert (found["kernel"], found["kernel_reason"]) == ("fused", "no GPU: no driver")
    assert found["matmul_dtype"] == "bfloat16"
    assert found["matmul_dtype_reason"] == "the CPU has amx_bf16"
    assert (found["shards"], found["seed"]) == (2, 7)


def test_versions_are_those_in_use(monkeypatch):
    monkeypatch.setattr(environment, "_PACKAGES", ("tensorflow", "keras", "no-such-package"))
    found = describe_environment(EXECUTION, seed=7)
    assert found["python"] == platform.python_version()
    assert found["packages"] == {
        "tensorflow": tf.__version__,
        "keras": keras.__version__,
        "no-such-package": None,
    }


def test_the_record_survives_the_run_directory(tmp_path):
    run = RunDirectory(tmp_path)
    stored = describe_environment(EXECUTION, seed=7)
    run.write_environment(stored)
    assert json.loads((tmp_path / "environment.json").read_text("utf-8")) == stored
    expected = {name: value for name, value in stored.items() if name != "schema_version"}
    assert run.read_environment() == expected
