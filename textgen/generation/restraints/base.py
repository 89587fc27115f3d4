"""The protocols of restraints.

A restraint knows the tokens of one row. It does NOT know how they are drawn.
"""

from typing import Protocol

from textgen.arrays import FloatArray


class Restraint(Protocol):
    """Forbids or favors tokens of one row, depending on what the row has generated so far."""

    @property
    def finished(self) -> bool:
        """Whether the text is complete: no token can follow."""

    def allow(self, logits: FloatArray) -> FloatArray:
        """Return the logits of the next token, with -inf for every forbidden one.

        Args:
            logits: `[1, vocab_size]` float, nats; not modified.

        Returns:
            `[1, vocab_size]`, the dtype of `logits`.

        Raises:
            ConfigError: No token is left.
        """

    def advance(self, token_id: int) -> None:
        """Record the token that was drawn."""


class RestraintFactory(Protocol):
    """The part of a restraint that rows of equal settings share: its tables, compiled once."""

    def start(self) -> Restraint:
        """Return the restraint of a new row."""
