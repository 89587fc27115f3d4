"""The memory limit of one stream: reading its float32 kernels once a token."""

import numpy as np

from benchmarks.peers import writing


def main() -> None:
    """Read as told."""
    flags = writing.parse()
    size, layers = flags.hidden_size, flags.num_layers
    values = 3 * size * size * (2 * layers - 1) + size * writing.VOCAB_SIZE
    kernel = np.ones(values, np.float32)

    def read(_streams, _top_k, steps):
        for _ in range(steps):
            np.dot(kernel, kernel)

    writing.serve(read)


if __name__ == "__main__":
    main()
