"""What an engine is, and which one runs: the one place where that choice is made.

An engine knows token ids, a state and logits. It does NOT know text, sampling, or
when to stop.
"""

import math
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from textgen.arrays import State
from textgen.config import require


class Engine(Protocol):
    """A language model that is stepped from outside; the state is the caller's.

    A state is a NumPy array `[num_layers, batch, state_size]`, of an LSTM `h` and behind it
    `c`. An engine never writes into one that it was given, and returns a fresh one. Rows do
    not influence each other. `forward`, `prefill` and a loop of `decode_step` agree to float32
    rounding.

    Attributes:
        vocab_size: Number of token ids.
    """

    vocab_size: int

    def initial_state(self, batch: int) -> State:
        """Return the state at the beginning of a text, `[num_layers, batch, state_size]`."""

    def forward(
        self, token_ids: NDArray[np.integer], state: State
    ) -> tuple[NDArray[np.float32], State]:
        """Read tokens and predict after each.

        Args:
            token_ids: `[batch, time]`, at least one step.
            state: `[num_layers, batch, state_size]`.

        Returns:
            Logits `[batch, time, vocab_size]` float32, and the next state.
        """

    def prefill(
        self, token_ids: NDArray[np.integer], state: State
    ) -> tuple[NDArray[np.float32], State]:
        """Read tokens and predict after the last, in memory that does not grow with `time`.

        Args:
            token_ids: `[batch, time]`, at least one step.
            state: `[num_layers, batch, state_size]`.

        Returns:
            Logits `[batch, vocab_size]` float32, and the next state.
        """

    def decode_step(
        self, token_ids: NDArray[np.integer], state: State
    ) -> tuple[NDArray[np.float32], State]:
        """Read one token a row and predict the next.

        Args:
            token_ids: `[batch]`.
            state: `[num_layers, batch, state_size]`.

        Returns:
            Logits `[batch, vocab_size]` float32, and the next state.
        """


@dataclass(frozen=True, kw_only=True, eq=False)
class LoopSettings:
    """How an engine that draws for itself draws; steps and order are those of `processors`.

    Attributes:
        temperature: At least 0; 0: the most probable token, the lower id among equals.
        top_k: See `keep_top_k`.
        top_p: See `keep_top_p`.
        min_p: See `keep_min_p`.
        bias: float32 `[vocab_size]`, added to the logits before the temperature; -inf bans.

    Raises:
        ConfigError: A value lies outside its range.
    """

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    bias: NDArray[np.float32] | None = None

    def __post_init__(self) -> None:
        finite = 0 <= self.temperature < math.inf
        require(finite, "temperature", "a number of at least 0", self.temperature)
        require(self.top_k is None or self.top_k >= 1, "top_k", "at least 1", self.top_k)
        for name in ("top_p", "min_p"):
            value = getattr(self, name)
            require(value is None or 0 < value <= 1, name, "in (0, 1]", value)


@runtime_checkable
class LoopEngine(Engine, Protocol):
    """An engine that can also draw: the whole loop in one call."""

    def run_loop(
        self,
        token_ids: NDArray[np.integer],
        state: State,
        uniforms: NDArray[np.float64],
        settings: LoopSettings,
    ) -> tuple[NDArray[np.int32], State]:
        """Read a token a row, draw the next, and so on.

        Args:
            token_ids: `[batch]`, tokens that have not been read yet.
            state: `[num_layers, batch, state_size]`.
            uniforms: `[steps, batch]` in `[0, 1)`, what each draw is made with.
            settings: How to draw.

        Returns:
            The drawn tokens `[steps, batch]`, the last of which have not been read, and
            the next state.
        """
