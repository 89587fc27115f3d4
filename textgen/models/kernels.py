"""Which implementation of the GRU runs, decided once and with its reason.

`cudnn` is NVIDIA's kernel, `fused` is ours for CPUs (`fused_gru`). Both compute
the same function of the same weights, so a checkpoint moves freely between them.
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tensorflow as tf

GruKernel = Literal["cudnn", "fused"]

# A lane fewer than this a core and the forks cost more than the second core brings.
_MIN_LANES_PER_SHARD = 8


@dataclass(frozen=True)
class KernelChoice:
    """The kernel that runs, and why.

    Attributes:
        name: `"cudnn"` or `"fused"`.
        reason: One sentence for the log and for `environment.json`.
        products: Dtype of the matrix products of a training step; evaluation keeps float32.
        shards: Parts of a batch that run side by side, each on one core.
    """

    name: GruKernel
    reason: str
    products: str = "float32"
    shards: int = 1

    def shard_sizes(self, batch_size: int | None) -> list[int | None]:
        """Return how many lanes each shard gets, as equal as can be; one shard for an unknown."""
        if batch_size is None:
            return [None]
        shards = max(1, min(self.shards, batch_size // _MIN_LANES_PER_SHARD))
        whole, rest = divmod(batch_size, shards)
        return [whole + (i < rest) for i in range(shards)]


def choose_gru_kernel() -> KernelChoice:
    """Return the fastest kernel that this machine can run."""
    if gpus := tf.config.list_logical_devices("GPU"):
        return KernelChoice("cudnn", f"{len(gpus)} GPU(s) visible to TensorFlow")
    products, unit = _fast_products()
    reason = f"no GPU is visible to TensorFlow; {products} products: {unit}"
    return KernelChoice("fused", reason, products, os.cpu_count() or 1)


def limit_threads() -> bool:
    """Give each op one thread and run as many ops at once as there are cores.

    The fused kernel runs its shards side by side; an op that forks would wait for a
    thread that is busy with the other shard. Does nothing where a GPU is visible.

    Returns:
        False if TensorFlow had started its threads already, so that nothing could be set.
    """
    if tf.config.list_physical_devices("GPU"):
        return True
    try:
        tf.config.threading.set_intra_op_parallelism_threads(1)
        tf.config.threading.set_inter_op_parallelism_threads(os.cpu_count() or 1)
    except RuntimeError:
        return False
    return True


def _fast_products() -> tuple[str, str]:
    """Return the dtype that matrix products are fastest in, and the unit that makes it so."""
    try:
        flags = set(Path("/proc/cpuinfo").read_text("utf-8").split())
    except OSError:
        return "float32", "the instruction set is unknown"
    for unit in ("amx_bf16", "avx512_bf16"):
        if unit in flags:
            return "bfloat16", f"the CPU has {unit}"
    return "float32", "the CPU has no bfloat16 unit"
