"""`textgen.train` as a user calls it; the variant is the `matmul_dtype`."""

import tempfile
from pathlib import Path
from typing import cast

import textgen
from benchmarks import workload
from benchmarks.peers.step_callback import StepCallback
from benchmarks.random_inputs import random_text
from textgen.config import MatmulDtype


def main() -> None:
    """Train until there is no further turn."""
    sizes, variant = workload.parse_worker()
    config = textgen.RunConfig(
        model=textgen.ModelConfig(
            embedding_dim=workload.EMBEDDING_DIM,
            hidden_size=sizes.hidden_size,
            num_layers=sizes.num_layers,
            dropout=sizes.dropout,
            weight_drop=sizes.dropout,
        ),
        training=textgen.TrainingConfig(
            batch_size=workload.BATCH_SIZE,
            seq_len=workload.SEQ_LEN,
            learning_rate=workload.LEARNING_RATE,
            clip_norm=workload.CLIP_NORM,
            matmul_dtype=cast(MatmulDtype, variant),
            epochs=10_000,
            validate_every=100_000,
            checkpoint_minutes=None,
        ),
    )
    with tempfile.TemporaryDirectory() as folder:
        textgen.train(config, Path(folder) / "run", text=random_text(), callbacks=[StepCallback()])


if __name__ == "__main__":
    main()
