"""The protocols of engines: `Engine` predicts, `LoopEngine` also draws tokens.

An engine is given token ids and a state, and returns logits and the next state. It does NOT
know text, or when to stop.
"""

from collections.abc import Mapping
from dataclasses import fields
from typing import Protocol, runtime_checkable

from textgen.arrays import Float32Array, Float64Array, Int32Array, IntArray, State
from textgen.config import STOP_SETTINGS, SamplingConfig
from textgen.sampling import FILTER_SETTINGS

# Settings that the caller of `run_loop` applies: bias and bans, the seed, and stop conditions.
CALLER_SETTINGS = STOP_SETTINGS | {"ban", "bias", "seed"}

# Settings that refine others: each has no effect unless one of the settings in its set is on.
REFINEMENTS: Mapping[str, frozenset[str]] = {
    "dry_allowed_length": frozenset({"dry_multiplier"}),
    "dry_base": frozenset({"dry_multiplier"}),
    "mirostat_rate": frozenset({"mirostat"}),
    "penalty_window": frozenset(
        {
            "dry_multiplier",
            "frequency_penalty",
            "no_repeat_ngram",
            "presence_penalty",
            "repetition_penalty",
        }
    ),
    "xtc_threshold": frozenset({"xtc_probability"}),
}


class Engine(Protocol):
    """A language model that is called step by step; the caller keeps the state.

    A state is a NumPy array `[num_layers, batch, state_size]`: `h`, and for an LSTM `h` and `c`
    concatenated. An engine never modifies the state that it receives; it returns a new one. Rows
    are independent of each other. `forward`, `prefill` and a loop of `decode_step` agree up to
    float32 rounding.

    Attributes:
        vocab_size: Number of token ids.
    """

    vocab_size: int

    def initial_state(self, batch: int) -> State:
        """Return the state at the start of a text, `[num_layers, batch, state_size]`."""

    def forward(self, token_ids: IntArray, state: State) -> tuple[Float32Array, State]:
        """Read tokens, and predict the next one after each.

        Args:
            token_ids: `[batch, time]`, at least one step.
            state: `[num_layers, batch, state_size]`.

        Returns:
            Logits `[batch, time, vocab_size]` float32, and the next state.
        """

    def prefill(self, token_ids: IntArray, state: State) -> tuple[Float32Array, State]:
        """Read tokens, and predict the next one after the last, in memory independent of `time`.

        Args:
            token_ids: `[batch, time]`, at least one step.
            state: `[num_layers, batch, state_size]`.

        Returns:
            Logits `[batch, vocab_size]` float32, and the next state.
        """

    def decode_step(self, token_ids: IntArray, state: State) -> tuple[Float32Array, State]:
        """Read one token per row and predict the next.

        Args:
            token_ids: `[batch]`.
            state: `[num_layers, batch, state_size]`.

        Returns:
            Logits `[batch, vocab_size]` float32, and the next state.
        """


@runtime_checkable
class LoopEngine(Engine, Protocol):
    """An engine that also draws tokens: the whole generation loop in one call."""

    def unsupported(self, sampling: SamplingConfig) -> frozenset[str]:
        """Return the settings that `run_loop` cannot apply; see `unsupported_settings`.

        Args:
            sampling: Any settings.

        Returns:
            Names of fields of `SamplingConfig`; empty if `run_loop` accepts `sampling`.
        """

    def run_loop(
        self,
        token_ids: IntArray,
        state: State,
        uniforms: Float64Array,
        sampling: SamplingConfig,
        bias: Float32Array | None = None,
    ) -> tuple[Int32Array, State]:
        """Read one token per row and draw the next, once per row of `uniforms`.

        Args:
            token_ids: `[batch]`, the last token of each row, not yet read.
            state: `[num_layers, batch, state_size]`, before that token.
            uniforms: `[steps, batch]` in `[0, 1)`; each draws one token.
            sampling: Settings of every row; those of `CALLER_SETTINGS` are ignored.
            bias: float32 `[vocab_size]`, added to the logits before they are divided by the
                temperature; -inf bans a token; None: no bias.

        Returns:
            The drawn tokens `[steps, batch]`, and the state before the last of them, which is
            not yet read.

        Raises:
            ConfigError: `unsupported(sampling)` is not empty, the temperature is `"auto"`, or
                `bias` has another shape, contains NaN or +inf, or bans every token.
        """


def unsupported_settings(sampling: SamplingConfig, applied: frozenset[str]) -> frozenset[str]:
    """Return the settings that would be ignored by a loop that applies only `applied`.

    Args:
        sampling: Any settings.
        applied: Names of the settings that the loop applies.

    Returns:
        Names of the fields that are on, but applied by neither the loop nor its caller.

    A field is on if it differs from its default and has an effect. A field added to
    `SamplingConfig` is therefore unsupported until an engine names it.
    """
    changed = {
        field.name for field in fields(sampling) if getattr(sampling, field.name) != field.default
    }
    if sampling.temperature == 0:
        # The most probable token survives every filter.
        changed.difference_update(FILTER_SETTINGS)
    ineffective = {name for name, refined in REFINEMENTS.items() if not changed & refined}
    return frozenset(changed - ineffective - applied - CALLER_SETTINGS)
