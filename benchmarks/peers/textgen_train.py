"""`textgen.train` as a user calls it, paced; the variant is the precision."""

import tempfile
from pathlib import Path

import numpy as np

import textgen
from benchmarks import workload
from benchmarks.peers.paced_fit import PacedFit


def main() -> None:
    """Train until there is no next share."""
    sizes, matmul_dtype = workload.parse()
    codes = np.random.default_rng(1).integers(0, workload.VOCAB_SIZE, size=300_000)
    text = "".join(chr(48 + code) for code in codes)
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
            matmul_dtype=matmul_dtype,
            epochs=10_000,
            validate_every=100_000,
            checkpoint_minutes=None,
        ),
    )
    with tempfile.TemporaryDirectory() as folder:
        textgen.train(config, Path(folder) / "run", text=text, callbacks=[PacedFit()])


if __name__ == "__main__":
    main()
