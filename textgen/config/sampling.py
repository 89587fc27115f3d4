"""How a text is drawn: the settings of a request."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import tyro

from textgen.config.checks import require


@dataclass(frozen=True, kw_only=True)
class SamplingConfig:
    """How a text is drawn from the model's distribution, and when it ends."""

    max_new_tokens: int = 500
    """Tokens to write; the prompt does not count."""
    seed: int = 1
    """Same seed, same text."""
    temperature: float | Literal["auto"] = 0.8
    """Divides the logits: below 1 is bolder, 0 always takes the most probable token; auto: where
    the text has the entropy of held-out text, measured once for a run."""
    final_temperature: float | None = None
    """The temperature moves in a line to this one at the last token; None: it stays."""
    top_k: int | None = None
    """Keep the k most probable tokens; None: all."""
    top_p: float | None = None
    """Keep the smallest set of tokens whose mass reaches p; None: all."""
    min_p: float | None = None
    """Keep tokens of at least p times the largest probability; None: all."""
    typical_p: float | None = None
    """Keep the tokens whose surprise is nearest the expected, up to mass p; None: all."""
    top_n_sigma: float | None = None
    """Keep logits within n standard deviations of the largest; None: all."""
    xtc_probability: float | None = None
    """How often the most probable choices are left out (XTC); None: never."""
    xtc_threshold: float = 0.1
    """What probability makes a token one of the choices that XTC leaves out."""
    mirostat: float | None = None
    """Hold the surprise of the text near so many bits a token (mirostat 2); None: off."""
    mirostat_rate: float = 0.1
    """How fast mirostat adapts."""
    repetition_penalty: float | None = None
    """Weaken tokens that are there already: logits divided or multiplied by this; None: off."""
    presence_penalty: float | None = None
    """Taken from the logit of a token that is there already; None: off."""
    frequency_penalty: float | None = None
    """Taken from a token's logit for each time it is there already; None: off."""
    no_repeat_ngram: int | None = None
    """No n tokens in a row come twice; None: off."""
    dry_multiplier: float | None = None
    """Weaken tokens that go on with a repetition, more the longer it is (DRY); None: off."""
    dry_base: float = 1.75
    """DRY's penalty grows by this factor with each token of a repetition."""
    dry_allowed_length: int = 2
    """Tokens that may repeat before DRY acts."""
    penalty_window: int = 256
    """Tokens, of prompt and text, that penalties look back on."""
    ban: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """Characters or words that never come."""
    bias: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """TEXT=NATS, added to the logit of every token that completes TEXT."""
    regex: str | None = None
    """The text as a whole must match this regular expression; None: any text."""
    max_copy: int | None = None
    """The most characters in a row that may stand in the training text; None: any."""
    stop: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """Texts that end the text when they come."""
    stop_regex: str | None = None
    """A regular expression that ends the text when it matches; None: none."""
    stop_at_document: bool = False
    """End the text where a document ends, for runs that were trained with --document-end."""
    stop_at_sentence: int | None = None
    """End with the first sentence that ends after so many tokens; None: no."""
    min_new_tokens: int = 0
    """Nothing ends the text before so many tokens."""
    include_stop: bool = False
    """Keep the text that made it stop; the end of a sentence always stays."""

    def __post_init__(self) -> None:
        for name in ("ban", "bias", "stop"):
            texts = getattr(self, name)
            require(not isinstance(texts, str), name, "a list of texts", repr(texts))
            require(all(texts), name, "texts that are not empty", "an empty one")
        require(0 <= self.seed < 2**64, "seed", "in [0, 2**64)", self.seed)
        for name in ("max_new_tokens", "min_new_tokens"):
            require(getattr(self, name) >= 0, name, "at least 0", getattr(self, name))
        value = self.temperature
        fine = value == "auto" or (math.isfinite(value) and value >= 0)
        require(fine, "temperature", "a number of at least 0, or auto", value)
        for name, limit, within in _SAMPLING_LIMITS:
            value = getattr(self, name)
            require(value is None or within(value), name, limit, value)
        if self.temperature == 0:
            require(self.final_temperature is None, "final_temperature", "None at temperature 0", 0)
        for pair in self.bias:
            require(_is_bias(pair), "bias", "TEXT=NATS, as in the=-2.5", pair)


def _is_bias(pair: str) -> bool:
    text, equals, nats = pair.rpartition("=")
    try:
        return bool(text and equals) and math.isfinite(float(nats))
    except ValueError:
        return False


_AT_LEAST_ONE = "at least 1", lambda value: value >= 1
_ABOVE_ZERO = "a number above 0", lambda value: 0 < value < math.inf
_SHARE = "in (0, 1]", lambda value: 0 < value <= 1
_FINITE = "a number", math.isfinite
_SAMPLING_LIMITS: tuple[tuple[str, str, Callable[[Any], bool]], ...] = (
    ("top_k", *_AT_LEAST_ONE),
    ("no_repeat_ngram", *_AT_LEAST_ONE),
    ("dry_allowed_length", *_AT_LEAST_ONE),
    ("penalty_window", "in [1, 65536]", lambda value: 1 <= value <= 65_536),
    ("max_copy", *_AT_LEAST_ONE),
    ("stop_at_sentence", *_AT_LEAST_ONE),
    ("top_p", *_SHARE),
    ("min_p", *_SHARE),
    ("typical_p", *_SHARE),
    ("xtc_probability", *_SHARE),
    ("xtc_threshold", *_SHARE),
    ("top_n_sigma", *_ABOVE_ZERO),
    ("final_temperature", *_ABOVE_ZERO),
    ("mirostat", *_ABOVE_ZERO),
    ("mirostat_rate", *_ABOVE_ZERO),
    ("repetition_penalty", *_ABOVE_ZERO),
    ("dry_multiplier", *_ABOVE_ZERO),
    ("dry_base", *_ABOVE_ZERO),
    ("presence_penalty", *_FINITE),
    ("frequency_penalty", *_FINITE),
)
