"""What this machine computes with: versions, libraries, devices, and which kernel runs.

It looks and measures and changes nothing. How its findings are shown is not its concern.
"""

import os
import platform
from importlib import metadata
from pathlib import Path
from typing import Any

from textgen.config import ModelConfig, RunConfig, TrainingConfig
from textgen.errors import DeviceError

_WANTED = {"tensorflow": ">=2.21,<2.22", "keras": ">=3.15.1,<4"}
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
    config: RunConfig | None = None, vocab_size: int = 66, *, measure: bool = False
) -> dict[str, Any]:
    """Look at the machine as training would.

    Args:
        config: Whose model and settings to look at; None: the defaults.
        vocab_size: Number of token ids of that model.
        measure: Also time training steps of each kernel that can run.

    Returns:
        Plain values: `versions`, `gpu`, `cpu`, `layers` and, if asked for, `measured`.
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


def _versions() -> list[dict[str, str]]:
    found = {name: _version(name) or "not found" for name in _WANTED}
    python = {"name": "python", "found": platform.python_version(), "wanted": ">=3.11,<3.14"}
    return [
        python,
        *({"name": name, "found": found[name], "wanted": _WANTED[name]} for name in _WANTED),
    ]


def _gpu() -> dict[str, Any]:
    import tensorflow as tf

    from textgen.models.kernels import GPU_LIBRARIES, gpu_names, why_no_gpu

    build = tf.sysconfig.get_build_info()
    return {
        "built_with_cuda": tf.test.is_built_with_cuda(),
        "wanted": {"cuda": build.get("cuda_version"), "cudnn": build.get("cudnn_version")},
        "found": {name: _found(name) for name in GPU_LIBRARIES},
        "hardware": Path("/proc/driver/nvidia/gpus").exists() or Path("/dev/nvidia0").exists(),
        "visible": gpu_names(),
        "blame": None if gpu_names() else why_no_gpu(),
    }


def _found(name: str) -> str | None:
    """Return the version of a GPU library, `"yes"` if it has none to tell; None if missing."""
    from textgen.models.kernels import library_is_there

    if not library_is_there(name):
        return None
    package = {"cuda": "nvidia-cuda-runtime-cu12", "cudnn": "nvidia-cudnn-cu12"}.get(name)
    return (package and _version(package)) or "yes"


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _instruction_sets() -> list[str]:
    from textgen.models.kernels import cpu_flags

    flags = cpu_flags()
    return [name for name in _INSTRUCTION_SETS if name in flags]


def _layers(config: RunConfig) -> list[dict[str, str | None]]:
    """Return the kernel of each recurrent layer, and what to blame if a faster one would run."""
    from textgen.models.kernels import choose_execution, why_no_gpu

    asked, cell = config.training, config.model.cell
    best = choose_execution(cell=cell)
    blames = []
    try:
        execution = choose_execution(asked.kernel, asked.matmul_dtype, cell)
    except DeviceError as error:
        execution = best
        blames.append(f"what the run asks for cannot run here: {error}")
    if execution.kernel != best.kernel:
        blames.append(f"--kernel {asked.kernel} was asked for")
    elif execution.matmul_dtype != best.matmul_dtype:
        blames.append(f"--matmul-dtype {asked.matmul_dtype} was asked for")
    if best.kernel != "cudnn":
        blames.append(f"cudnn: {why_no_gpu()}")
    return [
        {
            "name": f"{cell}_{i}",
            "kernel": execution.kernel,
            "kernel_reason": execution.kernel_reason,
            "matmul_dtype": execution.matmul_dtype,
            "matmul_dtype_reason": execution.matmul_dtype_reason,
            "blame": "; ".join(blames) or None,
        }
        for i in range(config.model.num_layers)
    ]


def _measure(
    model: ModelConfig, vocab_size: int, training: TrainingConfig
) -> list[dict[str, str | float]]:
    from textgen.models.kernels import choose_execution
    from textgen.training.throughput import measure_tokens_per_second

    rows: list[dict[str, str | float]] = []
    for kernel in ("cudnn", "fused", "reference"):
        for matmul_dtype in ("float32", "bfloat16", "float16"):
            try:
                execution = choose_execution(kernel, matmul_dtype, model.cell)
            except DeviceError:
                continue
            rate = measure_tokens_per_second(model, vocab_size, training, execution)
            rows.append(
                {"kernel": kernel, "matmul_dtype": matmul_dtype, "tokens_per_second": round(rate)}
            )
    return rows
