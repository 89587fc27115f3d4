"""Named configurations, each an experiment card: command, machine, minutes, weights, score.

A preset changes defaults and nothing else; flags override the preset. Unless a card says
otherwise, scores are nats per character of the last 10 % of tinyshakespeare, in one pass with
carried state, after training on two cores of an AMD EPYC with AVX-512 and bfloat16. Scores after
82 seconds and 10 minutes come from `python -m benchmarks.quality input.txt --part budgets`, the
others from the command on the card.
"""

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from textgen.config import (
    ModelConfig,
    PresetName,
    RunConfig,
    TokenizerConfig,
    TrainingConfig,
    convert,
)
from textgen.errors import ConfigError


def demo() -> RunConfig:
    """A first model in a minute, on the documentation that Python itself ships.

    `train.py --preset demo`: 1.05 million weights; 1.65 bits per character of the last 10 % of
    that corpus after its 78 seconds.
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
            max_minutes=3,
            learning_rate=4e-3,
            schedule="constant",
            ema_decay=0.99,
            validate_every=500,
        ),
    )


def small() -> RunConfig:
    """Under a million weights, ten minutes: small enough to send by email.

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
    """The best score after ten minutes, for a text of a million characters.

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
    """For half an hour or more, or for a corpus of many books.

    `train.py input.txt --preset large --max-minutes 9`: 4.02 million weights; 1.548, on a busy
    machine. For such a short time `medium` is better; the full 30 minutes are not measured.
    """
    return RunConfig(
        preset="large",
        model=ModelConfig(hidden_size=1024, dropout=0.5, weight_drop=0.3),
        training=TrainingConfig(
            max_minutes=30, learning_rate=2e-3, ema_decay=0.999, validate_every=1000
        ),
    )


def subword() -> RunConfig:
    """Subwords instead of characters: fewer than half as many tokens.

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
    """Verse in a script with thousands of characters, each one a token.

    `train.py poems.txt --preset poetry`, Tang poems, 810,000 characters of training text, 6,226
    of them distinct: 3.28 million weights; 4.606 on the last 10 % after 5 minutes.
    """
    return RunConfig(
        preset="poetry",
        model=ModelConfig(embedding_dim=384, hidden_size=384, dropout=0.2, tie_weights=True),
        training=TrainingConfig(
            max_minutes=5, learning_rate=4e-3, ema_decay=0.99, validate_every=500
        ),
    )


def code() -> RunConfig:
    """Source code: too much text for a second epoch in three minutes, hence little dropout.

    `train.py LIB/*.py --preset code`, the standard library of Python 3.11, 4.2 million characters
    of training text: 1.31 million weights; 1.246 on the last 10 % after 3 minutes.
    """
    return RunConfig(
        preset="code",
        model=ModelConfig(hidden_size=512, dropout=0.1),
        training=TrainingConfig(
            max_minutes=3, learning_rate=4e-3, ema_decay=0.99, validate_every=500
        ),
    )


def gpu() -> RunConfig:
    """Three layers for a GPU, where cuDNN makes a large batch cheap. Not measured."""
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


# Not a fixed configuration: `textgen.training.size_to_fit` chooses its settings.
AUTO: PresetName = "auto"
# Settings that `size_to_fit` chooses for every text.
_ALWAYS_CHOSEN = ("hidden_size", "learning_rate", "ema_decay", "validate_every")

PRESETS: dict[PresetName, Callable[[], RunConfig]] = {
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
    """Return the configuration of a preset.

    Args:
        name: One of `PRESETS`.

    Returns:
        Its configuration.

    Raises:
        ConfigError: There is no preset of that name, or it is `auto`, which has no fixed settings.
    """
    if name == AUTO:
        raise ConfigError(
            "`preset=auto` has no fixed settings: it is chosen for a text and a machine. "
            "Received: auto. Use `textgen.training.size_to_fit(config, text)`."
        )
    return PRESETS[convert(name, PresetName, "preset")]()


def require_applied(config: RunConfig) -> None:
    """Raise unless the settings of the preset that `config` names are in it.

    `RunConfig(preset="medium")` records a name and sets nothing else; `get_preset` returns the
    settings. A configuration passes if at least one of the settings that the preset changes has
    the preset's value, or if all of them differ from the defaults.

    Args:
        config: The settings of a run about to start.

    Raises:
        ConfigError: `config` names a preset and has default settings.
    """
    if config.preset is None:
        return
    given, defaults = _settings(config), _settings(RunConfig())
    if config.preset == AUTO:
        applied = any(given[name] != defaults[name] for name in _ALWAYS_CHOSEN)
        way_out = "Use `textgen.training.size_to_fit(config, text)`."
    else:
        preset = _settings(get_preset(config.preset))
        changed = [name for name in preset if preset[name] != defaults[name]]
        applied = any(given[name] == preset[name] for name in changed) or all(
            given[name] != defaults[name] for name in changed
        )
        start = f"textgen.get_preset({config.preset!r})"
        way_out = f"Start from {start} and change it with dataclasses.replace."
    if not applied:
        raise ConfigError(
            "`preset` must name settings that are applied. Received: "
            f"RunConfig(preset={config.preset!r}) with default settings. {way_out}"
        )


def _settings(config: RunConfig) -> dict[str, Any]:
    """Return the settings that presets change, by name; names are unique across the parts."""
    return asdict(config.tokenizer) | asdict(config.model) | asdict(config.training)
