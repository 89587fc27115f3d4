"""What is done to the logits before a token is drawn: pure functions, one each.

They are applied in one fixed order, that of `pipeline`. This package knows logits and the
token ids so far. It does NOT know text, models, or how a token is drawn.

Every function takes and returns `[batch, vocab_size]`, leaves its argument as it was,
and treats a logit of -inf as a token that cannot come.
"""

from textgen.sampling.draw import pick, pick_greedy, row_uniforms
from textgen.sampling.filters import (
    Logits,
    add_bias,
    exclude_top_choices,
    keep_min_p,
    keep_top_k,
    keep_top_n_sigma,
    keep_top_p,
    keep_typical,
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
    "Logits",
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
    "next_mu",
    "pick",
    "pick_greedy",
    "row_uniforms",
    "penalize_dry",
    "penalize_frequency",
    "penalize_presence",
    "penalize_repetition",
    "scale_by_temperature",
]
