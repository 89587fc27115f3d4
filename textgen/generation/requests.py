"""What is asked of a model, and what it answers."""

from dataclasses import dataclass, field
from typing import Literal

from textgen.config import SamplingConfig

FinishReason = Literal["length", "stop", "regex", "sentence", "constraint"]


@dataclass(frozen=True, kw_only=True)
class Request:
    """One text to write.

    Attributes:
        prompt: The text to go on from; one without tokens stands for the beginning of a text.
        sampling: How to draw, and when to end.
        sample_index: Which of the samples of one prompt: seed and row alone decide what is drawn,
            whatever else is written at the same time.
    """

    prompt: str = ""
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    sample_index: int = 0


@dataclass(frozen=True, kw_only=True)
class TokenChoice:
    """What the model thought of one token, before anything was done to its logits.

    Attributes:
        token_id: The token.
        text: The characters it completed; may be empty.
        log_prob: Nats.
        rank: 1 for the most probable token.
        entropy: Of the distribution, nats.
        alternatives: The most probable tokens, `(text, log_prob)`, the best first.
    """

    token_id: int
    text: str
    log_prob: float
    rank: int
    entropy: float
    alternatives: tuple[tuple[str, float], ...]


@dataclass(frozen=True, kw_only=True)
class GeneratedText:
    """One written text.

    Attributes:
        text: Without the prompt.
        num_tokens: Tokens drawn for it, those of a stop text included.
        finish_reason: What ended it.
        choices: One a token, where they were asked for.
    """

    text: str
    num_tokens: int
    finish_reason: FinishReason
    choices: tuple[TokenChoice, ...] | None = None
