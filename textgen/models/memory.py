"""An estimate of the memory that a training step takes, made before the step runs."""

from textgen.config import Cell, ModelConfig
from textgen.errors import DeviceError
from textgen.models.weights import GATES

# Weights, gradients, two moments of AdamW, and one temporary copy.
_WEIGHT_COPIES = 5
# Bytes saved or computed for the backward pass, per token and unit of a recurrent layer.
_BYTES_PER_UNIT: dict[Cell, int] = {"gru": 72, "lstm": 84, "rnn": 30}
# Logits, their gradient, and copies in the dtype of the matrix products, per token and id.
_BYTES_PER_LOGIT = 16


def num_parameters(config: ModelConfig, vocab_size: int) -> int:
    """Return the number of trained weights; tied weights count once."""
    hidden, bias_rows = config.hidden_size, 2 if config.cell == "gru" else 1
    columns = hidden * len(GATES[config.cell])
    inputs = [config.embedding_dim] + [hidden] * (config.num_layers - 1)
    recurrent = sum((size + hidden + bias_rows) * columns for size in inputs)
    if config.output_gate:
        recurrent += sum((size + hidden + 1) * hidden for size in inputs)
    if config.layer_norm:
        recurrent += 2 * sum(inputs[1:])
    if config.initial_state == "learned":
        recurrent += config.num_layers * config.state_size
    dense = vocab_size * (1 if config.tie_weights else hidden + 1)
    return vocab_size * config.embedding_dim + recurrent + dense


def training_bytes(config: ModelConfig, vocab_size: int, tokens_per_step: int) -> int:
    """Estimate the memory of training beyond that of the bare process, in bytes.

    Args:
        config: Sizes of the model.
        vocab_size: Number of token ids.
        tokens_per_step: `batch_size * seq_len`.

    Returns:
        An estimate for the fused kernel; the other kernels differ by tens of percent.
    """
    weights = 4 * _WEIGHT_COPIES * num_parameters(config, vocab_size)
    units = config.num_layers * config.hidden_size
    per_token = _BYTES_PER_UNIT[config.cell] * units + _BYTES_PER_LOGIT * vocab_size
    return weights + tokens_per_step * per_token


def require_memory(
    config: ModelConfig, vocab_size: int, *, batch_size: int, seq_len: int, available: int
) -> None:
    """Raise unless a model can be trained in the available memory.

    Args:
        config: Sizes of the model.
        vocab_size: Number of token ids.
        batch_size: Lanes.
        seq_len: Tokens per lane and step.
        available: Bytes.

    Raises:
        DeviceError: The estimate exceeds `available`; the message says what to lower.
    """
    needed = training_bytes(config, vocab_size, batch_size * seq_len)
    if needed <= available:
        return
    weights = training_bytes(config, vocab_size, 0)
    lower = "`hidden_size`" if weights > available / 2 else "`batch_size` or `seq_len`"
    raise DeviceError(
        f"Training must fit in the free memory, {available / 2**30:.1f} GiB. Received: "
        f"`batch_size` {batch_size} and `seq_len` {seq_len}, which need about "
        f"{needed / 2**30:.1f} GiB. Lower {lower}."
    )


def available_bytes() -> int:
    """Return the bytes of main memory that can be used without swapping."""
    # Imported here because it is in the extra `train`, which counting weights does not need.
    import psutil

    return int(psutil.virtual_memory().available)
