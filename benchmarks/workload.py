"""The training problem that the speed of all subjects is measured on."""

import argparse
from dataclasses import dataclass

VOCAB_SIZE = 66
EMBEDDING_DIM = 256
BATCH_SIZE = 64
SEQ_LEN = 100
LEARNING_RATE = 2e-3
CLIP_NORM = 1.0
TOKENS_PER_STEP = BATCH_SIZE * SEQ_LEN
PEAK_SIZE = 3072
PEAK_OPERATIONS = 2 * PEAK_SIZE**3


@dataclass(frozen=True)
class Sizes:
    """What differs between the cases.

    Attributes:
        hidden_size: Units of each GRU layer.
        num_layers: GRU layers.
        dropout: Between and behind the layers.
    """

    hidden_size: int
    num_layers: int = 1
    dropout: float = 0.0

    def flags(self) -> str:
        """Return the flags that `parse` reads back."""
        return (
            f"--hidden-size {self.hidden_size} --num-layers {self.num_layers} "
            f"--dropout {self.dropout}"
        )

    def operations_per_token(self) -> float:
        """Return the operations that training must do, the first layer's inputs by table."""
        h, layers = self.hidden_size, self.num_layers
        return 18 * h * h * (2 * layers - 1) + 6 * h * VOCAB_SIZE


def parse() -> tuple[Sizes, str]:
    """Return the sizes, and the variant of the subject, from a worker's command line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--hidden-size", type=int, required=True)
    parser.add_argument("--num-layers", type=int, default=1)
    parser.add_argument("--dropout", type=float, default=0.0)
    parser.add_argument("--variant", default="")
    flags = parser.parse_args()
    return Sizes(flags.hidden_size, flags.num_layers, flags.dropout), flags.variant
