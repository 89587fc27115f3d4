"""Stock `keras.layers.GRU` in `fit`; the variant is `plain`, `xla` or `mixed_bfloat16`."""

import keras
import numpy as np
import tensorflow as tf

from benchmarks import workload
from benchmarks.peers.step_callback import StepCallback


def main() -> None:
    """Train until there is no further turn."""
    sizes, variant = workload.parse_worker()
    if variant == "mixed_bfloat16":
        keras.config.set_dtype_policy(variant)
    shape = (workload.BATCH_SIZE, workload.SEQ_LEN)
    layers = [keras.layers.Embedding(workload.VOCAB_SIZE, workload.EMBEDDING_DIM)]
    for _ in range(sizes.num_layers):
        layers += [keras.layers.GRU(sizes.hidden_size, return_sequences=True)]
        layers += [keras.layers.Dropout(sizes.dropout)] if sizes.dropout else []
    model = keras.Sequential(
        [keras.Input(batch_shape=shape), *layers, keras.layers.Dense(workload.VOCAB_SIZE)]
    )
    model.compile(
        keras.optimizers.AdamW(workload.LEARNING_RATE, global_clipnorm=workload.CLIP_NORM),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        jit_compile=variant == "xla",
    )
    tokens = np.random.default_rng(1).integers(0, workload.VOCAB_SIZE, size=(2, *shape))
    data = tf.data.Dataset.from_tensors(tuple(tokens.astype(np.int32))).repeat()
    model.fit(data, steps_per_epoch=1_000_000, verbose=0, callbacks=[StepCallback()])


if __name__ == "__main__":
    main()
