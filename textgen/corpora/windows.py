"""Scoring windows: a text arranged so that one pass predicts each of its tokens once.

The arrangement is computed with NumPy; TensorFlow is imported only to build a
`tf.data.Dataset`. This module does NOT know what the tokens mean, or how they are scored.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from numpy.typing import NDArray

from textgen.arrays import BoolArray, Float32Array, Int64Array, IntArray, TokenIds
from textgen.errors import CorpusError
from textgen.startup import require_extra

if TYPE_CHECKING:
    import tensorflow as tf

_T = TypeVar("_T", bound=np.generic)

MAX_SCORING_LANES = 32
SCORING_WARMUP = 256

# With fewer tokens per lane, the warmup would cost more than the parallel lanes save.
_MIN_TOKENS_PER_LANE = 2048


@dataclass(frozen=True, eq=False)
class ScoringWindows:
    """A text in lanes of windows, to be read in order with carried state.

    Attributes:
        token_ids: int32 `[num_windows, num_lanes, seq_len]`.
        targets: int32 `[num_windows, num_lanes, seq_len]`.
        weights: float32 `[num_windows, num_lanes, seq_len]`: 1 where a prediction counts, 0 in
            warmup and padding; the sum is the number of tokens.
        restart: bool `[num_windows]`, true for the first window only.
    """

    token_ids: TokenIds
    targets: TokenIds
    weights: Float32Array
    restart: BoolArray

    @property
    def num_lanes(self) -> int:
        """Rows of each window."""
        return int(self.token_ids.shape[1])


def scoring_windows(
    token_ids: IntArray,
    start_id: int,
    max_lanes: int = MAX_SCORING_LANES,
    warmup: int = SCORING_WARMUP,
    seq_len: int = 128,
) -> ScoringWindows:
    """Arrange a text for scoring in parallel lanes.

    The text is divided into contiguous segments of at least 2,048 tokens, one per lane. A lane
    first reads the `warmup` tokens that precede its segment, so that its first predictions have
    context too. A short text is one lane, which is exactly a single pass.

    Args:
        token_ids: The text, `[time]`.
        start_id: The id from which the first token is predicted.
        max_lanes: Maximum number of lanes.
        warmup: Tokens that a lane reads before its predictions count.
        seq_len: Inputs per window.

    Returns:
        The windows; the weights sum to the number of tokens.

    Raises:
        CorpusError: The text has no token.
    """
    require_tokens(token_ids)
    num_tokens = len(token_ids)
    num_lanes = max(1, min(num_tokens // _MIN_TOKENS_PER_LANE, max_lanes))
    positions, weights = _plan_segments(num_tokens, num_lanes, warmup, seq_len)
    stream = np.concatenate([[start_id], token_ids]).astype(np.int32)
    return ScoringWindows(
        _to_windows(stream[positions], seq_len),
        _to_windows(stream[positions + 1], seq_len),
        _to_windows(weights, seq_len),
        np.arange(positions.shape[1] // seq_len) == 0,
    )


def scoring_dataset(
    token_ids: IntArray,
    start_id: int,
    max_lanes: int = MAX_SCORING_LANES,
    warmup: int = SCORING_WARMUP,
    seq_len: int = 128,
) -> "tuple[tf.data.Dataset, int]":
    """Return the windows of `scoring_windows` one by one, and their number of lanes.

    Args:
        token_ids: The text, `[time]`.
        start_id: The id from which the first token is predicted.
        max_lanes: Maximum number of lanes.
        warmup: Tokens that a lane reads before its predictions count.
        seq_len: Inputs per window.

    Returns:
        Elements `({"token_ids", "restart"}, targets, weights)`: int32 `[num_lanes, seq_len]`,
        bool `[]`, int32 and float32 `[num_lanes, seq_len]`; and `num_lanes`.

    Raises:
        CorpusError: The text has no token.
        DependencyError: TensorFlow is not installed.
    """
    require_extra("tensorflow", "train")
    import tensorflow as tf

    windows = scoring_windows(token_ids, start_id, max_lanes, warmup, seq_len)
    inputs = {"token_ids": windows.token_ids, "restart": windows.restart}
    with tf.device("CPU:0"):
        elements = tf.data.Dataset.from_tensor_slices((inputs, windows.targets, windows.weights))
    return elements.prefetch(2), windows.num_lanes


def require_tokens(token_ids: IntArray) -> None:
    """Raise unless there is a token to score.

    Args:
        token_ids: The text, `[time]`.

    Raises:
        CorpusError: `time` is 0.
    """
    if len(token_ids) == 0:
        raise CorpusError(
            "A text to score must have at least 1 token. Received: 0. Provide a longer text."
        )


def _plan_segments(
    num_tokens: int, num_lanes: int, warmup: int, seq_len: int
) -> tuple[Int64Array, Float32Array]:
    """Return the positions that each lane reads, and the weights of the predictions there.

    Both are `[num_lanes, num_windows * seq_len]`. The end of a lane is padded, with weight 0, by
    the start of the next segment or by repeating the last token of the text.
    """
    bounds = np.arange(num_lanes + 1, dtype=np.int64) * num_tokens // num_lanes
    begins, ends = bounds[:-1, None], bounds[1:, None]
    firsts = np.maximum(begins - warmup, 0)
    num_windows = -(-int((ends - firsts).max()) // seq_len)
    positions = firsts + np.arange(num_windows * seq_len)
    weights = (begins <= positions) & (positions < ends)
    return np.minimum(positions, num_tokens - 1), weights.astype(np.float32)


def _to_windows(lanes: NDArray[_T], seq_len: int) -> NDArray[_T]:
    """Cut `[num_lanes, num_windows * seq_len]` into `[num_windows, num_lanes, seq_len]`."""
    windows = lanes.reshape(len(lanes), -1, seq_len)
    return np.ascontiguousarray(windows.swapaxes(0, 1))
