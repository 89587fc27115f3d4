"""Settings of scoring and of dynamic evaluation."""

from dataclasses import dataclass
from typing import Annotated, Literal

from textgen.config.checks import check_settings
from textgen.config.limits import AT_LEAST_ONE, AT_LEAST_ZERO, POSITIVE, Limits

ScoringProtocol = Literal["carried", "windows", "dynamic"]
Split = Literal["validation", "train"]

# Number of passes over a text that a model is adapted to.
Passes = Annotated[int, Limits(minimum=1, maximum=1000)]


@dataclass(frozen=True, kw_only=True)
class DynamicConfig:
    """Settings of dynamic evaluation: a text is scored in segments, each then trained on."""

    segment: Annotated[int, AT_LEAST_ONE] = 64
    """Tokens that are scored before the weights are updated on them."""
    learning_rate: Annotated[float, AT_LEAST_ZERO] = 5e-4
    """Step size of an update."""
    clip_norm: Annotated[float | None, POSITIVE] = 1.0
    """Maximum global norm of the gradient; None: no clipping."""
    pull: Annotated[float, Limits(minimum=0, maximum=1)] = 0.002
    """After each update, move this fraction of the way back to the trained weights."""

    def __post_init__(self) -> None:
        check_settings(self)
