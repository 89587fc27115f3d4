"""The machine's peak: a large matrix product in TensorFlow; the variant is its dtype."""

import tensorflow as tf

from benchmarks import workload
from benchmarks.workers import TrainingTurns


def main() -> None:
    """Multiply until there is no further turn."""
    _, dtype = workload.parse_worker()
    matrix = tf.cast(tf.random.normal([workload.PEAK_SIZE, workload.PEAK_SIZE]), dtype)
    multiply = tf.function(lambda: tf.matmul(matrix, matrix))
    turns = TrainingTurns()
    while True:
        multiply()[0, 0].numpy()
        turns.steps_done()


if __name__ == "__main__":
    main()
