"""Banned and biased words, for models whose tokens are parts of words.

A ban or bias applies where a text is completed: to every token that contains the text, and, once
its beginning has been generated, to every token that begins with the rest. Texts are compared in
UTF-8 bytes, so that a character written in byte pieces counts as well.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from textgen.arrays import Float32Array, FloatArray
from textgen.config import SamplingConfig, parse_bias
from textgen.errors import ConfigError


def static_bias(
    sampling: SamplingConfig, pieces: Sequence[bytes], banned_ids: Sequence[int]
) -> Float32Array | None:
    """Return the part of `ban` and `bias` that is added to the logits at every step.

    Args:
        sampling: Settings, of which `ban` and `bias` are applied.
        pieces: The bytes of each token.
        banned_ids: Tokens that are never generated.

    Returns:
        `[vocab_size]` nats, -inf for a ban; None if there is nothing to add.

    Raises:
        ConfigError: Every token is banned.
    """
    bias = np.zeros(len(pieces), np.float32)
    for text, nats in _entries(sampling):
        bias[[i for i, piece in enumerate(pieces) if text in piece]] += nats
    bias[list(banned_ids)] = -np.inf
    if np.isneginf(bias).all():
        raise ConfigError(
            f"`ban` must allow at least 1 token. Received: a ban of all {len(pieces)}. "
            "Ban fewer texts."
        )
    return bias if bias.any() else None


class _Completion(NamedTuple):
    """A text that has been begun.

    Attributes:
        beginning: Its first bytes.
        token_ids: The tokens that begin with the other bytes.
        nats: What is added to their logits.
    """

    beginning: bytes
    token_ids: list[int]
    nats: float


class WordBias:
    """The part of `ban` and `bias` that depends on what was generated.

    Args:
        sampling: Settings, of which `ban` and `bias` are applied.
        pieces: The bytes of each token.

    Attributes:
        pieces: The bytes of each token.
        completions: Every beginning of a text that some token completes.
        max_beginning: Length of the longest beginning, in bytes.
    """

    def __init__(self, sampling: SamplingConfig, pieces: Sequence[bytes]) -> None:
        self.pieces = pieces
        self.completions: list[_Completion] = []
        for text, nats in _entries(sampling):
            for cut in range(1, len(text)):
                ids = [i for i, piece in enumerate(pieces) if piece.startswith(text[cut:])]
                self.completions += [_Completion(text[:cut], ids, nats)] if ids else []
        self.max_beginning = max((len(entry.beginning) for entry in self.completions), default=0)

    @property
    def is_empty(self) -> bool:
        """Whether no text is ever completed by more than one token."""
        return not self.completions

    def start(self) -> "WordBiasRow":
        """Return the restraint of a new row."""
        return WordBiasRow(self)


class WordBiasRow:
    """Bans and biases the tokens that complete a text that one row has begun.

    Args:
        bias: What it shares with other rows.
    """

    def __init__(self, bias: WordBias) -> None:
        self._bias = bias
        self._tail = b""

    @property
    def finished(self) -> bool:
        """Always False: words never end a text."""
        return False

    def allow(self, logits: FloatArray) -> FloatArray:
        """Return the logits with those of completing tokens changed.

        Args:
            logits: `[1, vocab_size]` float, nats.

        Returns:
            `[1, vocab_size]`, the dtype of `logits`; `logits` itself if nothing changes.

        Raises:
            ConfigError: No token is left.
        """
        found = [entry for entry in self._bias.completions if self._tail.endswith(entry.beginning)]
        if not found:
            return logits
        changed = logits.copy()
        for entry in found:
            changed[0, entry.token_ids] += np.float32(entry.nats)
        if np.isneginf(changed).all():
            raise ConfigError(
                "`ban` must allow at least 1 token. Received: a ban of every token that could "
                "follow here. Ban fewer texts."
            )
        return changed

    def advance(self, token_id: int) -> None:
        """Record the token that was drawn."""
        if self._bias.max_beginning:
            self._tail = (self._tail + self._bias.pieces[token_id])[-self._bias.max_beginning :]


def _entries(sampling: SamplingConfig) -> list[tuple[bytes, float]]:
    """Return the texts in UTF-8 with the nats they get, -inf for a ban."""
    biases = [parse_bias(pair) for pair in sampling.bias]
    entries = [*((text, -np.inf) for text in sampling.ban), *biases]
    return [(text.encode(), nats) for text, nats in entries]
