"""The one fixed order in which logits are processed, printable with `str`.

Bias and bans; penalties; temperature; top-k, top-p, min-p, typical, top-nσ, XTC; mirostat.
So a banned token never uses up a place, penalties act on the model's own logits, and
every filter measures mass at the temperature in force, among what the one before left.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from textgen.config import SamplingConfig
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
from textgen.sampling.mirostat import keep_surprise_below
from textgen.sampling.penalties import (
    forbid_repeated_ngrams,
    penalize_dry,
    penalize_frequency,
    penalize_presence,
    penalize_repetition,
)


@dataclass(kw_only=True)
class StepContext:
    """What of the past and of the moment processors may look at.

    Attributes:
        history: int32 `[batch, window]`, the latest tokens, right-aligned, -1 before the first.
        temperature: Of this step; above 0.
        uniforms: `[batch]` in `[0, 1)`, for decisions other than the draw itself.
        max_surprise: `[batch]`, mirostat's bound in bits.
    """

    history: NDArray[np.int32]
    temperature: float
    uniforms: NDArray[np.float64]
    max_surprise: NDArray[np.float64]


@dataclass(frozen=True)
class ProcessorStep:
    """One function with its settings; prints as `keep_top_k(40)`.

    Attributes:
        function: Takes logits, what it `reads`, and the `values`; returns logits.
        values: Its settings.
        reads: Names of what it takes from the `StepContext`.
        shown: What is printed as its arguments instead.
    """

    function: Callable[..., Logits]
    values: tuple[Any, ...] = ()
    reads: tuple[str, ...] = ()
    shown: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The function's name."""
        return self.function.__name__

    def __call__(self, logits: Logits, context: StepContext) -> Logits:
        """Return the processed logits, `[batch, vocab_size]`."""
        read = (getattr(context, name) for name in self.reads)
        return self.function(logits, *read, *self.values)

    def __str__(self) -> str:
        arguments = self.shown or (
            *self.reads,
            *(str(value) for value in self.values if not isinstance(value, np.ndarray)),
        )
        return f"{self.name}({', '.join(arguments)})"


def build_processors(
    config: SamplingConfig, bias: NDArray[np.float32] | None = None
) -> tuple[ProcessorStep, ...]:
    """Return the steps that `config` asks for, in the order they are applied.

    Args:
        config: A request; `None` leaves a step out. At temperature 0 only bias and penalties
            are left, since the most probable token survives every other step.
        bias: `[vocab_size]`, added to the logits; -inf bans a token.

    Returns:
        The steps.
    """
    steps = [] if bias is None else [ProcessorStep(add_bias, (bias,))]
    steps += _steps(_PENALTIES, config)
    if config.temperature != 0:
        steps.append(_temperature_step(config))
        steps += _steps(_FILTERS, config)
        if config.mirostat is not None:
            steps.append(ProcessorStep(keep_surprise_below, (), ("max_surprise",)))
    return tuple(steps)


def _temperature_step(config: SamplingConfig) -> ProcessorStep:
    last = config.final_temperature
    shown = f"{config.temperature}" + ("" if last is None else f" to {last}")
    return ProcessorStep(scale_by_temperature, (), ("temperature",), (shown,))


# each: the setting that switches it on, the function, what it reads, its further settings
_Row = tuple[str, Callable[..., Logits], tuple[str, ...], tuple[str, ...]]
_PENALTIES: tuple[_Row, ...] = (
    ("repetition_penalty", penalize_repetition, ("history",), ()),
    ("presence_penalty", penalize_presence, ("history",), ()),
    ("frequency_penalty", penalize_frequency, ("history",), ()),
    ("no_repeat_ngram", forbid_repeated_ngrams, ("history",), ()),
    ("dry_multiplier", penalize_dry, ("history",), ("dry_base", "dry_allowed_length")),
)
_FILTERS: tuple[_Row, ...] = (
    ("top_k", keep_top_k, (), ()),
    ("top_p", keep_top_p, (), ()),
    ("min_p", keep_min_p, (), ()),
    ("typical_p", keep_typical, (), ()),
    ("top_n_sigma", keep_top_n_sigma, (), ()),
    ("xtc_probability", exclude_top_choices, ("uniforms",), ("xtc_threshold",)),
)
# Settings that keep a subset of the tokens; at temperature 0 they change nothing.
FILTER_SETTINGS = (*(name for name, *_ in _FILTERS), "mirostat")


def _steps(rows: Sequence[_Row], config: SamplingConfig) -> list[ProcessorStep]:
    return [
        ProcessorStep(
            function, tuple(getattr(config, setting) for setting in (name, *further)), reads
        )
        for name, function, reads, further in rows
        if getattr(config, name) is not None
    ]
