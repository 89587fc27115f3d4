"""Training lanes: which tokens of the corpus each training step reads.

A plan is computed with NumPy from sizes and a seed; TensorFlow is imported only to build the
`tf.data.Dataset` of its windows. This module does NOT know what the tokens mean.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from textgen.arrays import Int64Array, IntArray
from textgen.errors import CorpusError
from textgen.startup import require_extra

if TYPE_CHECKING:
    import tensorflow as tf

# Number of random shifts, used cyclically; a prime, so that the cycle does not align with epochs.
_NUM_SHIFTS = 65_537


@dataclass(frozen=True)
class LanePlan:
    """A corpus divided into parallel lanes, each read window by window.

    Lane `i` is the `lane_len` contiguous tokens from `i * lane_len`. An epoch reads each lane
    from start to end in `steps_per_epoch` adjacent windows. The offset of the first window
    differs between epochs, so that the boundaries of windows vary; with `jitter`, each boundary
    inside an epoch is shifted as well.

    Attributes:
        num_tokens: Length of the training split.
        batch_size: Number of lanes.
        seq_len: Inputs per window; a window spans one more token, the last target.
        seed: Key of the random offsets and shifts.
        jitter: Maximum shift of a boundary in either direction, in tokens; a window then has
            `seq_len - 2 * jitter` to `seq_len + 2 * jitter` inputs.

    Raises:
        CorpusError: A lane is shorter than a window, which `plan_lanes` avoids.
    """

    num_tokens: int
    batch_size: int
    seq_len: int
    seed: int
    jitter: int = 0

    def __post_init__(self) -> None:
        if self.lane_len < self.seq_len + 1:
            raise CorpusError(
                f"A lane must have at least `seq_len` + 1 = {self.seq_len + 1:,} tokens. "
                f"Received: {self.lane_len:,}. Lower `batch_size` or `seq_len`."
            )

    @property
    def lane_len(self) -> int:
        """Tokens per lane."""
        return self.num_tokens // self.batch_size

    @property
    def steps_per_epoch(self) -> int:
        """Windows per lane and epoch, the same at every offset."""
        return max(1, (self.lane_len - self.seq_len) // self.seq_len)

    @property
    def max_offset(self) -> int:
        """The last position in a lane at which an epoch may start."""
        unread = self.lane_len - 1 - self.steps_per_epoch * self.seq_len
        return min(self.seq_len - 1, unread)

    def offsets(self, first_epoch: int, num_epochs: int) -> Int64Array:
        """Return the positions in a lane at which the epochs start, `[num_epochs]`.

        Each depends only on the seed and its epoch, so a resumed run reads what an uninterrupted
        one would have read.

        Source: Salmon et al. 2011, "Parallel Random Numbers: As Easy as 1, 2, 3" (Philox; the
        epoch is the counter, with four words per count).
        """
        philox = np.random.Philox(key=self.seed % 2**128, counter=first_epoch)
        words = philox.random_raw(4 * num_epochs)[::4]
        return (words % np.uint64(self.max_offset + 1)).astype(np.int64)

    def shifts(self) -> Int64Array:
        """Return the shifts of the boundaries, `[65537]`, in `[-jitter, jitter]`.

        Shift `n % 65537` belongs to the boundary before step `n`, except for the first and the
        last boundary of an epoch, which are not shifted.
        """
        words = np.random.Philox(key=self.seed % 2**128, counter=2**64).random_raw(_NUM_SHIFTS)
        return (words % np.uint64(2 * self.jitter + 1)).astype(np.int64) - self.jitter

    def window(self, step: int) -> tuple[Int64Array, int, bool]:
        """Return the window that a step reads, the readable reference for `training_dataset`.

        Args:
            step: Step of the whole training, from 0.

        Returns:
            The positions of the first inputs, `[batch_size]`; the number of inputs per lane,
            whose targets are one token later; and whether the step is the first of an epoch,
            at which the carried state is reset.
        """
        epoch, index = divmod(step, self.steps_per_epoch)
        shifts = self.shifts()
        begin = index * self.seq_len + (shifts[step % _NUM_SHIFTS] if index else 0)
        is_last = index + 1 == self.steps_per_epoch
        end = (index + 1) * self.seq_len + (0 if is_last else shifts[(step + 1) % _NUM_SHIFTS])
        in_lane = int(self.offsets(epoch, 1)[0] + begin)
        lanes = np.arange(self.batch_size, dtype=np.int64) * self.lane_len
        return lanes + in_lane, int(end - begin), index == 0


def plan_lanes(
    num_tokens: int, batch_size: int, seq_len: int, seed: int, jitter: int = 0
) -> LanePlan:
    """Return a plan with `batch_size` lanes, or with fewer if the corpus is too short for them.

    Args:
        num_tokens: Length of the training split.
        batch_size: Maximum number of lanes.
        seq_len: Inputs per window.
        seed: Key of the random offsets and shifts.
        jitter: Maximum shift of a boundary between windows, in tokens.

    Returns:
        The plan; its `batch_size` is smaller than requested if a lane would otherwise be
        shorter than a window.

    Raises:
        CorpusError: Not even one window fits.
    """
    max_lanes = num_tokens // (seq_len + 1)
    if max_lanes == 0:
        raise CorpusError(
            f"The training split must have at least `seq_len` + 1 = {seq_len + 1:,} tokens. "
            f"Received: {num_tokens:,}. Lower `seq_len`, or provide a longer corpus."
        )
    return LanePlan(num_tokens, min(batch_size, max_lanes), seq_len, seed, jitter)


def training_dataset(
    token_ids: IntArray, plan: LanePlan, first_step: int, last_step: int
) -> "tf.data.Dataset":
    """Return the windows of the steps in `[first_step, last_step)`.

    Every element depends only on its step, so a data set that begins at a later step equals the
    rest of one that begins earlier.

    Args:
        token_ids: The training split, `[num_tokens]`.
        plan: The tokens that each step reads.
        first_step: The first step.
        last_step: One more than the last step.

    Returns:
        Elements `({"token_ids", "restart"}, targets)`: int32 `[batch_size, time]`, bool `[]`,
        int32 `[batch_size, time]`. `time` is `seq_len` without jitter and varies with it.

    Raises:
        CorpusError: The plan was made for another number of tokens.
        DependencyError: TensorFlow is not installed.
    """
    require_extra("tensorflow", "train")
    import tensorflow as tf

    per_epoch = plan.steps_per_epoch
    first_epoch = first_step // per_epoch
    num_epochs = max(last_step - 1, first_step) // per_epoch - first_epoch + 1
    # On a GPU, the corpus would be copied to its memory and back at every step.
    with tf.device("CPU:0"):
        tokens = tf.constant(_to_lanes(token_ids, plan))
        offsets = tf.constant(plan.offsets(first_epoch, num_epochs))
        shifts = tf.constant(plan.shifts())

    def boundary(step: "tf.Tensor", index: "tf.Tensor") -> "tf.Tensor":
        is_inside = tf.cast((index > 0) & (index < per_epoch), tf.int64)
        return index * plan.seq_len + is_inside * shifts[step % _NUM_SHIFTS]

    def read_window(step: "tf.Tensor") -> "tuple[dict[str, tf.Tensor], tf.Tensor]":
        index = step % per_epoch
        offset = offsets[step // per_epoch - first_epoch]
        begin, end = boundary(step, index), boundary(step + 1, index + 1)
        window = tf.cast(tokens[:, offset + begin : offset + end + 1], tf.int32)
        length = None if plan.jitter else plan.seq_len + 1
        window = tf.ensure_shape(window, [plan.batch_size, length])
        return {"token_ids": window[:, :-1], "restart": index == 0}, window[:, 1:]

    return tf.data.Dataset.range(first_step, last_step).map(read_window).prefetch(4)


def _to_lanes(token_ids: IntArray, plan: LanePlan) -> IntArray:
    """Return the tokens of each lane, `[batch_size, lane_len]`."""
    if len(token_ids) != plan.num_tokens:
        raise CorpusError(
            f"The corpus of this plan must have {plan.num_tokens:,} tokens. "
            f"Received: {len(token_ids):,}. Make the plan from the same corpus."
        )
    return token_ids[: plan.batch_size * plan.lane_len].reshape(plan.batch_size, plan.lane_len)
