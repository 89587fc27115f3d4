"""Which implementation of the GRU runs, decided once and with its reason.

`cudnn` is NVIDIA's kernel, `fused` is ours for CPUs (`fused_gru`). Both compute
the same function of the same weights, so a checkpoint moves freely between them.
"""

from dataclasses import dataclass
from typing import Literal

import tensorflow as tf

GruKernel = Literal["cudnn", "fused"]


@dataclass(frozen=True)
class KernelChoice:
    """The kernel that runs, and why.

    Attributes:
        name: `"cudnn"` or `"fused"`.
        reason: One sentence for the log and for `environment.json`.
    """

    name: GruKernel
    reason: str


def choose_gru_kernel() -> KernelChoice:
    """Return the fastest kernel that this machine can run."""
    if gpus := tf.config.list_logical_devices("GPU"):
        return KernelChoice("cudnn", f"{len(gpus)} GPU(s) visible to TensorFlow")
    return KernelChoice("fused", "no GPU is visible to TensorFlow")
