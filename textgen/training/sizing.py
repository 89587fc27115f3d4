"""Settings for a corpus, a time and a machine: what `--preset auto` stands for.

The rule follows trainings on three texts; `python -m benchmarks.sizing` holds it against presets
made by hand (docs/experiments.md, 14). It knows numbers alone; the speed of the machine is
measured by `training.throughput`.
"""

import math
from dataclasses import replace

from textgen.config import ModelConfig, RunConfig

# What `tokens_per_second` is measured with.
REFERENCE = RunConfig(model=ModelConfig(hidden_size=512, dropout=0.3))
DEFAULT_MINUTES = 3.0
# Of the training's settings, those that are chosen; the others stay as they were asked for.
CHOSEN = (
    "batch_size",
    "seq_len",
    "epochs",
    "max_minutes",
    "learning_rate",
    "schedule",
    "ema_decay",
    "validate_every",
)

# tokens of a training that 512 units served best: 82 seconds on two cores
_ANCHOR = 3.05e6
_MOST_UNITS = 2048
# starting, tracing and the last validation
_OVERHEAD_SECONDS = 8.0
# A text is learned by heart after more passes, whatever is dropped.
_MOST_PASSES = 40
# So short a training gains nothing from a falling rate beside the average of the weights.
_FEW_PASSES = 5
# one costs what a 27th of a pass costs, where a tenth of the text is held out
_MOST_VALIDATIONS = 15


def choose_settings(
    *, tokens: int, vocab_size: int, minutes: float, tokens_per_second: float
) -> RunConfig:
    """Return the settings for a training.

    Args:
        tokens: Of the training split.
        vocab_size: Number of token ids.
        minutes: How long to train.
        tokens_per_second: That `REFERENCE` trains on this machine, with this vocabulary.

    Returns:
        Sizes, dropout, schedule and limits; corpus and tokenizer are the defaults.
    """
    seconds = max(60 * minutes - _OVERHEAD_SECONDS, 30 * minutes)
    operations = seconds * tokens_per_second * _operations(REFERENCE.model.hidden_size, vocab_size)
    most = _MOST_PASSES * tokens
    hidden_size = _units(operations, vocab_size, most)
    trained = min(operations / _operations(hidden_size, vocab_size), most)
    return _settings(hidden_size, trained / tokens, tokens, minutes)


def _operations(hidden_size: int, vocab_size: int) -> float:
    """Return the multiplications and additions of a training step, a token."""
    return 18.0 * hidden_size**2 + 6.0 * hidden_size * vocab_size


def _units(operations: float, vocab_size: int, most_tokens: int) -> int:
    """Return the most units, in steps of 64, that so many operations train on enough tokens.

    Enough grows with their cube: 512 units want three million tokens, 768 ten.
    """
    units = 128
    while units < _MOST_UNITS:
        more = units + 64
        trained = min(operations / _operations(more, vocab_size), most_tokens)
        if trained < _ANCHOR * (more / 512) ** 3:
            break
        units = more
    return units


def _settings(hidden_size: int, passes: float, tokens: int, minutes: float) -> RunConfig:
    """Return the settings of a training that has the time for so many passes."""
    training = REFERENCE.training
    steps = passes * tokens / (training.batch_size * training.seq_len)
    return RunConfig(
        preset="auto",
        model=ModelConfig(
            embedding_dim=min(hidden_size, ModelConfig.embedding_dim),
            hidden_size=hidden_size,
            dropout=_between(0.1, 0.05 + 0.1 * math.log2(max(passes, 1)), 0.5),
            weight_drop=_between(0.0, 0.1 * math.log2(max(passes / 4, 1)), 0.3),
        ),
        training=replace(
            training,
            max_minutes=minutes,
            epochs=_MOST_PASSES if passes == _MOST_PASSES else None,
            learning_rate=_between(1e-3, 4e-3 * (512 / hidden_size) ** 1.2, 4e-3),
            schedule="constant" if passes < _FEW_PASSES else "cosine",
            ema_decay=_between(0.9, 1 - 8 / max(steps, 1), 0.998),
            validate_every=max(1, round(steps / _between(3, passes, _MOST_VALIDATIONS))),
        ),
    )


def _between(least: float, value: float, most: float) -> float:
    return round(min(most, max(least, value)), 4)
