"""Settings of a request: how tokens are sampled, and when the text ends."""

import math
from dataclasses import dataclass
from typing import Annotated, Literal

import tyro

from textgen.config.checks import check_settings
from textgen.config.limits import (
    AT_LEAST_ONE,
    AT_LEAST_ZERO,
    FINITE,
    NOT_EMPTY_TEXTS,
    POSITIVE,
    POSITIVE_FRACTION,
    Check,
    Limits,
    require,
)

# The bias of a token is the float32 sum of all entries that it completes.
_MAX_NATS = 1e9
_BIAS_FORM = f"TEXT=NATS, as in the=-2.5, with NATS in [{-_MAX_NATS:,.0f}, {_MAX_NATS:,.0f}]"


def parse_bias(pair: str) -> tuple[str, float]:
    """Return the text and the nats of a `TEXT=NATS` bias; raises `ValueError` for other strings."""
    text, equals, nats = pair.rpartition("=")
    if not (text and equals) or not math.isfinite(float(nats)):
        raise ValueError(pair)
    return text, float(nats)


def _are_biases(pairs: tuple[str, ...]) -> bool:
    try:
        return all(abs(parse_bias(pair)[1]) <= _MAX_NATS for pair in pairs)
    except ValueError:
        return False


Texts = Annotated[tyro.conf.UseAppendAction[tuple[str, ...]], NOT_EMPTY_TEXTS]


# The settings that decide when a text ends; the seed and all others decide what it contains.
STOP_SETTINGS = frozenset(
    {
        "include_stop",
        "max_new_tokens",
        "min_new_tokens",
        "stop",
        "stop_at_document",
        "stop_at_sentence",
        "stop_regex",
    }
)


@dataclass(frozen=True, kw_only=True)
class SamplingConfig:
    """Sampling from the model's distribution, and the conditions that end a text."""

    max_new_tokens: Annotated[int, AT_LEAST_ZERO] = 500
    """Maximum number of tokens to generate; the prompt does not count."""
    seed: Annotated[int, Limits(minimum=0, below=2**64)] = 1
    """Seed of the sampling; the same seed gives the same text."""
    temperature: Annotated[float | Literal["auto"], AT_LEAST_ZERO] = 0.8
    """Divides the logits: below 1 sharpens the distribution, 0 always takes the most probable
    token; auto: the temperature at which generated text has the entropy of held-out text,
    measured once per run."""
    final_temperature: Annotated[float | None, POSITIVE] = None
    """Temperature at the last token, reached linearly; None: constant."""
    top_k: Annotated[int | None, AT_LEAST_ONE] = None
    """Keep the k most probable tokens; None: all."""
    top_p: Annotated[float | None, POSITIVE_FRACTION] = None
    """Keep the smallest set of tokens whose mass reaches p; None: all."""
    min_p: Annotated[float | None, POSITIVE_FRACTION] = None
    """Keep tokens of at least p times the largest probability; None: all."""
    typical_p: Annotated[float | None, POSITIVE_FRACTION] = None
    """Keep the tokens whose surprise is nearest the entropy, up to mass p; None: all."""
    top_n_sigma: Annotated[float | None, POSITIVE] = None
    """Keep logits within n standard deviations of the largest; None: all."""
    xtc_probability: Annotated[float | None, POSITIVE_FRACTION] = None
    """Probability, per step, of excluding the most probable tokens (XTC); None: off."""
    xtc_threshold: Annotated[float, POSITIVE_FRACTION] = 0.1
    """Minimum probability of a token that XTC may exclude; the least probable of these stays."""
    mirostat: Annotated[float | None, POSITIVE] = None
    """Target surprise of mirostat 2, bits per token; None: off."""
    mirostat_rate: Annotated[float, POSITIVE] = 0.1
    """Learning rate of mirostat."""
    repetition_penalty: Annotated[float | None, POSITIVE] = None
    """Penalize tokens already in the window (CTRL): positive logits are divided by this, negative
    ones multiplied; None: off."""
    presence_penalty: Annotated[float | None, FINITE] = None
    """Subtracted from the logit of each token already in the window; None: off."""
    frequency_penalty: Annotated[float | None, FINITE] = None
    """Subtracted from a token's logit once per occurrence in the window; None: off."""
    no_repeat_ngram: Annotated[int | None, AT_LEAST_ONE] = None
    """Never repeat an n-gram of this length; None: off."""
    dry_multiplier: Annotated[float | None, POSITIVE] = None
    """Penalize tokens that extend a repetition, more the longer it is (DRY); None: off."""
    dry_base: Annotated[float, POSITIVE] = 1.75
    """Factor by which DRY's penalty grows with each token of a repetition."""
    dry_allowed_length: Annotated[int, Limits(minimum=1, maximum=65_536)] = 2
    """Length of a repetition up to which DRY does nothing, tokens."""
    penalty_window: Annotated[int, Limits(minimum=1, maximum=65_536)] = 256
    """Number of most recent tokens, prompt included, that penalties consider."""
    ban: Texts = ()
    """Characters or words that never appear."""
    bias: Annotated[Texts, Check(_are_biases, _BIAS_FORM)] = ()
    """TEXT=NATS, added to the logit of every token that completes TEXT."""
    regex: str | None = None
    """Regular expression that the whole text must match; None: any text."""
    max_copy: Annotated[int | None, AT_LEAST_ONE] = None
    """Maximum number of consecutive characters copied from the training text; None: no limit."""
    stop: Texts = ()
    """Strings that end generation when they appear."""
    stop_regex: str | None = None
    """Regular expression that ends generation when it matches; None: off."""
    stop_at_document: bool = False
    """Stop at the end of a document, for runs trained with --document-end."""
    stop_at_sentence: Annotated[int | None, AT_LEAST_ONE] = None
    """Stop at the first end of a sentence after this many tokens; None: off."""
    min_new_tokens: Annotated[int, AT_LEAST_ZERO] = 0
    """Number of tokens before which no stop condition ends the text."""
    include_stop: bool = False
    """Keep the text that ended generation; the end of a sentence is always kept."""

    def __post_init__(self) -> None:
        check_settings(self)
        if self.temperature == 0:
            limit = "None at temperature 0"
            final = self.final_temperature
            require(final is None, "final_temperature", limit, final)
