"""The memory limit of one stream: reading the model's float32 matrices once per token."""

import numpy as np

from benchmarks import workload
from benchmarks.workers import serve_generation


def main() -> None:
    """Read until there is no further turn."""
    sizes, _ = workload.parse_worker()
    recurrent = 3 * sizes.hidden_size**2 * (2 * sizes.num_layers - 1)
    values = np.ones(recurrent + sizes.hidden_size * workload.VOCAB_SIZE, np.float32)

    def read(_streams: int, _top_k: int | None, steps: int) -> None:
        for _ in range(steps):
            np.dot(values, values)

    serve_generation(read)


if __name__ == "__main__":
    main()
