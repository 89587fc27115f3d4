"""The choice of kernel and matmul dtype, its reasons, and the errors where none can run."""

from dataclasses import FrozenInstanceError
from typing import get_args

import pytest
import tensorflow as tf

from textgen.config import ResolvedDtype, ResolvedKernel
from textgen.errors import DeviceError
from textgen.models import kernels
from textgen.models.kernels import Execution, choose_execution


@pytest.fixture
def no_gpu(monkeypatch):
    monkeypatch.setattr(kernels, "gpu_names", list)


@pytest.fixture
def one_gpu(monkeypatch):
    monkeypatch.setattr(kernels, "gpu_names", lambda: ["GPU:0"])


def set_cpu_flags(monkeypatch, tmp_path, flags):
    (tmp_path / "cpuinfo").write_text(f"flags : {flags}\n")
    monkeypatch.setattr(kernels, "_CPU_INFO", tmp_path / "cpuinfo")


def test_without_a_gpu_the_fused_kernel_runs_with_the_reason(no_gpu, monkeypatch):
    monkeypatch.setattr(kernels, "why_no_gpu", lambda: "the driver is missing")
    execution = choose_execution()
    assert execution.kernel == "fused"
    assert execution.kernel_reason == "no GPU: the driver is missing"


def test_the_fused_kernel_has_a_shard_per_core(no_gpu, monkeypatch):
    monkeypatch.setattr(kernels, "core_count", lambda: 6)
    assert choose_execution().shards == 6
    assert choose_execution("reference").shards == 1


@pytest.mark.parametrize(
    ("cell", "kernel", "reason"),
    [
        ("gru", "cudnn", "1 GPU(s) visible to TensorFlow"),
        ("lstm", "cudnn", "1 GPU(s) visible to TensorFlow"),
        ("rnn", "fused", "cuDNN has no kernel for the plain cell"),
    ],
)
def test_with_a_gpu_cudnn_runs_the_cells_that_it_has_in_float32(one_gpu, cell, kernel, reason):
    execution = choose_execution(cell=cell)
    assert (execution.kernel, execution.kernel_reason) == (kernel, reason)
    assert (execution.matmul_dtype, execution.shards) == ("float32", 1)


@pytest.mark.parametrize(
    ("flags", "matmul_dtype", "reason"),
    [
        ("avx2 amx_bf16", "bfloat16", "the CPU has amx_bf16"),
        ("avx512_bf16", "bfloat16", "the CPU has avx512_bf16"),
        ("fma", "float32", "the CPU has no bfloat16 unit"),
    ],
)
def test_bfloat16_is_chosen_if_the_cpu_has_a_unit_for_it(
    no_gpu, monkeypatch, tmp_path, flags, matmul_dtype, reason
):
    set_cpu_flags(monkeypatch, tmp_path, flags)
    execution = choose_execution()
    assert (execution.matmul_dtype, execution.matmul_dtype_reason) == (matmul_dtype, reason)
    assert choose_execution("reference").matmul_dtype == "float32"


def test_a_cpu_whose_flags_cannot_be_read_has_no_known_unit(monkeypatch, tmp_path):
    monkeypatch.setattr(kernels, "_CPU_INFO", tmp_path / "nothing")
    assert kernels.cpu_flags() == set()
    assert kernels.bfloat16_unit() is None


@pytest.mark.parametrize(
    ("kernel", "matmul_dtype", "cell", "words"),
    [
        ("cudnn", "auto", "gru", ["tensorflow[and-cuda]", "Received: no GPU", "`kernel=fused`"]),
        ("cudnn", "auto", "rnn", ["Received: rnn", "`kernel=fused`"]),
        ("auto", "float16", "gru", ["cuDNN", "Received: `kernel=fused`", "`matmul_dtype=auto`"]),
        ("reference", "bfloat16", "gru", ["`kernel=reference`", "`matmul_dtype=auto`"]),
    ],
)
def test_what_cannot_run_is_refused_with_a_way_out(no_gpu, kernel, matmul_dtype, cell, words):
    with pytest.raises(DeviceError) as caught:
        choose_execution(kernel, matmul_dtype, cell)
    assert "\n" not in str(caught.value)
    assert "--" not in str(caught.value)
    for word in ("Received: ", *words):
        assert word in str(caught.value)


def test_cudnn_is_refused_for_the_plain_cell_with_a_gpu_too(one_gpu):
    with pytest.raises(DeviceError, match="plain cell"):
        choose_execution("cudnn", cell="rnn")


def test_a_kernel_and_dtype_that_can_run_are_used_as_requested(no_gpu):
    execution = choose_execution("reference", "float32")
    assert (execution.kernel, execution.kernel_reason) == ("reference", "requested")
    assert (execution.matmul_dtype, execution.matmul_dtype_reason) == ("float32", "requested")


@pytest.mark.parametrize("kernel", get_args(ResolvedKernel))
@pytest.mark.parametrize("matmul_dtype", get_args(ResolvedDtype))
def test_with_a_gpu_each_dtype_is_accepted_for_the_kernels_that_compute_in_it(
    one_gpu, kernel, matmul_dtype
):
    kernels_of = {"float32": {"cudnn", "fused", "reference"}, "float16": {"cudnn"}}
    if kernel in kernels_of.get(matmul_dtype, {"fused"}):
        assert choose_execution(kernel, matmul_dtype).matmul_dtype == matmul_dtype
    else:
        with pytest.raises(DeviceError, match=f"Received: `kernel={kernel}`"):
            choose_execution(kernel, matmul_dtype)


@pytest.mark.parametrize(
    ("has_cuda", "libraries", "reason"),
    [
        (False, {"driver", "cuda", "cudnn"}, "this TensorFlow is built without CUDA"),
        (True, {"cuda", "cudnn"}, "there is no NVIDIA driver (libcuda.so.1 not found)"),
        (True, {"driver", "cuda"}, "not found: libcudnn.so.9"),
        (True, {"driver"}, "not found: libcudart.so.12, libcudnn.so.9"),
        (
            True,
            {"driver", "cuda", "cudnn"},
            "the driver reports no GPU to TensorFlow (CUDA_VISIBLE_DEVICES may hide it)",
        ),
    ],
)
def test_the_reason_for_no_gpu_is_the_first_that_applies(monkeypatch, has_cuda, libraries, reason):
    monkeypatch.setattr(tf.test, "is_built_with_cuda", lambda: has_cuda)
    monkeypatch.setattr(kernels, "can_load_library", lambda name: name in libraries)
    assert kernels.why_no_gpu() == reason


@pytest.mark.parametrize(
    "shards, batch, sizes",
    [
        (2, 64, [32, 32]),
        (2, 17, [9, 8]),
        (4, 20, [10, 10]),
        (2, 15, [15]),
        (1, 64, [64]),
        (4, None, [None]),
    ],
)
def test_a_batch_is_split_into_equal_shards_of_at_least_eight_lanes(shards, batch, sizes):
    assert Execution(kernel="fused", shards=shards).shard_sizes(batch) == sizes


def test_an_execution_is_frozen():
    with pytest.raises(FrozenInstanceError):
        Execution(kernel="fused").kernel = "reference"


@pytest.mark.gpu
def test_on_a_gpu_cudnn_is_chosen():
    if not tf.config.list_logical_devices("GPU"):
        pytest.skip("no GPU is visible to TensorFlow")
    assert choose_execution().kernel == "cudnn"
