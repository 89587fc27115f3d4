"""Which kernel computes the recurrent layers, in which matmul_dtype, decided once, with reasons.

`cudnn` is NVIDIA's, `fused` is ours for CPUs (`fused_recurrence`), `reference` a plain
loop. All compute the same function of the same weights, so a checkpoint moves freely
between them. What was asked for and cannot run is an error that names what is missing;
nothing falls back in silence.
"""

import ctypes
from dataclasses import dataclass
from pathlib import Path

import tensorflow as tf

from textgen.config import Cell, Kernel, MatmulDtype
from textgen.errors import DeviceError
from textgen.machine import core_count

# With fewer lanes than this a core, the forks cost more than the second core brings.
_MIN_LANES_PER_SHARD = 8
_BFLOAT16_UNITS = ("amx_bf16", "avx512_bf16")
_CPU_INFO = Path("/proc/cpuinfo")
GPU_LIBRARIES = {"driver": "libcuda.so.1", "cuda": "libcudart.so.12", "cudnn": "libcudnn.so.9"}
_INSTALL_CUDA = 'pip install "tensorflow[and-cuda]" on a machine with an NVIDIA GPU and its driver'


@dataclass(frozen=True, kw_only=True)
class Execution:
    """How a model is computed.

    Attributes:
        kernel: `"cudnn"`, `"fused"` or `"reference"`.
        kernel_reason: Why, in a few words, for the log and for `environment.json`.
        matmul_dtype: Dtype of the matrix products of a training step. Weights, gates,
            states, loss and all of evaluation stay float32; only `"float16"` covers the
            whole cuDNN layer, in evaluation too.
        matmul_dtype_reason: Why.
        shards: Parts of a batch that run side by side, each on one core.
    """

    kernel: str
    kernel_reason: str = "asked for"
    matmul_dtype: str = "float32"
    matmul_dtype_reason: str = "asked for"
    shards: int = 1

    def shard_sizes(self, batch_size: int | None) -> list[int | None]:
        """Return how many lanes each shard gets, as equal as can be; one shard for an unknown."""
        if batch_size is None:
            return [None]
        shards = max(1, min(self.shards, batch_size // _MIN_LANES_PER_SHARD))
        whole, rest = divmod(batch_size, shards)
        return [whole + (i < rest) for i in range(shards)]


def choose_execution(
    kernel: Kernel = "auto", matmul_dtype: MatmulDtype = "auto", cell: Cell = "gru"
) -> Execution:
    """Decide how a model is computed on this machine.

    Args:
        kernel: What was asked for; `"auto"`: cuDNN on a GPU, else the fused kernel.
        matmul_dtype: What was asked for; `"auto"`: bfloat16 where a CPU has a unit for it
            and the fused kernel runs, else float32.
        cell: Of the recurrent layers; cuDNN has no kernel for the plain one.

    Returns:
        The decision with its reasons.

    Raises:
        DeviceError: What was asked for cannot run here; the message names what is missing.
    """
    name, kernel_reason = _kernel(kernel, cell)
    dtype, matmul_dtype_reason = _matmul_dtype(matmul_dtype, name)
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
    """Return the CPU's flags as Linux names them; empty where they cannot be read."""
    try:
        return set(_CPU_INFO.read_text("utf-8").split())
    except OSError:
        return set()


def bfloat16_unit() -> str | None:
    """Return the name of the CPU's bfloat16 unit; None where there is none, or none is known."""
    flags = cpu_flags()
    return next((unit for unit in _BFLOAT16_UNITS if unit in flags), None)


def limit_threads() -> bool:
    """Give each op one thread and run as many ops at once as there are cores.

    The fused kernel runs its shards side by side; an op that forks would wait for a
    thread that is busy with the other shard. Does nothing where a GPU is visible.

    Returns:
        False if TensorFlow had started other threads already, so that nothing could be set.
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


def _kernel(asked: Kernel, cell: Cell) -> tuple[str, str]:
    gpus = gpu_names()
    if cell == "rnn" and asked == "cudnn":
        raise DeviceError(
            "`kernel=cudnn` needs the cell gru or lstm: cuDNN has no kernel for the plain "
            "cell. Received: rnn. Pass --kernel fused."
        )
    if asked == "cudnn" and not gpus:
        raise DeviceError(
            f"`kernel=cudnn` needs a GPU that TensorFlow can use: {why_no_gpu()}. "
            f"Install it with {_INSTALL_CUDA}, or pass --kernel fused."
        )
    if asked != "auto":
        return asked, "asked for"
    if gpus and cell == "rnn":
        return "fused", "cuDNN has no kernel for the plain cell"
    if gpus:
        return "cudnn", f"{len(gpus)} GPU(s) visible to TensorFlow"
    return "fused", f"no GPU: {why_no_gpu()}"


def library_is_there(name: str) -> bool:
    """Return whether the GPU library `name` of `GPU_LIBRARIES` can be loaded."""
    try:
        ctypes.CDLL(GPU_LIBRARIES[name])
    except OSError:
        return False
    return True


def why_no_gpu() -> str:
    """Return what keeps TensorFlow from using a GPU, the nearest cause first."""
    if not tf.test.is_built_with_cuda():
        return "this TensorFlow is built without CUDA"
    missing = [name for name in GPU_LIBRARIES if not library_is_there(name)]
    if "driver" in missing:
        return f"there is no NVIDIA driver ({GPU_LIBRARIES['driver']} not found)"
    if missing:
        return f"not found: {', '.join(GPU_LIBRARIES[name] for name in missing)}"
    return "the driver shows no GPU to TensorFlow (CUDA_VISIBLE_DEVICES may hide it)"


def _matmul_dtype(asked: MatmulDtype, kernel: str) -> tuple[str, str]:
    if asked == "float16" and kernel != "cudnn":
        raise DeviceError(
            "`matmul_dtype=float16` needs the cuDNN kernel on a GPU; the kernel here is "
            f"{kernel}. Install it with {_INSTALL_CUDA}, or pass --matmul-dtype auto."
        )
    if asked == "bfloat16" and kernel != "fused":
        raise DeviceError(
            f"`matmul_dtype=bfloat16` needs the fused kernel; the kernel here is {kernel}, which "
            "would compute in float32 all the same. Pass --matmul-dtype auto."
        )
    if asked != "auto":
        return asked, "asked for"
    if kernel != "fused":
        return "float32", "as the weights are; a GPU may round products to TF32"
    if gpu_names():
        return "float32", "the fused kernel runs on a GPU"
    if unit := bfloat16_unit():
        return "bfloat16", f"the CPU has {unit}"
    return "float32", "the CPU has no bfloat16 unit"
