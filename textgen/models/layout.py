"""The order of the axes of windows inside the model, which depends on the kernel.

Outside the blocks every window is `[batch, time, features]`. Only this module knows the order of
each kernel; it does NOT know what is computed.
"""

from dataclasses import dataclass
from typing import Literal, Self

import tensorflow as tf

from textgen.config import ResolvedKernel

Axis = Literal["batch", "time", "features"]

_BATCH_MAJOR: tuple[Axis, ...] = ("batch", "time", "features")


@dataclass(frozen=True)
class Layout:
    """The layout of the tensors that blocks pass to each other.

    Attributes:
        axes: Names of the axes, the outermost first.
        one_hot: Whether the kernel reads one-hot columns of token ids as well as embedded tokens.
    """

    axes: tuple[Axis, Axis, Axis] = ("batch", "time", "features")
    one_hot: bool = False

    @classmethod
    def of(cls, kernel: ResolvedKernel) -> Self:
        """Return the layout that `kernel` computes in.

        Only the fused kernel has the features before the batch; `recurrence.fused` says why.
        """
        if kernel == "fused":
            return cls(("time", "features", "batch"), one_hot=True)
        return cls()

    @property
    def feature_axis(self) -> int:
        """Position of the features."""
        return self.axes.index("features")

    @property
    def features_first(self) -> bool:
        """Whether the features come before the batch, so that a token is a column."""
        return self.feature_axis < self.axes.index("batch")

    @property
    def locked_noise_shape(self) -> tuple[int | None, ...]:
        """Noise shape of a dropout layer that has one mask for all steps of a window.

        Source: Gal and Ghahramani 2016, "A Theoretically Grounded Application of Dropout in
        Recurrent Neural Networks".
        """
        return tuple(1 if axis == "time" else None for axis in self.axes)

    def shape(self, features: int) -> tuple[int | None, ...]:
        """Return the shape of a window of any length and batch."""
        return tuple(features if axis == "features" else None for axis in self.axes)

    def from_batch_major(self, x: tf.Tensor) -> tf.Tensor:
        """Return `[batch, time, features]` in this layout."""
        return _permute(x, _BATCH_MAJOR, self.axes)

    def to_batch_major(self, x: tf.Tensor) -> tf.Tensor:
        """Return a window of this layout as `[batch, time, features]`."""
        return _permute(x, self.axes, _BATCH_MAJOR)

    def embed(self, embeddings: tf.Tensor, token_ids: tf.Tensor) -> tf.Tensor:
        """Return the vectors of tokens in this layout.

        Args:
            embeddings: `[vocab_size, embedding_dim]`.
            token_ids: `[batch, time]` integers.

        Returns:
            A window of `embedding_dim` features.
        """
        order = self._without_features
        vectors = tf.gather(embeddings, _permute(token_ids, ("batch", "time"), order))
        return _permute(vectors, (*order, "features"), self.axes)

    def one_hot_columns(self, token_ids: tf.Tensor, vocab_size: int) -> tf.Tensor:
        """Return tokens as one-hot vectors in this layout.

        Args:
            token_ids: `[batch, time]` integers.
            vocab_size: Number of token ids.

        Returns:
            A window of `vocab_size` int8 features.
        """
        ids = _permute(token_ids, ("batch", "time"), self._without_features)
        return tf.one_hot(ids, vocab_size, axis=self.feature_axis, dtype=tf.int8)

    @property
    def _without_features(self) -> tuple[Axis, ...]:
        return tuple(axis for axis in self.axes if axis != "features")


def _permute(x: tf.Tensor, axes: tuple[Axis, ...], order: tuple[Axis, ...]) -> tf.Tensor:
    """Return `x`, whose axes are `axes`, with its axes in the given order."""
    return x if axes == order else tf.transpose(x, [axes.index(axis) for axis in order])
