"""Scores of texts in comparable units: bits per character, bits per byte, perplexity.

Nats per token depend on the tokenizer. To compare a character model with a subword model, the
total nats of the *whole text* are divided by its characters or bytes.
"""

import math
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class TextScore:
    """The negative log-likelihood of one text, and its length.

    Attributes:
        total_nats: Sum of `-log p(token)` over the text, in nats.
        tokens: Number of tokens predicted.
        characters: Number of Unicode code points that they encode.
        bytes: Number of UTF-8 bytes that they encode.
    """

    total_nats: float
    tokens: int
    characters: int
    bytes: int

    @property
    def loss(self) -> float:
        """Mean cross-entropy, nats per token."""
        return self.total_nats / self.tokens

    @property
    def perplexity(self) -> float:
        """`exp(loss)`, per token; not comparable across tokenizers."""
        # exp overflows above 709.
        return math.exp(min(self.loss, 700.0))

    @property
    def nats_per_char(self) -> float:
        """Total nats divided by characters."""
        return self.total_nats / self.characters

    @property
    def bits_per_char(self) -> float:
        """Total bits divided by characters."""
        return self.nats_per_char / math.log(2)

    @property
    def bits_per_byte(self) -> float:
        """Total bits divided by UTF-8 bytes."""
        return self.total_nats / (math.log(2) * self.bytes)

    def as_dict(self) -> dict[str, float | int]:
        """Return every figure by name, ready for JSON."""
        return {
            "nats_per_char": self.nats_per_char,
            "bits_per_char": self.bits_per_char,
            "bits_per_byte": self.bits_per_byte,
            "perplexity": self.perplexity,
            "loss": self.loss,
            "tokens": self.tokens,
            "characters": self.characters,
            "bytes": self.bytes,
        }


def score_from_loss(loss: float, tokens: int, characters: int, bytes_: int) -> TextScore:
    """Return the score of a text with a mean loss of `loss` nats per token."""
    return TextScore(total_nats=loss * tokens, tokens=tokens, characters=characters, bytes=bytes_)
