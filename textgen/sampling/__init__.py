"""Sampling: logits to a token, as pure functions applied in one fixed order.

`pipeline` defines the order; `penalties`, `filters` and `mirostat` have the processors, and `draw`
draws the token. This package knows logits and the token ids so far. It does NOT know text, models,
or engines.

Every processor takes and returns `[batch, vocab_size]`, does not modify its arguments, and treats
a logit of -inf as a token of probability 0.
"""

from textgen.sampling.draw import pick, pick_greedy, row_uniforms
from textgen.sampling.filters import (
    add_bias,
    exclude_top_choices,
    keep_min_p,
    keep_top_k,
    keep_top_n_sigma,
    keep_top_p,
    keep_typical,
    log_softmax,
    scale_by_temperature,
)
from textgen.sampling.mirostat import keep_surprise_below, next_mu
from textgen.sampling.penalties import (
    forbid_repeated_ngrams,
    penalize_dry,
    penalize_frequency,
    penalize_presence,
    penalize_repetition,
)
from textgen.sampling.pipeline import (
    FILTER_SETTINGS,
    ProcessorStep,
    StepContext,
    build_processors,
)

__all__ = [
    "FILTER_SETTINGS",
    "ProcessorStep",
    "StepContext",
    "add_bias",
    "build_processors",
    "exclude_top_choices",
    "forbid_repeated_ngrams",
    "keep_min_p",
    "keep_surprise_below",
    "keep_top_k",
    "keep_top_n_sigma",
    "keep_top_p",
    "keep_typical",
    "log_softmax",
    "next_mu",
    "penalize_dry",
    "penalize_frequency",
    "penalize_presence",
    "penalize_repetition",
    "pick",
    "pick_greedy",
    "row_uniforms",
    "scale_by_temperature",
]
