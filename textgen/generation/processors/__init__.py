"""What is done to the logits before a token is drawn: pure functions, one each.

They are applied in one fixed order: ban, temperature, top-k, top-p. So top-p
measures mass among the k survivors, at the temperature in force, and a banned token
never uses up a place. This module knows logits. It does NOT know text, models, or how
a token is drawn.

Every function takes and returns `[batch, vocab_size]`, leaves its argument as it was,
and treats a logit of -inf as a token that cannot come.
"""

from textgen.generation.processors.filters import (
    Logits,
    ban_tokens,
    keep_top_k,
    keep_top_p,
    scale_by_temperature,
)
from textgen.generation.processors.pipeline import ProcessorStep, build_processors

__all__ = [
    "Logits",
    "ProcessorStep",
    "ban_tokens",
    "build_processors",
    "keep_top_k",
    "keep_top_p",
    "scale_by_temperature",
]
