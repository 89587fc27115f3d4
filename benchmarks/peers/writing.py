"""What all writers share: they are told a case over stdin, write, and say how long it took.

A writer is made once for a model; a case is the number of streams and top-k (0: none).
"""

import argparse
import resource
import sys
import time
from collections.abc import Callable

VOCAB_SIZE = 66
EMBEDDING_DIM = 256
TEMPERATURE = 0.8

Write = Callable[[int, int | None, int], object]


def parse() -> argparse.Namespace:
    """Return the flags of a writer: `hidden_size`, `num_layers`, `variant`."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--hidden-size", type=int, required=True)
    parser.add_argument("--num-layers", type=int, default=1)
    parser.add_argument("--variant", default="")
    return parser.parse_args()


def serve(write: Write) -> None:
    """Answer cases until there is none.

    Args:
        write: Called with streams, top-k and steps; writes so many tokens in each stream.
    """
    print("share 0 0", flush=True)
    for line in sys.stdin:
        streams, top_k, steps = map(int, line.split())
        begun = time.perf_counter()
        write(streams, top_k or None, steps)
        seconds = (time.perf_counter() - begun) / steps
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(f"share {seconds} {peak}", flush=True)
