"""The workload of the speed benchmarks: sizes, alphabet, and the command line of a worker.

It imports neither NumPy nor textgen, so a peer's start does not include them.
"""

import argparse
from dataclasses import dataclass

VOCAB_SIZE = 66
ALPHABET = "".join(chr(ord("0") + i) for i in range(VOCAB_SIZE))
EMBEDDING_DIM = 256
PROMPT = "THE"
TEMPERATURE = 0.8

BATCH_SIZE = 64
SEQ_LEN = 100
TOKENS_PER_STEP = BATCH_SIZE * SEQ_LEN
LEARNING_RATE = 2e-3
CLIP_NORM = 1.0

# The square matrices whose product measures the machine's peak, and its operations.
PEAK_SIZE = 3072
PEAK_OPERATIONS = 2 * PEAK_SIZE**3


@dataclass(frozen=True)
class Sizes:
    """The model of one case.

    Attributes:
        hidden_size: Units of each GRU layer.
        num_layers: GRU layers.
        dropout: Dropout rate after each layer.
    """

    hidden_size: int
    num_layers: int = 1
    dropout: float = 0.0

    def flags(self) -> str:
        """Return the flags from which `parse_worker` restores these sizes."""
        return (
            f"--hidden-size {self.hidden_size} --num-layers {self.num_layers} "
            f"--dropout {self.dropout}"
        )

    def training_operations(self) -> int:
        """Return the floating-point operations that training needs per token.

        Six per weight: two forward, four backward. The first layer's input product is a table
        lookup, so it is not counted.
        """
        recurrent = 3 * self.hidden_size**2 * (2 * self.num_layers - 1)
        return 6 * (recurrent + self.hidden_size * VOCAB_SIZE)


def parse_worker() -> tuple[Sizes, str]:
    """Parse the command line of a worker; return the sizes and the variant."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--hidden-size", type=int, required=True)
    parser.add_argument("--num-layers", type=int, default=1)
    parser.add_argument("--dropout", type=float, default=0.0)
    parser.add_argument("--variant", default="")
    arguments = parser.parse_args()
    sizes = Sizes(arguments.hidden_size, arguments.num_layers, arguments.dropout)
    return sizes, arguments.variant
