"""The doctor: versions, the kernel of each layer, and why a faster one is not used."""

import pytest
import tensorflow as tf

from textgen.config import ModelConfig, RunConfig, TrainingConfig
from textgen.models import kernels
from textgen.training import doctor
from textgen.training.doctor import diagnose


@pytest.fixture
def without_gpu():
    if tf.config.list_logical_devices("GPU"):
        pytest.skip("a GPU is visible")


def test_versions_are_compared_with_the_bounds_of_the_package(monkeypatch):
    bounds = {"python": ">=3.11,<3.14", "tensorflow": ">=2.21,<2.22", "keras": None}
    monkeypatch.setattr(doctor, "required_version", bounds.get)
    monkeypatch.setattr(doctor, "installed_version", {"tensorflow": "2.21.0"}.get)
    monkeypatch.setattr(doctor.platform, "python_version", lambda: "3.12.1")
    assert diagnose()["versions"] == [
        {"name": "python", "found": "3.12.1", "wanted": ">=3.11,<3.14"},
        {"name": "tensorflow", "found": "2.21.0", "wanted": ">=2.21,<2.22"},
        {"name": "keras", "found": "not found", "wanted": None},
    ]


def test_every_layer_has_its_kernel_and_the_reason_for_it(without_gpu):
    config = RunConfig(
        model=ModelConfig(num_layers=3, cell="lstm"),
        training=TrainingConfig(kernel="reference", matmul_dtype="float32"),
    )
    layers = diagnose(config)["layers"]
    assert [layer["name"] for layer in layers] == ["lstm_0", "lstm_1", "lstm_2"]
    for layer in layers:
        assert (layer["kernel"], layer["matmul_dtype"]) == ("reference", "float32")
        assert "`kernel=reference` was requested" in layer["reason"]
        assert "cudnn: " in layer["reason"]


def test_a_requested_dtype_is_the_reason_for_a_slower_layer(without_gpu, monkeypatch):
    monkeypatch.setattr(kernels, "bfloat16_unit", lambda: "amx_bf16")
    config = RunConfig(training=TrainingConfig(matmul_dtype="float32"))
    (layer,) = diagnose(config)["layers"]
    assert (layer["kernel"], layer["matmul_dtype"]) == ("fused", "float32")
    assert layer["reason"].startswith("`matmul_dtype=float32` was requested; cudnn: ")
    (layer,) = diagnose()["layers"]
    assert (layer["matmul_dtype"], layer["matmul_dtype_reason"]) == (
        "bfloat16",
        "the CPU has amx_bf16",
    )
    assert layer["reason"].startswith("cudnn: ")


def test_settings_that_are_unavailable_here_are_diagnosed_with_the_fastest_kernel(without_gpu):
    config = RunConfig(training=TrainingConfig(kernel="cudnn"))
    (layer,) = diagnose(config)["layers"]
    assert layer["kernel"] == "fused"
    assert "unavailable on this machine: `kernel=cudnn`" in layer["reason"]


@pytest.mark.parametrize(
    "found, reason",
    [
        ({"driver": False, "cuda": True, "cudnn": True}, "no NVIDIA driver"),
        ({"driver": True, "cuda": True, "cudnn": False}, "libcudnn.so.9"),
        ({"driver": True, "cuda": True, "cudnn": True}, "CUDA_VISIBLE_DEVICES"),
    ],
)
def test_the_first_cause_that_applies_is_the_reason(without_gpu, monkeypatch, found, reason):
    monkeypatch.setattr(kernels, "can_load_library", found.get)
    monkeypatch.setattr(tf.test, "is_built_with_cuda", lambda: True)
    assert reason in diagnose()["gpu"]["reason"]


def test_a_tensorflow_without_cuda_is_the_first_reason(without_gpu, monkeypatch):
    monkeypatch.setattr(tf.test, "is_built_with_cuda", lambda: False)
    assert "without CUDA" in diagnose()["gpu"]["reason"]


@pytest.mark.parametrize(
    "can_load, version, shown", [(False, "12.9", None), (True, "12.9", "12.9"), (True, None, "yes")]
)
def test_a_gpu_library_has_the_version_of_its_package(monkeypatch, can_load, version, shown):
    monkeypatch.setattr(doctor, "can_load_library", lambda name: can_load)
    monkeypatch.setattr(doctor, "installed_version", lambda package: version)
    found = diagnose()["gpu"]["found"]
    assert (found["cuda"], found["cudnn"]) == (shown, shown)
    assert found["driver"] == ("yes" if can_load else None)


def test_instruction_sets_are_those_among_the_flags_of_the_cpu(monkeypatch):
    monkeypatch.setattr(doctor, "cpu_flags", lambda: {"amx_bf16", "sse2", "avx2"})
    assert diagnose()["cpu"]["instruction_sets"] == ["avx2", "amx_bf16"]


def test_every_kernel_that_can_run_is_measured_with_every_dtype(without_gpu, monkeypatch):
    monkeypatch.setattr(
        doctor,
        "measure_tokens_per_second",
        lambda model, vocab_size, training, execution: {
            ("fused", "float32"): 100.4 + vocab_size,
            ("fused", "bfloat16"): 200.6 + training.batch_size,
            ("reference", "float32"): 50.0 + model.hidden_size,
        }[execution.kernel, execution.matmul_dtype],
    )
    config = RunConfig(model=ModelConfig(hidden_size=8), training=TrainingConfig(batch_size=4))
    assert diagnose(config, 7, measure=True)["measured"] == [
        {"kernel": "fused", "matmul_dtype": "float32", "tokens_per_second": 107},
        {"kernel": "fused", "matmul_dtype": "bfloat16", "tokens_per_second": 205},
        {"kernel": "reference", "matmul_dtype": "float32", "tokens_per_second": 58},
    ]
    assert "measured" not in diagnose(config, 7)
