"""How a text is scored, and how a model learns from the text it reads."""

import math
from dataclasses import dataclass
from typing import Literal

from textgen.config.checks import require

ScoringProtocol = Literal["carried", "windows", "dynamic"]
Split = Literal["validation", "train"]


@dataclass(frozen=True, kw_only=True)
class DynamicConfig:
    """How the weights follow a text: scored in segments, each learnt once it is scored."""

    segment: int = 64
    """Tokens that are scored before the weights are updated on them."""
    learning_rate: float = 5e-4
    """Size of an update."""
    clip_norm: float | None = 1.0
    """Largest global norm of the gradient; None: no clipping."""
    pull: float = 0.002
    """Share of the way back to the trained weights that they go after each update."""

    def __post_init__(self) -> None:
        require(self.segment >= 1, "segment", "at least 1", self.segment)
        rate, clip = self.learning_rate, self.clip_norm
        require(0 <= rate < math.inf, "learning_rate", "a number of at least 0", rate)
        require(clip is None or 0 < clip < math.inf, "clip_norm", "a number above 0", clip)
        require(0 <= self.pull <= 1, "pull", "between 0 and 1", self.pull)
