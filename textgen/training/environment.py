"""What a run ran on: versions, machine, and the GRU kernel with its reason."""

import os
import platform
from importlib import metadata
from typing import Any

import tensorflow as tf

from textgen.models.kernels import KernelChoice

_PACKAGES = ("tensorflow", "keras", "numpy", "sentencepiece", "tensorflow-datasets")


def describe_environment(kernel: KernelChoice) -> dict[str, Any]:
    """Describe the machine and its software.

    Args:
        kernel: The GRU kernel that runs.

    Returns:
        Plain values for `environment.json`.
    """
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpu_count": os.cpu_count(),
        "packages": {name: metadata.version(name) for name in _PACKAGES},
        "devices": [device.name for device in tf.config.list_logical_devices()],
        "gru_kernel": kernel.name,
        "gru_kernel_reason": kernel.reason,
        "products": kernel.products,
        "shards": kernel.shards,
    }
