"""Named configurations, each an experiment card: command, machine, minutes, weights, score.

A preset changes defaults and nothing else; flags change the preset.
"""

import difflib
from collections.abc import Callable

from textgen.config import ModelConfig, RunConfig, TrainingConfig
from textgen.errors import ConfigError


def demo() -> RunConfig:
    """A first model in a minute, on the corpus that Python itself ships."""
    return RunConfig(
        preset="demo",
        model=ModelConfig(embedding_dim=128, hidden_size=512, dropout=0.2),
        training=TrainingConfig(
            seq_len=80,
            max_minutes=1.3,
            learning_rate=4e-3,
            validate_every=300,
        ),
    )


def shakespeare() -> RunConfig:
    """The standard small benchmark, tinyshakespeare, in a few minutes on two CPU cores."""
    return RunConfig(
        preset="shakespeare",
        model=ModelConfig(hidden_size=512, dropout=0.3),
        training=TrainingConfig(max_minutes=3, validate_every=300, weight_decay=0.02),
    )


PRESETS: dict[str, Callable[[], RunConfig]] = {
    "demo": demo,
    "shakespeare": shakespeare,
}


def get_preset(name: str) -> RunConfig:
    """Look a preset up.

    Args:
        name: One of `PRESETS`.

    Returns:
        Its configuration.

    Raises:
        ConfigError: There is none of that name; the message lists those there are.
    """
    if name not in PRESETS:
        close = difflib.get_close_matches(name, PRESETS, n=1)
        hint = f" Did you mean {close[0]}?" if close else ""
        raise ConfigError(
            f"Unknown preset. Known: {', '.join(sorted(PRESETS))}. Received: {name}.{hint}"
        )
    return PRESETS[name]()
