"""Settings for a corpus, a time and a machine: what `--preset auto` stands for.

The rule follows a few trainings on two texts (docs/experiments.md, 14); against the best
presets made by hand it has not been measured yet. It knows numbers alone; the speed of the
machine is measured by `training.throughput`.
"""

import math
from dataclasses import replace

from textgen.config import ModelConfig, RunConfig, TrainingConfig

# What `tokens_per_second` is measured with.
REFERENCE = RunConfig(
    model=ModelConfig(hidden_size=512, dropout=0.3),
    training=TrainingConfig(batch_size=32, seq_len=64),
)
DEFAULT_MINUTES = 3.0
# Of the training's settings, those that are chosen; the others stay as they were asked for.
CHOSEN = (
    "batch_size",
    "seq_len",
    "epochs",
    "max_minutes",
    "learning_rate",
    "weight_decay",
    "average",
    "validate_every",
)

# operations of a training that 512 units served best, a minute on two cores
_ANCHOR = 1.5e13
# starting, tracing and the last validation
_OVERHEAD_SECONDS = 8.0
# A text is learnt by heart after more passes, whatever is dropped.
_MOST_PASSES = 25
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
    hidden_size = _units(operations)
    trained = operations / _operations(hidden_size, vocab_size)
    return _settings(hidden_size, trained, tokens, minutes)


def _operations(hidden_size: int, vocab_size: int) -> float:
    """Return the multiplications and additions of a training step, a token."""
    return 18.0 * hidden_size**2 + 6.0 * hidden_size * vocab_size


def _units(operations: float) -> int:
    """Return the units that serve best where a training has so many operations."""
    best = 512 * (operations / _ANCHOR) ** 0.2
    return min(2048, max(128, 64 * round(best / 64)))


def _settings(hidden_size: int, trained: float, tokens: int, minutes: float) -> RunConfig:
    """Return the settings of a training that has the time for `trained` tokens."""
    training = REFERENCE.training
    passes = min(trained / tokens, _MOST_PASSES)
    steps = passes * tokens / (training.batch_size * training.seq_len)
    return RunConfig(
        preset="auto",
        model=ModelConfig(
            hidden_size=hidden_size,
            dropout=_between(0.1, 0.05 + 0.1 * math.log2(max(passes, 1)), 0.5),
            weight_drop=_between(0.0, 0.1 * math.log2(max(passes / 4, 1)), 0.3),
        ),
        training=replace(
            training,
            max_minutes=minutes,
            epochs=_MOST_PASSES if passes == _MOST_PASSES else None,
            learning_rate=_between(1e-3, 4e-3 * (512 / hidden_size) ** 1.2, 4e-3),
            average=_between(0.9, 1 - 8 / max(steps, 1), 0.998),
            weight_decay=0.02,
            validate_every=max(1, round(steps / _between(3, passes, _MOST_VALIDATIONS))),
        ),
    )


def _between(least: float, value: float, most: float) -> float:
    return round(min(most, max(least, value)), 4)
