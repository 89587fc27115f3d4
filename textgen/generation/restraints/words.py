"""Words that are banned or biased, for models whose tokens are parts of words.

A text is banned or biased where it is completed: by every token that contains it, and,
once its beginning has been written, by every token that brings the rest. Texts are
compared in UTF-8 bytes, so that a character written in byte pieces counts as well.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from textgen.config import SamplingConfig
from textgen.errors import ConfigError


def static_bias(
    config: SamplingConfig, pieces: Sequence[bytes], banned_ids: Sequence[int]
) -> NDArray[np.float32] | None:
    """Return what is added to the logits at every step.

    Args:
        config: Its `ban` and `bias`.
        pieces: The bytes of each token.
        banned_ids: Tokens that never come.

    Returns:
        `[vocab_size]`, -inf for a ban; None if there is nothing to add.

    Raises:
        ConfigError: Every token is banned.
    """
    bias = np.zeros(len(pieces), np.float32)
    for text, nats in _entries(config):
        bias[[i for i, piece in enumerate(pieces) if text in piece]] += nats
    bias[list(banned_ids)] = -np.inf
    if np.isneginf(bias).all():
        raise ConfigError(
            f"At least 1 token must stay allowed. Received: a ban of all {len(pieces)}. "
            "Pass a shorter --ban."
        )
    return bias if bias.any() else None


class Completions:
    """The tokens that complete a banned or biased text that has been begun, for one row.

    Args:
        config: Its `ban` and `bias`.
        pieces: The bytes of each token.
    """

    def __init__(self, config: SamplingConfig, pieces: Sequence[bytes]) -> None:
        self._pieces = pieces
        self._tail = b""
        # a text's beginning, the tokens that bring the rest of it, and what they get
        self._begun: list[tuple[bytes, list[int], float]] = []
        for text, nats in _entries(config):
            for cut in range(1, len(text)):
                ids = [i for i, p in enumerate(pieces) if p.startswith(text[cut:])]
                self._begun += [(text[:cut], ids, nats)] if ids else []
        self._longest = max((len(begin) for begin, _, _ in self._begun), default=0)

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing that could be begun."""
        return not self._begun

    def allow(self, logits: NDArray[np.floating]) -> NDArray[np.floating]:
        """Return the logits `[1, vocab_size]` with what completes a text changed."""
        found = [entry for entry in self._begun if self._tail.endswith(entry[0])]
        if not found:
            return logits
        changed = logits.copy()
        for _, ids, nats in found:
            changed[0, ids] += np.float32(nats)
        if np.isneginf(changed).all():
            raise ConfigError("Every token is banned here. Pass a shorter --ban.")
        return changed

    def advance(self, token_id: int) -> None:
        """Take note of a token."""
        if self._longest:
            self._tail = (self._tail + self._pieces[token_id])[-self._longest :]


def _entries(config: SamplingConfig) -> list[tuple[bytes, float]]:
    """Return the texts in UTF-8 with what they get, -inf for a ban."""
    entries = [(text.encode(), -np.inf) for text in config.ban]
    for pair in config.bias:
        text, _, nats = pair.rpartition("=")
        entries.append((text.encode(), float(nats)))
    return entries
