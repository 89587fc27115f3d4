"""Checks of the arguments of processors: settings, and a bias."""

import math
from collections.abc import Hashable
from functools import lru_cache

from textgen.arrays import Float32Array
from textgen.config import SamplingConfig, check_setting
from textgen.errors import ConfigError


def check_sampling(name: str, value: object) -> None:
    """Raise `ConfigError` unless `value` is accepted for a setting of `SamplingConfig`.

    Processors run once per token, and `check_setting` takes 2.5 µs. Accepted values are cached,
    which leaves 0.3 µs.

    Args:
        name: A field of `SamplingConfig`.
        value: The argument. None, which means "off" in a configuration, is not accepted.
    """
    if value is None:
        raise ConfigError(f"`{name}` must have a value. Received: None. Leave out this processor.")
    if isinstance(value, Hashable):
        _check_once(name, value)
    else:
        check_setting(SamplingConfig, name, value)


def check_bias(bias: Float32Array, vocab_size: int) -> None:
    """Raise `ConfigError` unless a bias fits the vocabulary and leaves a token to draw.

    Args:
        bias: `[vocab_size]`, nats; -inf bans a token.
        vocab_size: Number of token ids.
    """
    if bias.shape != (vocab_size,):
        raise ConfigError(
            f"`bias` must have one number for each of {vocab_size} tokens. "
            f"Received: {list(bias.shape)}. Use the tokenizer that the model was trained with."
        )
    # The maximum is NaN if any number is, and -inf if every token is banned.
    if not math.isfinite(bias.max()):
        raise ConfigError(
            "`bias` must be numbers below infinity, at least one of them finite. "
            f"Received: a maximum of {bias.max()}. Ban fewer tokens."
        )


@lru_cache(maxsize=1024, typed=True)
def _check_once(name: str, value: Hashable) -> None:
    check_setting(SamplingConfig, name, value)
