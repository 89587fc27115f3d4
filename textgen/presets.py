"""Named configurations, each an experiment card: command, machine, minutes, weights, score.

A preset changes defaults and nothing else; flags change the preset. Scores are nats per
character of tinyshakespeare's last 10 %, in one pass with carried state; the machine, where a
card names none, is two cores of an AMD EPYC with AVX-512 and bfloat16. Those after 82 seconds and
10 minutes come from `python -m benchmarks.quality input.txt --part budgets`, the others from the
command on the card.
"""

import difflib
from collections.abc import Callable

from textgen.config import ModelConfig, RunConfig, TokenizerConfig, TrainingConfig
from textgen.errors import ConfigError


def demo() -> RunConfig:
    """A first model in a minute, on the corpus that Python itself ships.

    `train.py --preset demo`: 1.05 million weights; 1.65 bits per character of that corpus's last
    10 % after its 78 seconds.
    """
    return RunConfig(
        preset="demo",
        model=ModelConfig(embedding_dim=128, hidden_size=512, dropout=0.2),
        training=TrainingConfig(
            max_minutes=1.3, learning_rate=4e-3, ema_decay=0.98, validate_every=500
        ),
    )


def shakespeare() -> RunConfig:
    """The standard small benchmark, tinyshakespeare, in one to three minutes.

    `train.py input.txt --preset shakespeare`: 1.23 million weights; 1.515 after 82 seconds, mean
    of three seeds (1.514 to 1.516); 1.486 after its 3 minutes.
    """
    return RunConfig(
        preset="shakespeare",
        model=ModelConfig(hidden_size=512, dropout=0.15),
        training=TrainingConfig(
            max_minutes=3, learning_rate=4e-3, schedule="constant", ema_decay=0.99, validate_every=500
        ),
    )


def small() -> RunConfig:
    """Under a million weights: trained for ten minutes, small enough to send by mail.

    `train.py input.txt --preset small`: 0.93 million weights; 1.463 after 10 minutes.
    """
    return RunConfig(
        preset="small",
        model=ModelConfig(embedding_dim=64, hidden_size=512, dropout=0.4, weight_drop=0.25),
        training=TrainingConfig(
            max_minutes=10, learning_rate=3e-3, ema_decay=0.998, validate_every=1000
        ),
    )


def medium() -> RunConfig:
    """The best text of ten minutes, for a book of a million characters.

    `train.py input.txt --preset medium`: 2.43 million weights; after 10 minutes 1.443, mean of
    three seeds (1.439 to 1.445), 1.465 in windows of 256, 1.298 with dynamic evaluation.
    """
    return RunConfig(
        preset="medium",
        model=ModelConfig(hidden_size=768, dropout=0.4, weight_drop=0.2),
        training=TrainingConfig(
            max_minutes=10, learning_rate=2.5e-3, ema_decay=0.998, validate_every=1000
        ),
    )


def large() -> RunConfig:
    """For half an hour and more, or a corpus of many books.

    `train.py input.txt --preset large --max-minutes 9`: 4.02 million weights; 1.548, beside other
    work. `medium` is the better one for so short a time; the 30 minutes are not measured.
    """
    return RunConfig(
        preset="large",
        model=ModelConfig(hidden_size=1024, dropout=0.5, weight_drop=0.3),
        training=TrainingConfig(
            max_minutes=30, learning_rate=2e-3, ema_decay=0.999, validate_every=1000
        ),
    )


def subword() -> RunConfig:
    """Subwords instead of characters: a text has less than half as many.

    `train.py input.txt --preset subword`: 1,024 subwords, 3.41 million weights; 1.449 after 10
    minutes.
    """
    return RunConfig(
        preset="subword",
        tokenizer=TokenizerConfig(tokenizer="subword", vocab_size=1024),
        model=ModelConfig(hidden_size=768, dropout=0.5, weight_drop=0.2),
        training=TrainingConfig(
            max_minutes=10, learning_rate=2.5e-3, ema_decay=0.998, validate_every=1000
        ),
    )


def poetry() -> RunConfig:
    """Verse in a script of thousands of characters, each of them a token.

    `train.py poems.txt --preset poetry`, Tang poems, 810,000 characters to train on, 6,226
    different ones: 3.28 million weights; 4.606 after 5 minutes, of the last 10 %.
    """
    return RunConfig(
        preset="poetry",
        model=ModelConfig(embedding_dim=384, hidden_size=384, dropout=0.2, tie_weights=True),
        training=TrainingConfig(
            max_minutes=5, learning_rate=4e-3, ema_decay=0.99, validate_every=500
        ),
    )


def code() -> RunConfig:
    """Program text: more of it than can be read twice, so that little is dropped.

    `train.py LIB/*.py --preset code`, Python 3.11's standard library, 4.2 million characters to
    train on: 1.31 million weights; 1.246 after 3 minutes, of the last 10 %.
    """
    return RunConfig(
        preset="code",
        model=ModelConfig(hidden_size=512, dropout=0.1),
        training=TrainingConfig(
            max_minutes=3, learning_rate=4e-3, ema_decay=0.99, validate_every=500
        ),
    )


def gpu() -> RunConfig:
    """Three layers for a GPU, where cuDNN makes a wide batch cheap. Not measured."""
    return RunConfig(
        preset="gpu",
        model=ModelConfig(
            embedding_dim=512,
            hidden_size=1024,
            num_layers=3,
            residual=True,
            layer_norm=True,
            dropout=0.5,
            weight_drop=0.3,
        ),
        training=TrainingConfig(
            batch_size=128,
            seq_len=128,
            max_minutes=10,
            learning_rate=2e-3,
            ema_decay=0.998,
            validate_every=500,
        ),
    )


# not a fixed configuration: `training.size_to_fit` chooses it
AUTO = "auto"

PRESETS: dict[str, Callable[[], RunConfig]] = {
    "code": code,
    "demo": demo,
    "gpu": gpu,
    "large": large,
    "medium": medium,
    "poetry": poetry,
    "shakespeare": shakespeare,
    "small": small,
    "subword": subword,
}


def get_preset(name: str) -> RunConfig:
    """Look a preset up.

    Args:
        name: One of `PRESETS`.

    Returns:
        Its configuration.

    Raises:
        ConfigError: There is none of that name; the message lists those there are. Or it is
            `auto`, which is not fixed.
    """
    if name == AUTO:
        raise ConfigError(
            "The preset auto is chosen for a text and a machine, so that it has no fixed settings. "
            "Received: auto. Call textgen.training.size_to_fit, or pass --preset auto to train.py."
        )
    if name not in PRESETS:
        close = difflib.get_close_matches(name, [*PRESETS, AUTO], n=1)
        hint = f" Did you mean {close[0]}?" if close else ""
        raise ConfigError(
            f"Unknown preset. Known: {', '.join(sorted([*PRESETS, AUTO]))}. Received: {name}.{hint}"
        )
    return PRESETS[name]()
