"""DropConnect: dropout of single entries of a weight matrix, from 16 random bits per entry.

`keras.layers.Dropout` draws a float32 per entry, on one thread: 6 ms for the recurrent kernel of
a GRU of 512 units, in a training step of about 50 ms. This layer takes 1.3 ms
(docs/experiments.md#weight-drop-bits).
"""

import keras
import tensorflow as tf

_LEVELS = 2**16


class DropConnect(keras.layers.Layer):
    """Sets entries of a weight to zero in training, and scales the others up.

    Args:
        rate: Fraction of the entries that are dropped, at least 0 and below 1; rounded to a
            multiple of 1/65,536.
        seed: Seed of the masks; each call draws another mask.

    Source: Wan et al. 2013, "Regularization of Neural Networks using DropConnect".
    """

    def __init__(self, rate: float, *, seed: int):
        super().__init__()
        self._dropped = min(round(rate * _LEVELS), _LEVELS - 1)
        self.seed_generator = keras.random.SeedGenerator(seed)

    def call(self, weight: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Return `weight`; in training, with random entries dropped.

        Args:
            weight: Float, of any statically known shape.
            training: Whether entries are dropped.

        Returns:
            The shape of `weight`; each entry is 0 or divided by the fraction kept, which leaves
            its expectation unchanged.
        """
        if not (training and self._dropped):
            return weight
        kept = tf.cast(self._draw(weight.shape) >= self._dropped, weight.dtype)
        return weight * kept * (_LEVELS / (_LEVELS - self._dropped))

    def _draw(self, shape: tf.TensorShape) -> tf.Tensor:
        """Return integers of `shape`, uniform in [0, 65536)."""
        count = shape.num_elements()
        seed = tf.cast(self.seed_generator.next(), tf.int32)
        words = tf.random.stateless_uniform([-(-count // 2)], seed, None, None, tf.int32)
        halves = tf.reshape(tf.bitcast(words, tf.uint16), [-1])
        return tf.reshape(halves[:count], shape)
