"""Which tokens each step reads: lanes for training, stretches for scoring.

It knows positions in a corpus and nothing of what the tokens mean. All plans are
NumPy; TensorFlow comes in only where a plan becomes a `tf.data.Dataset`.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from numpy.typing import NDArray

from textgen.errors import CorpusError

if TYPE_CHECKING:
    import tensorflow as tf

_T = TypeVar("_T", bound=np.generic)

# Random numbers that the borders of windows take turns with; prime, so that an epoch never
# meets the same ones twice.
_SHIFTS = 65_537

SCORING_LANES = 32
SCORING_WARM_UP = 256

# Below this many tokens a lane, the warm-up would cost more than the lanes bring.
_MIN_SCORING_LANE = 2048


@dataclass(frozen=True)
class LanePlan:
    """The corpus as lanes side by side, read window by window.

    Lane `i` is the stretch of `lane_len` tokens from `i * lane_len`. An epoch reads
    each lane from front to back in `steps_per_epoch` windows that touch, starting
    at an offset that differs from epoch to epoch, so that windows are not always
    cut at the same places. With `jitter` each border inside an epoch is moved as well.

    Attributes:
        num_tokens: Length of the corpus.
        batch_size: Number of lanes.
        seq_len: Inputs of a window; it spans one token more, the last target.
        seed: Key of the offsets.
        jitter: Tokens by which a border moves at most, either way; a window then has
            `seq_len - 2 * jitter` to `seq_len + 2 * jitter` inputs.

    Raises:
        CorpusError: A lane is shorter than a window; `plan_lanes` avoids that.
    """

    num_tokens: int
    batch_size: int
    seq_len: int
    seed: int
    jitter: int = 0

    def __post_init__(self) -> None:
        if self.lane_len < self.seq_len + 1:
            raise CorpusError(
                f"A lane must have at least seq_len + 1 = {self.seq_len + 1} tokens. "
                f"Received: {self.lane_len}. Pass a smaller --batch-size or --seq-len."
            )

    @property
    def lane_len(self) -> int:
        """Tokens of a lane."""
        return self.num_tokens // self.batch_size

    @property
    def steps_per_epoch(self) -> int:
        """Windows that a lane gives in one epoch, at every offset alike."""
        return max(1, (self.lane_len - self.seq_len) // self.seq_len)

    @property
    def max_offset(self) -> int:
        """The last token an epoch may start at, counted from the lane's first."""
        room = self.lane_len - 1 - self.steps_per_epoch * self.seq_len
        return min(self.seq_len - 1, room)

    def offsets(self, first_epoch: int, num_epochs: int) -> NDArray[np.int64]:
        """Return where the epochs start within their lanes, `[num_epochs]`.

        Each is a function of the seed and its own epoch alone, so that a resumed
        run reads what an uninterrupted one would have read.

        Source: Salmon et al. 2011, "Parallel Random Numbers: As Easy as 1, 2, 3"
        (Philox; the epoch is the counter, four words a count).
        """
        philox = np.random.Philox(key=self.seed % 2**128, counter=first_epoch)
        words = philox.random_raw(4 * num_epochs)[::4]
        return (words % np.uint64(self.max_offset + 1)).astype(np.int64)

    def shifts(self) -> NDArray[np.int64]:
        """Return by how much borders move, `[65537]`: that before step `n` by the `n`-th, in turn.

        An epoch's first and last border stay where they are.
        """
        words = np.random.Philox(key=self.seed % 2**128, counter=2**64).random_raw(_SHIFTS)
        return (words % np.uint64(2 * self.jitter + 1)).astype(np.int64) - self.jitter

    def window(self, step: int) -> tuple[NDArray[np.int64], int, bool]:
        """Return where step `step` reads.

        Args:
            step: Counts over all epochs, from 0.

        Returns:
            The first token of each lane's window, `[batch_size]`; how many inputs it has, from
            there, targets being those one further on; and whether an epoch begins, where the
            carried state starts anew.
        """
        epoch, index = divmod(step, self.steps_per_epoch)
        shifts = self.shifts()
        begin = index * self.seq_len + (shifts[step % _SHIFTS] if index else 0)
        is_last = index + 1 == self.steps_per_epoch
        end = (index + 1) * self.seq_len + (0 if is_last else shifts[(step + 1) % _SHIFTS])
        in_lane = int(self.offsets(epoch, 1)[0] + begin)
        lanes = np.arange(self.batch_size, dtype=np.int64) * self.lane_len
        return lanes + in_lane, int(end - begin), index == 0


def plan_lanes(
    num_tokens: int, batch_size: int, seq_len: int, seed: int, jitter: int = 0
) -> LanePlan:
    """Return a plan with `batch_size` lanes, or as many as the corpus has room for.

    Args:
        num_tokens: Length of the training split.
        batch_size: Lanes wanted.
        seq_len: Inputs of a window.
        seed: Key of the offsets.
        jitter: Tokens by which a border between windows moves at most.

    Returns:
        The plan; its `batch_size` is lower than asked where a lane would
        otherwise be shorter than a window.

    Raises:
        CorpusError: Not even one window fits.
    """
    room = num_tokens // (seq_len + 1)
    if room == 0:
        raise CorpusError(
            f"The training split has {num_tokens:,} tokens; a window needs at least "
            f"seq_len + 1 = {seq_len + 1:,}. Pass a smaller --seq-len, or give a longer corpus."
        )
    return LanePlan(num_tokens, min(batch_size, room), seq_len, seed, jitter)


def training_dataset(
    token_ids: NDArray[np.integer], plan: LanePlan, first_step: int, last_step: int
) -> "tf.data.Dataset":
    """Return the windows of the steps in `[first_step, last_step)`.

    Every element depends on its global step alone: a data set begun at a later step
    gives what one begun earlier gives from there on.

    Args:
        token_ids: The training split, `[num_tokens]`.
        plan: Which tokens each step reads.
        first_step: The first step to give.
        last_step: The step before which to stop.

    Returns:
        Elements `({"token_ids", "restart"}, targets)`: int32 `[batch_size, time]`, bool `[]`,
        int32 `[batch_size, time]`; `time` is `seq_len` without jitter, else about that.

    Raises:
        CorpusError: `token_ids` is not the corpus that `plan` was made for.
    """
    import tensorflow as tf

    lanes = _as_lanes(token_ids, plan)
    per_epoch = plan.steps_per_epoch
    first_epoch = first_step // per_epoch
    num_epochs = max(last_step - 1, first_step) // per_epoch - first_epoch + 1
    # On a GPU the corpus would be copied there, and back again at every step.
    with tf.device("CPU:0"):
        tokens = tf.constant(lanes)
        offsets = tf.constant(plan.offsets(first_epoch, num_epochs))
        shifts = tf.constant(plan.shifts())

    def border(step: "tf.Tensor", index: "tf.Tensor") -> "tf.Tensor":
        inside = tf.cast((index > 0) & (index < per_epoch), tf.int64)
        return index * plan.seq_len + inside * shifts[step % _SHIFTS]

    def read(step: "tf.Tensor") -> "tuple[dict[str, tf.Tensor], tf.Tensor]":
        index = step % per_epoch
        offset = offsets[step // per_epoch - first_epoch]
        begin, end = border(step, index), border(step + 1, index + 1)
        window = tf.cast(tokens[:, offset + begin : offset + end + 1], tf.int32)
        length = None if plan.jitter else plan.seq_len + 1
        window = tf.ensure_shape(window, [plan.batch_size, length])
        return {"token_ids": window[:, :-1], "restart": index == 0}, window[:, 1:]

    return tf.data.Dataset.range(first_step, last_step).map(read).prefetch(4)


@dataclass(frozen=True, eq=False)
class ScoringWindows:
    """A text laid out so that one pass with carried state predicts each token once.

    Attributes:
        token_ids: int32 `[num_windows, lanes, seq_len]`.
        targets: int32 `[num_windows, lanes, seq_len]`.
        weights: float32 `[num_windows, lanes, seq_len]`: 1 where a prediction
            counts, 0 in warm-up and padding; the sum is the number of tokens.
        restart: bool `[num_windows]`, true for the first alone.
    """

    token_ids: NDArray[np.int32]
    targets: NDArray[np.int32]
    weights: NDArray[np.float32]
    restart: NDArray[np.bool_]

    @property
    def lanes(self) -> int:
        """Rows of each window."""
        return int(self.token_ids.shape[1])


def scoring_windows(
    token_ids: NDArray[np.integer],
    start_id: int,
    max_lanes: int = SCORING_LANES,
    warm_up: int = SCORING_WARM_UP,
    seq_len: int = 128,
) -> ScoringWindows:
    """Lay out a text for scoring in lanes that run side by side.

    The text is cut into contiguous stretches, one a lane, of at least 2,048 tokens.
    Each but the first is preceded by the `warm_up` tokens before it, so that its
    first prediction has a context as well. A short text is one lane: the exact
    single pass.

    Args:
        token_ids: The text, `[time]`.
        start_id: What the first token is predicted from.
        max_lanes: The most lanes to use.
        warm_up: Tokens that a lane reads before its predictions count.
        seq_len: Inputs of a window.

    Returns:
        The windows; the weights sum to the number of tokens.

    Raises:
        CorpusError: The text has no token.
    """
    num_tokens = len(token_ids)
    if num_tokens == 0:
        raise CorpusError("A text to score must have at least 1 token. Received: 0. Give a text.")
    num_lanes = max(1, min(num_tokens // _MIN_SCORING_LANE, max_lanes))
    positions, weights = _stretches(num_tokens, num_lanes, warm_up, seq_len)
    stream = np.concatenate([[start_id], token_ids]).astype(np.int32)
    return ScoringWindows(
        _as_windows(stream[positions], seq_len),
        _as_windows(stream[positions + 1], seq_len),
        _as_windows(weights, seq_len),
        np.arange(positions.shape[1] // seq_len) == 0,
    )


def scoring_dataset(
    token_ids: NDArray[np.integer],
    start_id: int,
    max_lanes: int = SCORING_LANES,
    warm_up: int = SCORING_WARM_UP,
    seq_len: int = 128,
) -> "tuple[tf.data.Dataset, int]":
    """Return the windows of `scoring_windows` one by one, and how many lanes they have.

    Args:
        token_ids: The text, `[time]`.
        start_id: What the first token is predicted from.
        max_lanes: The most lanes to use.
        warm_up: Tokens that a lane reads before its predictions count.
        seq_len: Inputs of a window.

    Returns:
        Elements `({"token_ids", "restart"}, targets, weights)`: int32
        `[lanes, seq_len]`, bool `[]`, int32 and float32 `[lanes, seq_len]`; and `lanes`.

    Raises:
        CorpusError: The text has no token.
    """
    import tensorflow as tf

    windows = scoring_windows(token_ids, start_id, max_lanes, warm_up, seq_len)
    inputs = {"token_ids": windows.token_ids, "restart": windows.restart}
    with tf.device("CPU:0"):
        elements = tf.data.Dataset.from_tensor_slices((inputs, windows.targets, windows.weights))
    return elements.prefetch(2), windows.lanes


def _stretches(
    num_tokens: int, num_lanes: int, warm_up: int, seq_len: int
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Return which prediction each lane makes when, and whether it counts.

    Both are `[lanes, num_windows * seq_len]`. Padding makes predictions of the next
    lane, or the text's last over and over, that do not count.
    """
    bounds = np.arange(num_lanes + 1, dtype=np.int64) * num_tokens // num_lanes
    begins, ends = bounds[:-1, None], bounds[1:, None]
    firsts = np.maximum(begins - warm_up, 0)
    num_windows = -(-int((ends - firsts).max()) // seq_len)
    positions = firsts + np.arange(num_windows * seq_len)
    weights = (begins <= positions) & (positions < ends)
    return np.minimum(positions, num_tokens - 1), weights.astype(np.float32)


def _as_lanes(token_ids: NDArray[np.integer], plan: LanePlan) -> NDArray[np.integer]:
    if len(token_ids) != plan.num_tokens:
        raise CorpusError(
            f"The plan is for a corpus of {plan.num_tokens:,} tokens. "
            f"Received: {len(token_ids):,}. Make the plan from this corpus."
        )
    return token_ids[: plan.batch_size * plan.lane_len].reshape(plan.batch_size, plan.lane_len)


def _as_windows(rows: NDArray[_T], seq_len: int) -> NDArray[_T]:
    """Cut `[lanes, num_windows * seq_len]` into `[num_windows, lanes, seq_len]`."""
    cut = rows.reshape(len(rows), -1, seq_len)
    return np.ascontiguousarray(cut.swapaxes(0, 1))
