"""The doctor: what it finds, and whom it blames."""

import json

import pytest
import tensorflow as tf

from textgen.cli import main
from textgen.config import ModelConfig, RunConfig, TrainingConfig
from textgen.models import kernels
from textgen.training.doctor import diagnose


def test_every_layer_has_its_kernel_and_a_faster_one_has_somebody_to_blame():
    if tf.config.list_logical_devices("GPU"):
        pytest.skip("a GPU is visible")
    config = RunConfig(
        model=ModelConfig(num_layers=3),
        training=TrainingConfig(kernel="reference", matmul_dtype="float32"),
    )
    layers = diagnose(config)["layers"]
    assert [layer["name"] for layer in layers] == ["gru_0", "gru_1", "gru_2"]
    for layer in layers:
        assert layer["kernel"] == "reference"
        assert "--kernel reference was asked for" in layer["blame"]
        assert "cudnn: " in layer["blame"]


def test_a_run_that_asks_for_what_cannot_run_here_is_diagnosed_all_the_same():
    if tf.config.list_logical_devices("GPU"):
        pytest.skip("a GPU is visible")
    config = RunConfig(training=TrainingConfig(kernel="cudnn"))
    (layer,) = diagnose(config)["layers"]
    assert layer["kernel"] == "fused"
    assert "cannot run here" in layer["blame"]


@pytest.mark.parametrize(
    "found, blame",
    [
        ({"driver": False, "cuda": True, "cudnn": True}, "no NVIDIA driver"),
        ({"driver": True, "cuda": True, "cudnn": False}, "libcudnn.so.9"),
        ({"driver": True, "cuda": True, "cudnn": True}, "CUDA_VISIBLE_DEVICES"),
    ],
)
def test_the_nearest_cause_is_blamed(monkeypatch, found, blame):
    if tf.config.list_logical_devices("GPU"):
        pytest.skip("a GPU is visible")
    monkeypatch.setattr(kernels, "library_is_there", found.get)
    monkeypatch.setattr(tf.test, "is_built_with_cuda", lambda: True)
    assert blame in diagnose()["gpu"]["blame"]


def test_a_tensorflow_without_cuda_is_blamed_first(monkeypatch):
    if tf.config.list_logical_devices("GPU"):
        pytest.skip("a GPU is visible")
    monkeypatch.setattr(tf.test, "is_built_with_cuda", lambda: False)
    assert "without CUDA" in diagnose()["gpu"]["blame"]


def test_measuring_gives_a_rate_for_each_kernel_that_can_run():
    small = RunConfig(
        model=ModelConfig(embedding_dim=4, hidden_size=8),
        training=TrainingConfig(batch_size=4, seq_len=5),
    )
    rows = diagnose(small, 7, measure=True)["measured"]
    assert {("fused", "float32"), ("fused", "bfloat16"), ("reference", "float32")} <= {
        (row["kernel"], row["matmul_dtype"]) for row in rows
    }
    assert all(row["tokens_per_second"] > 0 for row in rows)


def test_the_command_prints_a_table_for_people_and_json_for_machines(capfd, tiny_run):
    assert main(["doctor", str(tiny_run.path)], prog="textgen") == 0
    table = capfd.readouterr().out
    assert "tensorflow" in table and "gru_0" in table
    assert main(["doctor", str(tiny_run.path), "--json"], prog="textgen") == 0
    findings = json.loads(capfd.readouterr().out)
    assert findings["layers"][0]["kernel"] in ("cudnn", "fused")
    assert main(["doctor", "one", "two"], prog="textgen") == 2
