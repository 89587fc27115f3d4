"""What a run ran on: versions, machine, and the kernel with its reason."""

import os
import platform
from importlib import metadata
from typing import Any

import tensorflow as tf

from textgen.models.kernels import Execution

_PACKAGES = ("tensorflow", "keras", "numpy", "sentencepiece", "tensorflow-datasets")


def describe_environment(execution: Execution, seed: int) -> dict[str, Any]:
    """Describe the machine and its software.

    Args:
        execution: How the model is computed.
        seed: The run's seed.

    Returns:
        Plain values for `environment.json`.
    """
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpu_count": os.cpu_count(),
        "packages": {name: _version(name) for name in _PACKAGES},
        "seed": seed,
        "devices": [device.name for device in tf.config.list_logical_devices()],
        "kernel": execution.kernel,
        "gru_kernel_reason": execution.kernel_reason,
        "matmul_dtype": execution.matmul_dtype,
        "matmul_dtype_reason": execution.matmul_dtype_reason,
        "shards": execution.shards,
    }


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
