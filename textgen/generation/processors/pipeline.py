"""The one fixed order in which logits are processed."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from textgen.config import SamplingConfig
from textgen.generation.processors.filters import (
    Logits,
    ban_tokens,
    keep_top_k,
    keep_top_p,
    scale_by_temperature,
)


@dataclass(frozen=True)
class ProcessorStep:
    """One function and the value it is called with; prints as `keep_top_k(40)`.

    Attributes:
        function: Takes logits and `value`, returns logits.
        value: Its setting.
    """

    function: Callable[[Logits, Any], Logits]
    value: Any

    @property
    def name(self) -> str:
        """The function's name."""
        return self.function.__name__

    def __call__(self, logits: Logits) -> Logits:
        """Return the processed logits, `[batch, vocab_size]`."""
        return self.function(logits, self.value)

    def __str__(self) -> str:
        return f"{self.name}({self.value})"


def build_processors(
    config: SamplingConfig, banned_ids: Sequence[int] = ()
) -> tuple[ProcessorStep, ...]:
    """Return the steps that `config` asks for, in the order they are applied.

    Args:
        config: A request; `None` leaves a step out. At temperature 0 only the ban is
            left, since the most probable token survives every other step.
        banned_ids: Token ids that must never come.

    Returns:
        At most four steps: ban, temperature, top-k, top-p.
    """
    steps = [ProcessorStep(ban_tokens, tuple(banned_ids))] if banned_ids else []
    if config.temperature > 0:
        steps.append(ProcessorStep(scale_by_temperature, config.temperature))
        if config.top_k is not None:
            steps.append(ProcessorStep(keep_top_k, config.top_k))
        if config.top_p is not None:
            steps.append(ProcessorStep(keep_top_p, config.top_p))
    return tuple(steps)
