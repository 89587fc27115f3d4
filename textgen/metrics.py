"""From nats to the units that people compare: bits per character, bits per byte, perplexity.

Nats per token depend on the tokenizer, so a character model and a subword model
are compared by what the *whole text* costs, divided by its characters or bytes.
"""

import math
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class TextScore:
    """What a model pays for one text.

    Attributes:
        total_nats: Sum of `-log p(token)` over the text, in nats.
        tokens: Number of tokens predicted.
        characters: Number of Unicode code points they stand for.
        bytes: Number of UTF-8 bytes they stand for.
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
        """`exp(loss)`, per token; it does not compare tokenizers."""
        return math.exp(min(self.loss, 700.0))

    @property
    def nats_per_char(self) -> float:
        """Total nats over characters."""
        return self.total_nats / self.characters

    @property
    def bits_per_char(self) -> float:
        """Total bits over characters."""
        return self.nats_per_char / math.log(2)

    @property
    def bits_per_byte(self) -> float:
        """Total bits over UTF-8 bytes."""
        return self.total_nats / (math.log(2) * self.bytes)

    def as_dict(self) -> dict[str, float | int]:
        """Return every figure under its name, ready for JSON."""
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
    """Return the score of a text whose mean loss is `loss` nats per token."""
    return TextScore(total_nats=loss * tokens, tokens=tokens, characters=characters, bytes=bytes_)
