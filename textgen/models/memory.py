"""How much memory a training step will take, before it is taken."""

import psutil

from textgen.config import Cell, ModelConfig
from textgen.errors import DeviceError
from textgen.models.weights import GATES

_WEIGHT_COPIES = 5  # weights, gradients, two moments of AdamW, and one in passing
# kept and made for the backward pass, a token and unit of a recurrent layer
_BYTES_PER_UNIT: dict[Cell, int] = {"gru": 72, "lstm": 84, "rnn": 30}
_BYTES_PER_LOGIT = 16  # logits, their gradient, and copies in the dtype of the products


def num_parameters(config: ModelConfig, vocab_size: int) -> int:
    """Return the number of weights that are trained; those that are tied count once."""
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
    """Estimate what training takes beyond the bare process, in bytes.

    Args:
        config: Sizes of the model.
        vocab_size: Number of token ids.
        tokens_per_step: `batch_size * seq_len`.

    Returns:
        An estimate for the fused kernel; the others differ by tens of percent.
    """
    weights = 4 * _WEIGHT_COPIES * num_parameters(config, vocab_size)
    units = config.num_layers * config.hidden_size
    kept = tokens_per_step * (_BYTES_PER_UNIT[config.cell] * units + _BYTES_PER_LOGIT * vocab_size)
    return weights + kept


def require_memory(
    config: ModelConfig, vocab_size: int, *, batch_size: int, seq_len: int, available: int
) -> None:
    """Refuse a model that cannot be trained in the memory there is.

    Args:
        config: Sizes of the model.
        vocab_size: Number of token ids.
        batch_size: Lanes.
        seq_len: Tokens a lane gives to one step.
        available: Bytes that can be taken.

    Raises:
        DeviceError: The estimate exceeds `available`; the message says what to lower.
    """
    needed = training_bytes(config, vocab_size, batch_size * seq_len)
    if needed <= available:
        return
    weights = training_bytes(config, vocab_size, 0)
    lower = "--hidden-size" if weights > available / 2 else "--batch-size or --seq-len"
    raise DeviceError(
        f"Training with batch_size {batch_size} and seq_len {seq_len} needs about "
        f"{needed / 2**30:.1f} GiB; {available / 2**30:.1f} GiB are free. Lower {lower}."
    )


def available_bytes() -> int:
    """Return the bytes of main memory that can be taken without swapping."""
    return int(psutil.virtual_memory().available)
