"""The software and hardware that a run was trained on."""

import os
import platform
from typing import Any

import tensorflow as tf

from textgen.config.migrations import ENVIRONMENT_SCHEMA_VERSION
from textgen.models.kernels import Execution
from textgen.version import installed_version

_PACKAGES = ("tensorflow", "keras", "numpy", "sentencepiece", "tensorflow-datasets")


def describe_environment(execution: Execution, seed: int) -> dict[str, Any]:
    """Describe this machine and its software.

    Args:
        execution: Kernel and matmul dtype, with the reasons for them.
        seed: The run's seed.

    Returns:
        The values of `environment.json`, `schema_version` first.
    """
    return {
        "schema_version": ENVIRONMENT_SCHEMA_VERSION,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpu_count": os.cpu_count(),
        "packages": {name: installed_version(name) for name in _PACKAGES},
        "seed": seed,
        "devices": [device.name for device in tf.config.list_logical_devices()],
        "kernel": execution.kernel,
        "kernel_reason": execution.kernel_reason,
        "matmul_dtype": execution.matmul_dtype,
        "matmul_dtype_reason": execution.matmul_dtype_reason,
        "shards": execution.shards,
    }
