"""What an engine is, and which one runs: the one place where that choice is made.

An engine knows token ids, a state and logits. It does NOT know text, sampling, or
when to stop.
"""

from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from textgen.errors import ConfigError
from textgen.models.weights import ModelWeights

EngineName = Literal["auto", "numpy", "reference", "tensorflow"]

State = NDArray[Any]


class Engine(Protocol):
    """A language model that is stepped from outside; the state is the caller's.

    A state is a NumPy array `[num_layers, batch, hidden_size]`. An engine never writes
    into one that it was given, and returns a fresh one. Rows do not influence each
    other. `forward`, `prefill` and a loop of `decode_step` agree to float32 rounding.

    Attributes:
        vocab_size: Number of token ids.
    """

    vocab_size: int

    def initial_state(self, batch: int) -> State:
        """Return the state before any token: zeros, `[num_layers, batch, hidden_size]`."""

    def forward(
        self, token_ids: NDArray[np.integer], state: State
    ) -> tuple[NDArray[np.float32], State]:
        """Read tokens and predict after each.

        Args:
            token_ids: `[batch, time]`, at least one step.
            state: `[num_layers, batch, hidden_size]`.

        Returns:
            Logits `[batch, time, vocab_size]` float32, and the next state.
        """

    def prefill(
        self, token_ids: NDArray[np.integer], state: State
    ) -> tuple[NDArray[np.float32], State]:
        """Read tokens and predict after the last, in memory that does not grow with `time`.

        Args:
            token_ids: `[batch, time]`, at least one step.
            state: `[num_layers, batch, hidden_size]`.

        Returns:
            Logits `[batch, vocab_size]` float32, and the next state.
        """

    def decode_step(
        self, token_ids: NDArray[np.integer], state: State
    ) -> tuple[NDArray[np.float32], State]:
        """Read one token a row and predict the next.

        Args:
            token_ids: `[batch]`.
            state: `[num_layers, batch, hidden_size]`.

        Returns:
            Logits `[batch, vocab_size]` float32, and the next state.
        """


def make_engine(name: EngineName, weights: ModelWeights) -> Engine:
    """Return the engine `name` for a model.

    Args:
        name: `"numpy"`; `"tensorflow"`, the Keras model itself; `"reference"`, the slow
            twin in float64; `"auto"`: NumPy, since it writes one stream as fast as a loop
            compiled by XLA (48,000 against 44,700 tokens a second at 256 units, 8,100
            against 10,000 at 1024) and TensorFlow takes 3.6 s to import.
        weights: The model.

    Returns:
        An engine; TensorFlow is imported for `"tensorflow"` alone.

    Raises:
        ConfigError: There is no such engine.
    """
    if name in ("auto", "numpy"):
        from textgen.generation.numpy_engine import NumpyEngine

        return NumpyEngine(weights)
    if name == "reference":
        from textgen.generation.reference import ReferenceEngine

        return ReferenceEngine(weights)
    if name == "tensorflow":
        from textgen.generation.tensorflow_engine import TensorFlowEngine

        return TensorFlowEngine(weights)
    raise ConfigError(
        f"`engine` must be one of auto, numpy, reference, tensorflow. Received: {name}. "
        "Pass --engine."
    )
