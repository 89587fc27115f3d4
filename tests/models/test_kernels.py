"""Which kernel and precision run, and what is said where they cannot."""

import pytest
import tensorflow as tf

from textgen.errors import DeviceError
from textgen.models import kernels
from textgen.models.kernels import Execution, choose_execution


@pytest.fixture
def no_gpu(monkeypatch):
    monkeypatch.setattr(kernels, "gpu_names", list)


@pytest.fixture
def one_gpu(monkeypatch):
    monkeypatch.setattr(kernels, "gpu_names", lambda: ["GPU:0"])


def _with_cpu_flags(monkeypatch, tmp_path, flags):
    (tmp_path / "cpuinfo").write_text(f"flags : {flags}\n")
    monkeypatch.setattr(kernels, "_CPU_INFO", tmp_path / "cpuinfo")


def test_without_a_gpu_the_fused_kernel_runs_and_says_why(no_gpu):
    execution = choose_execution()
    assert execution.kernel == "fused"
    assert "GPU" in execution.kernel_reason or "CUDA" in execution.kernel_reason


def test_with_a_gpu_cudnn_runs_in_float32(one_gpu):
    execution = choose_execution()
    assert (execution.kernel, execution.matmul_dtype, execution.shards) == ("cudnn", "float32", 1)


@pytest.mark.parametrize(
    "flags, matmul_dtype",
    [("avx2 amx_bf16", "bfloat16"), ("avx512_bf16", "bfloat16"), ("fma", "float32")],
)
def test_bfloat16_is_taken_where_the_cpu_has_a_unit_for_it(
    no_gpu, monkeypatch, tmp_path, flags, matmul_dtype
):
    _with_cpu_flags(monkeypatch, tmp_path, flags)
    assert choose_execution().matmul_dtype == matmul_dtype


@pytest.mark.parametrize(
    "kernel, matmul_dtype, words",
    [
        ("cudnn", "auto", ["tensorflow[and-cuda]", "--kernel fused"]),
        ("auto", "float16", ["cuDNN", "--matmul-dtype auto"]),
        ("reference", "bfloat16", ["reference", "--matmul-dtype auto"]),
    ],
)
def test_what_cannot_run_is_refused_with_what_is_missing(no_gpu, kernel, matmul_dtype, words):
    with pytest.raises(DeviceError) as caught:
        choose_execution(kernel, matmul_dtype)
    assert "\n" not in str(caught.value)
    for word in words:
        assert word in str(caught.value)


def test_what_was_asked_for_runs_and_is_recorded_as_asked(no_gpu):
    execution = choose_execution("reference", "float32")
    assert (execution.kernel, execution.kernel_reason) == ("reference", "asked for")
    assert (execution.matmul_dtype, execution.matmul_dtype_reason) == ("float32", "asked for")


@pytest.mark.parametrize(
    "shards, batch, sizes",
    [(2, 64, [32, 32]), (2, 17, [9, 8]), (4, 20, [10, 10]), (2, 15, [15]), (1, 64, [64])],
)
def test_a_batch_is_cut_into_equal_shards_that_are_worth_a_core(shards, batch, sizes):
    assert Execution(kernel="fused", shards=shards).shard_sizes(batch) == sizes


@pytest.mark.gpu
def test_on_a_gpu_cudnn_is_chosen():
    if not tf.config.list_logical_devices("GPU"):
        pytest.skip("no GPU is visible to TensorFlow")
    assert choose_execution().kernel == "cudnn"
