"""A report on this machine: versions, GPU libraries, CPU, and the kernel that training uses.

It inspects and measures, and changes nothing. This module does NOT know how the report is shown.
"""

import os
import platform
from pathlib import Path
from typing import Any, get_args

import tensorflow as tf

from textgen.config import ModelConfig, ResolvedDtype, ResolvedKernel, RunConfig, TrainingConfig
from textgen.errors import DeviceError
from textgen.models.kernels import (
    GPU_LIBRARIES,
    Execution,
    can_load_library,
    choose_execution,
    cpu_flags,
    gpu_names,
    why_no_gpu,
)
from textgen.training.throughput import measure_tokens_per_second
from textgen.version import installed_version, required_version

# About the alphabet of an English text: tinyshakespeare has 65 characters.
DEFAULT_VOCAB_SIZE = 66

_PACKAGES = ("tensorflow", "keras")
_GPU_PACKAGES = {"cuda": "nvidia-cuda-runtime-cu12", "cudnn": "nvidia-cudnn-cu12"}
_GPU_DEVICES = (Path("/proc/driver/nvidia/gpus"), Path("/dev/nvidia0"))
_INSTRUCTION_SETS = (
    "avx2",
    "fma",
    "avx512f",
    "avx512_vnni",
    "avx512_bf16",
    "amx_tile",
    "amx_bf16",
    "amx_int8",
)


def diagnose(
    config: RunConfig | None = None,
    vocab_size: int = DEFAULT_VOCAB_SIZE,
    *,
    measure: bool = False,
) -> dict[str, Any]:
    """Report what training would use on this machine.

    Args:
        config: Model and settings of a run; None: the defaults.
        vocab_size: Number of token ids of that model.
        measure: Also measure the training throughput of each kernel that can run.

    Returns:
        Plain values: `versions`, `gpu`, `cpu`, `layers` and, with `measure`, `measured`.
    """
    config = config or RunConfig()
    findings = {
        "versions": _versions(),
        "gpu": _gpu(),
        "cpu": {"cores": os.cpu_count(), "instruction_sets": _instruction_sets()},
        "layers": _layers(config),
    }
    if measure:
        findings["measured"] = _measure(config.model, vocab_size, config.training)
    return findings


def _versions() -> list[dict[str, str | None]]:
    """Return the version of Python and of each package, and the versions that are supported."""
    found = {name: installed_version(name) or "not found" for name in _PACKAGES}
    return [
        {"name": name, "found": version, "wanted": required_version(name)}
        for name, version in [("python", platform.python_version()), *found.items()]
    ]


def _gpu() -> dict[str, Any]:
    build = tf.sysconfig.get_build_info()
    return {
        "built_with_cuda": tf.test.is_built_with_cuda(),
        "wanted": {"cuda": build.get("cuda_version"), "cudnn": build.get("cudnn_version")},
        "found": {name: _library_version(name) for name in GPU_LIBRARIES},
        "hardware": any(path.exists() for path in _GPU_DEVICES),
        "visible": gpu_names(),
        "reason": None if gpu_names() else why_no_gpu(),
    }


def _library_version(name: str) -> str | None:
    """Return the version of a GPU library, `"yes"` if it is unknown, None without the library."""
    if not can_load_library(name):
        return None
    package = _GPU_PACKAGES.get(name)
    return (package and installed_version(package)) or "yes"


def _instruction_sets() -> list[str]:
    flags = cpu_flags()
    return [name for name in _INSTRUCTION_SETS if name in flags]


def _layers(config: RunConfig) -> list[dict[str, str | None]]:
    """Return the kernel of each recurrent layer, and why no faster one is used."""
    training, cell = config.training, config.model.cell
    fastest = choose_execution(cell=cell)
    reasons = []
    try:
        execution = choose_execution(training.kernel, training.matmul_dtype, cell)
    except DeviceError as error:
        execution = fastest
        reasons.append(f"the requested settings are unavailable on this machine: {error}")
    reasons += _reasons(execution, fastest, training)
    return [
        {
            "name": f"{cell}_{i}",
            "kernel": execution.kernel,
            "kernel_reason": execution.kernel_reason,
            "matmul_dtype": execution.matmul_dtype,
            "matmul_dtype_reason": execution.matmul_dtype_reason,
            "reason": "; ".join(reasons) or None,
        }
        for i in range(config.model.num_layers)
    ]


def _reasons(execution: Execution, fastest: Execution, training: TrainingConfig) -> list[str]:
    """Return why the kernel is not the fastest one available, and why that one is not cuDNN."""
    reasons = []
    if execution.kernel != fastest.kernel:
        reasons.append(f"`kernel={training.kernel}` was requested")
    elif execution.matmul_dtype != fastest.matmul_dtype:
        reasons.append(f"`matmul_dtype={training.matmul_dtype}` was requested")
    if fastest.kernel != "cudnn":
        reasons.append(f"cudnn: {why_no_gpu()}")
    return reasons


def _measure(
    model: ModelConfig, vocab_size: int, training: TrainingConfig
) -> list[dict[str, str | float]]:
    """Return the throughput of each kernel and dtype that can run on this machine."""
    rows: list[dict[str, str | float]] = []
    for kernel in get_args(ResolvedKernel):
        for matmul_dtype in get_args(ResolvedDtype):
            try:
                execution = choose_execution(kernel, matmul_dtype, model.cell)
            except DeviceError:
                continue
            rate = measure_tokens_per_second(model, vocab_size, training, execution)
            rows.append(
                {"kernel": kernel, "matmul_dtype": matmul_dtype, "tokens_per_second": round(rate)}
            )
    return rows
