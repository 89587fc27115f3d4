"""The fixed order in which logits are processed.

Bias and bans; penalties; temperature; top-k, top-p, min-p, typical, top-nσ, XTC; mirostat. So
bans do not reduce the number of tokens that top-k keeps, penalties act on logits before
temperature, and every filter measures mass at the temperature of the step, among the tokens that
earlier filters kept.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from textgen.arrays import Float32Array, Float64Array, FloatArray, Int32Array
from textgen.config import SamplingConfig
from textgen.sampling.filters import (
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
    """Per-step inputs available to processors.

    Attributes:
        history: int32 `[batch, window]`, the latest tokens, right-aligned, -1 before the first.
        temperature: Of this step; greater than 0 if a processor reads it.
        uniforms: `[batch]` in `[0, 1)`, for decisions other than the draw itself.
        max_surprise: `[batch]`, mirostat's bound in bits.
    """

    history: Int32Array
    temperature: float
    uniforms: Float64Array
    max_surprise: Float64Array


@dataclass(frozen=True)
class ProcessorStep:
    """A processor with its settings; prints as `keep_top_k(40)`.

    Attributes:
        function: Takes logits, the attributes in `reads`, and `values`; returns logits.
        values: Its settings.
        reads: Names of the `StepContext` attributes that it takes.
        shown: Its arguments as printed; empty: `reads` and `values`.
    """

    function: Callable[..., FloatArray]
    values: tuple[Any, ...] = ()
    reads: tuple[str, ...] = ()
    shown: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The function's name."""
        return self.function.__name__

    def __call__(self, logits: FloatArray, context: StepContext) -> FloatArray:
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
    config: SamplingConfig, bias: Float32Array | None = None
) -> tuple[ProcessorStep, ...]:
    """Return the processing steps of `config`, in the order they are applied.

    Args:
        config: The settings; a step whose setting is None is left out. At temperature 0 only
            bias and penalties remain, since the most probable token survives every other step.
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
    final = config.final_temperature
    shown = f"{config.temperature}" + ("" if final is None else f" to {final}")
    return ProcessorStep(scale_by_temperature, (), ("temperature",), (shown,))


class _Entry(NamedTuple):
    """A processor that one setting switches on.

    Attributes:
        setting: Name of that setting, its first argument.
        function: The processor.
        reads: Names of the `StepContext` attributes that it takes.
        further_settings: Names of the settings that are its other arguments.
    """

    setting: str
    function: Callable[..., FloatArray]
    reads: tuple[str, ...] = ()
    further_settings: tuple[str, ...] = ()


_PENALTIES = (
    _Entry("repetition_penalty", penalize_repetition, ("history",)),
    _Entry("presence_penalty", penalize_presence, ("history",)),
    _Entry("frequency_penalty", penalize_frequency, ("history",)),
    _Entry("no_repeat_ngram", forbid_repeated_ngrams, ("history",)),
    _Entry("dry_multiplier", penalize_dry, ("history",), ("dry_base", "dry_allowed_length")),
)
_FILTERS = (
    _Entry("top_k", keep_top_k),
    _Entry("top_p", keep_top_p),
    _Entry("min_p", keep_min_p),
    _Entry("typical_p", keep_typical),
    _Entry("top_n_sigma", keep_top_n_sigma),
    _Entry("xtc_probability", exclude_top_choices, ("uniforms",), ("xtc_threshold",)),
)
# Settings that keep a subset of the tokens; without effect at temperature 0.
FILTER_SETTINGS = (*(entry.setting for entry in _FILTERS), "mirostat")


def _steps(entries: Sequence[_Entry], config: SamplingConfig) -> list[ProcessorStep]:
    return [
        ProcessorStep(
            entry.function,
            tuple(getattr(config, name) for name in (entry.setting, *entry.further_settings)),
            entry.reads,
        )
        for entry in entries
        if getattr(config, entry.setting) is not None
    ]
