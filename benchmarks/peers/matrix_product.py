"""The machine's peak: a large product in TensorFlow, paced; the variant is its dtype."""

import tensorflow as tf

from benchmarks import workload
from benchmarks.pacing import Pacer


def main() -> None:
    """Multiply until there is no next share."""
    _, dtype = workload.parse()
    matrix = tf.cast(tf.random.normal([workload.PEAK_SIZE, workload.PEAK_SIZE]), dtype)
    multiply = tf.function(lambda: tf.matmul(matrix, matrix))
    pacer = Pacer()
    while True:
        multiply()[0, 0].numpy()
        pacer.steps_done()


if __name__ == "__main__":
    main()
