"""Settings for a corpus, a time limit and a machine: the rule of the preset `auto`.

The rule was derived from training runs on three texts; `python -m benchmarks.sizing` compares it
with presets tuned by hand (docs/experiments.md#auto-preset).
"""

import logging
import math
from dataclasses import replace

from textgen.config import ModelConfig, RunConfig
from textgen.corpora import split_text
from textgen.models.kernels import choose_execution, limit_threads
from textgen.training import throughput

# The model whose throughput represents the speed of the machine.
REFERENCE = RunConfig(model=ModelConfig(hidden_size=512, dropout=0.3))
DEFAULT_MINUTES = 3.0
# The training settings that the rule chooses; all others stay as received.
CHOSEN_SETTINGS = (
    "batch_size",
    "seq_len",
    "epochs",
    "max_minutes",
    "learning_rate",
    "schedule",
    "ema_decay",
    "validate_every",
)

_CHARACTERS_PER_SUBWORD = 3.0
# 512 units were the best size for training on this many tokens: 82 seconds on two cores.
_TOKENS_FOR_512_UNITS = 3.05e6
_MIN_UNITS = 128
_MAX_UNITS = 2048
# Start-up, tracing and the last validation.
_OVERHEAD_SECONDS = 8.0
# Beyond this many epochs the model overfits regardless of dropout
# (docs/experiments.md#auto-preset-epochs).
_MAX_EPOCHS = 40
# With fewer epochs, a decaying learning rate gains nothing over an average of the weights
# (docs/experiments.md#constant-rate-82s).
_MIN_EPOCHS_FOR_DECAY = 5
_MIN_VALIDATIONS = 3
# With a tenth of the text held out, a validation costs as much as 1/27 of an epoch.
_MAX_VALIDATIONS = 15

_log = logging.getLogger("textgen")


def size_to_fit(config: RunConfig, text: str) -> RunConfig:
    """Return the settings of the preset `auto` for a text, a time limit and this machine.

    A few training steps of a reference model are timed, which takes seconds.

    Args:
        config: Corpus, tokenizer, kernel, `matmul_dtype`, and `max_minutes` (3 if None).
        text: The whole corpus.

    Returns:
        `config` with sizes, dropout, schedule and limits chosen.

    Raises:
        CorpusError: The text is too short to be split.
        DeviceError: The kernel or dtype is unavailable on this machine.
    """
    training = config.training
    limit_threads()
    execution = choose_execution(training.kernel, training.matmul_dtype)
    training_text, _ = split_text(text, config.corpus.validation_fraction)
    is_char = config.tokenizer.tokenizer == "char"
    vocab_size = len(set(text)) if is_char else config.tokenizer.vocab_size
    tokens_per_second = throughput.measure_tokens_per_second(
        REFERENCE.model, vocab_size, REFERENCE.training, execution
    )
    _log.info("auto: this machine trains 512 units on %s tokens/s", f"{tokens_per_second:,.0f}")
    chosen = choose_settings(
        num_tokens=round(len(training_text) / (1.0 if is_char else _CHARACTERS_PER_SUBWORD)),
        vocab_size=vocab_size,
        minutes=training.max_minutes or DEFAULT_MINUTES,
        tokens_per_second=tokens_per_second,
    )
    settings = {name: getattr(chosen.training, name) for name in CHOSEN_SETTINGS}
    return replace(config, model=chosen.model, training=replace(training, **settings))


def choose_settings(
    *, num_tokens: int, vocab_size: int, minutes: float, tokens_per_second: float
) -> RunConfig:
    """Return settings for the given sizes, time limit and throughput.

    Args:
        num_tokens: Length of the training split.
        vocab_size: Number of token ids.
        minutes: Time limit.
        tokens_per_second: Training throughput of `REFERENCE` on the machine, with this vocabulary.

    Returns:
        Sizes, dropout, schedule and limits; corpus and tokenizer are the defaults.
    """
    seconds = max(60 * minutes - _OVERHEAD_SECONDS, 30 * minutes)
    reference_operations = _operations_per_token(REFERENCE.model.hidden_size, vocab_size)
    operations = seconds * tokens_per_second * reference_operations
    max_tokens = _MAX_EPOCHS * num_tokens
    hidden_size = _choose_units(operations, vocab_size, max_tokens)
    trained = min(operations / _operations_per_token(hidden_size, vocab_size), max_tokens)
    return _settings(hidden_size, trained / num_tokens, num_tokens, minutes)


def _operations_per_token(hidden_size: int, vocab_size: int) -> float:
    """Return the multiplications and additions of a training step, per token."""
    return 18.0 * hidden_size**2 + 6.0 * hidden_size * vocab_size


def _choose_units(operations: float, vocab_size: int, max_tokens: int) -> int:
    """Return the largest number of units, a multiple of 64, that is trained on enough tokens.

    The number of tokens needed grows with the cube of the units: three million for 512 units, ten
    million for 768.

    Args:
        operations: Operations that the time limit allows.
        vocab_size: Number of token ids.
        max_tokens: Tokens after which training ends, whatever the size.
    """
    units = _MIN_UNITS
    while units < _MAX_UNITS:
        larger = units + 64
        trained = min(operations / _operations_per_token(larger, vocab_size), max_tokens)
        if trained < _TOKENS_FOR_512_UNITS * (larger / 512) ** 3:
            break
        units = larger
    return units


def _settings(hidden_size: int, epochs: float, num_tokens: int, minutes: float) -> RunConfig:
    """Return the settings of a run that has time for `epochs` epochs."""
    training = REFERENCE.training
    steps = epochs * num_tokens / (training.batch_size * training.seq_len)
    return RunConfig(
        preset="auto",
        model=ModelConfig(
            embedding_dim=min(hidden_size, ModelConfig.embedding_dim),
            hidden_size=hidden_size,
            dropout=_clamp(0.05 + 0.1 * math.log2(max(epochs, 1)), 0.1, 0.5),
            weight_drop=_clamp(0.1 * math.log2(max(epochs / 4, 1)), 0.0, 0.3),
        ),
        training=replace(
            training,
            max_minutes=minutes,
            epochs=_MAX_EPOCHS if epochs == _MAX_EPOCHS else None,
            learning_rate=_clamp(4e-3 * (512 / hidden_size) ** 1.2, 1e-3, 4e-3),
            schedule="constant" if epochs < _MIN_EPOCHS_FOR_DECAY else "cosine",
            ema_decay=_clamp(1 - 8 / max(steps, 1), 0.9, 0.998),
            validate_every=max(
                1, round(steps / _clamp(epochs, _MIN_VALIDATIONS, _MAX_VALIDATIONS))
            ),
        ),
    )


def _clamp(value: float, minimum: float, maximum: float) -> float:
    """Return `value` within its limits, rounded to four digits."""
    return round(min(maximum, max(minimum, value)), 4)
