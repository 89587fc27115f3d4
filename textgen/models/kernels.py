"""Choice of the recurrent kernel and of the matmul dtype, made once, with reasons.

`cudnn` is NVIDIA's, `fused` is ours for CPUs (`recurrence.fused`), `reference` is a plain loop
(`recurrence.reference`). All compute the same function of the same weights, so any of them can
resume a checkpoint. Requesting a kernel or dtype that cannot run is an error that says what is
missing; there is no silent fallback.
"""

import ctypes
from dataclasses import dataclass
from pathlib import Path

import tensorflow as tf

from textgen.config import Cell, Kernel, MatmulDtype, ResolvedDtype, ResolvedKernel
from textgen.errors import DeviceError
from textgen.machine import core_count
from textgen.models.layout import Layout

# With fewer lanes per shard, starting the shards costs more than the other cores save.
_MIN_LANES_PER_SHARD = 8
_BFLOAT16_UNITS = ("amx_bf16", "avx512_bf16")
_CPU_INFO = Path("/proc/cpuinfo")
GPU_LIBRARIES = {"driver": "libcuda.so.1", "cuda": "libcudart.so.12", "cudnn": "libcudnn.so.9"}
_INSTALL_CUDA = 'pip install "tensorflow[and-cuda]" on a machine with an NVIDIA GPU and its driver'


@dataclass(frozen=True, kw_only=True)
class Execution:
    """The kernel, the matmul dtype and the number of shards that compute a model.

    Attributes:
        kernel: Implementation of the recurrence.
        kernel_reason: Why it was chosen, in a few words, for the log and `environment.json`.
        matmul_dtype: Dtype of the matrix products of a training step. Weights, gates, states,
            loss and all of evaluation stay float32; only `"float16"` applies to the whole cuDNN
            layer, in evaluation too.
        matmul_dtype_reason: Why it was chosen.
        shards: Parts of a batch that are computed in parallel, one core each.
    """

    kernel: ResolvedKernel
    kernel_reason: str = "requested"
    matmul_dtype: ResolvedDtype = "float32"
    matmul_dtype_reason: str = "requested"
    shards: int = 1

    @property
    def layout(self) -> Layout:
        """The layout of the windows inside the model."""
        return Layout.of(self.kernel)

    def shard_sizes(self, batch_size: int | None) -> list[int | None]:
        """Return the number of lanes of each shard, as equal as possible.

        A batch of unknown size, None, is one shard.
        """
        if batch_size is None:
            return [None]
        shards = max(1, min(self.shards, batch_size // _MIN_LANES_PER_SHARD))
        quotient, remainder = divmod(batch_size, shards)
        return [quotient + (i < remainder) for i in range(shards)]


def choose_execution(
    kernel: Kernel = "auto", matmul_dtype: MatmulDtype = "auto", cell: Cell = "gru"
) -> Execution:
    """Choose how a model is computed on this machine.

    Args:
        kernel: The requested kernel; `"auto"`: cuDNN on a GPU, else the fused kernel.
        matmul_dtype: The requested dtype; `"auto"`: bfloat16 if the fused kernel runs and the
            CPU has a unit for it, else float32.
        cell: Cell of the recurrent layers; cuDNN has no kernel for the plain one.

    Returns:
        The choice with its reasons.

    Raises:
        DeviceError: The request cannot run here; the message says what is missing.
    """
    name, kernel_reason = _choose_kernel(kernel, cell)
    dtype, matmul_dtype_reason = _choose_matmul_dtype(matmul_dtype, name)
    shards = core_count() if name == "fused" and not gpu_names() else 1
    return Execution(
        kernel=name,
        kernel_reason=kernel_reason,
        matmul_dtype=dtype,
        matmul_dtype_reason=matmul_dtype_reason,
        shards=shards,
    )


def gpu_names() -> list[str]:
    """Return the GPUs that TensorFlow can use."""
    return [device.name for device in tf.config.list_logical_devices("GPU")]


def cpu_flags() -> set[str]:
    """Return the words of `/proc/cpuinfo`, the CPU's flags among them; empty if it is missing."""
    try:
        return set(_CPU_INFO.read_text("utf-8").split())
    except OSError:
        return set()


def bfloat16_unit() -> str | None:
    """Return the flag of the CPU's bfloat16 unit; None if it has none or its flags are unknown."""
    flags = cpu_flags()
    return next((unit for unit in _BFLOAT16_UNITS if unit in flags), None)


def limit_threads() -> bool:
    """Limit each operation to one thread, and run one operation per core at a time.

    The fused kernel runs its shards in parallel; an operation that uses several threads would
    wait for one that computes another shard. Does nothing if a GPU is visible.

    Returns:
        False if TensorFlow has already started its threads, in which case the limits do not apply.
    """
    set_already = tf.config.threading.get_intra_op_parallelism_threads() == 1
    if set_already or tf.config.list_physical_devices("GPU"):
        return True
    try:
        tf.config.threading.set_intra_op_parallelism_threads(1)
        tf.config.threading.set_inter_op_parallelism_threads(core_count())
    except RuntimeError:
        return False
    return True


def can_load_library(name: str) -> bool:
    """Return whether the library `name` of `GPU_LIBRARIES` can be loaded."""
    try:
        ctypes.CDLL(GPU_LIBRARIES[name])
    except OSError:
        return False
    return True


def why_no_gpu() -> str:
    """Return why TensorFlow cannot use a GPU: the first of the possible causes that applies."""
    if not tf.test.is_built_with_cuda():
        return "this TensorFlow is built without CUDA"
    missing = [name for name in GPU_LIBRARIES if not can_load_library(name)]
    if "driver" in missing:
        return f"there is no NVIDIA driver ({GPU_LIBRARIES['driver']} not found)"
    if missing:
        return f"not found: {', '.join(GPU_LIBRARIES[name] for name in missing)}"
    return "the driver reports no GPU to TensorFlow (CUDA_VISIBLE_DEVICES may hide it)"


def _choose_kernel(requested: Kernel, cell: Cell) -> tuple[ResolvedKernel, str]:
    """Return the kernel and the reason for it."""
    gpus = gpu_names()
    if requested == "cudnn":
        _require_cudnn(cell, bool(gpus))
    if requested != "auto":
        return requested, "requested"
    if gpus and cell == "rnn":
        return "fused", "cuDNN has no kernel for the plain cell"
    if gpus:
        return "cudnn", f"{len(gpus)} GPU(s) visible to TensorFlow"
    return "fused", f"no GPU: {why_no_gpu()}"


def _require_cudnn(cell: Cell, has_gpu: bool) -> None:
    if cell == "rnn":
        raise DeviceError(
            "`kernel=cudnn` needs the `cell` gru or lstm: cuDNN has no kernel for the plain "
            "cell. Received: rnn. Use `kernel=fused`."
        )
    if not has_gpu:
        raise DeviceError(
            "`kernel=cudnn` needs a GPU that TensorFlow can use. Received: no GPU; "
            f"{why_no_gpu()}. Install it with {_INSTALL_CUDA}, or use `kernel=fused`."
        )


def _choose_matmul_dtype(
    requested: MatmulDtype, kernel: ResolvedKernel
) -> tuple[ResolvedDtype, str]:
    """Return the dtype and the reason for it."""
    if requested == "float16" and kernel != "cudnn":
        raise DeviceError(
            f"`matmul_dtype=float16` needs the cuDNN kernel on a GPU. Received: `kernel={kernel}`. "
            f"Install it with {_INSTALL_CUDA}, or use `matmul_dtype=auto`."
        )
    if requested == "bfloat16" and kernel != "fused":
        raise DeviceError(
            f"`matmul_dtype=bfloat16` needs the fused kernel. Received: `kernel={kernel}`, which "
            "would compute in float32. Use `matmul_dtype=auto`."
        )
    if requested != "auto":
        return requested, "requested"
    if kernel != "fused":
        return "float32", "the dtype of the weights; a GPU may round products to TF32"
    if gpu_names():
        return "float32", "the fused kernel runs on a GPU"
    if unit := bfloat16_unit():
        return "bfloat16", f"the CPU has {unit}"
    return "float32", "the CPU has no bfloat16 unit"
