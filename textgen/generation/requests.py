"""Generation requests and their results."""

from dataclasses import dataclass, field
from typing import Annotated, Literal

from textgen.config import SamplingConfig, check_settings
from textgen.config.limits import Limits
from textgen.generation.stopping import StopReason
from textgen.sampling.draw import OTHER_STREAMS

FinishReason = Literal["length", "constraint", StopReason]

SampleIndex = Annotated[int, Limits(minimum=0, below=OTHER_STREAMS)]


@dataclass(frozen=True, kw_only=True)
class Request:
    """One text to generate.

    Attributes:
        prompt: The text to continue; an empty one is the start of a text.
        sampling: How tokens are drawn, and when the text ends.
        sample_index: Index among the samples of one prompt. Seed and index alone determine the
            draws, whatever else is generated at the same time.

    Raises:
        ConfigError: A value has the wrong type, or `sample_index` is out of range.
    """

    prompt: str = ""
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    sample_index: SampleIndex = 0

    def __post_init__(self) -> None:
        check_settings(self)


@dataclass(frozen=True, kw_only=True)
class TokenChoice:
    """The model's prediction of one token, before any processing of the logits.

    Attributes:
        token_id: The token.
        text: The characters it completed; may be empty.
        log_prob: Nats.
        rank: 1 for the most probable token.
        entropy: Of the distribution, nats.
        alternatives: The most probable tokens, `(text, log_prob)`, in descending order.
    """

    token_id: int
    text: str
    log_prob: float
    rank: int
    entropy: float
    alternatives: tuple[tuple[str, float], ...]


@dataclass(frozen=True, kw_only=True)
class GeneratedText:
    """One generated text.

    Attributes:
        text: Without the prompt.
        num_tokens: Number of tokens drawn, those of a stop text included.
        finish_reason: What ended the text.
        choices: One per token, where requested.
    """

    text: str
    num_tokens: int
    finish_reason: FinishReason
    choices: tuple[TokenChoice, ...] | None = None
