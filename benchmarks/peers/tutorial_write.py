"""The TensorFlow tutorial's compiled one-step model in a Python loop, on random weights."""

import tensorflow as tf

from benchmarks.peers import writing
from benchmarks.peers.tensorflow_tutorial import CharacterModel, OneStep


def main() -> None:
    """Write as told."""
    flags = writing.parse()
    alphabet = [chr(48 + code) for code in range(writing.VOCAB_SIZE - 1)]
    model = CharacterModel(
        writing.VOCAB_SIZE, writing.EMBEDDING_DIM, flags.hidden_size, flags.num_layers
    )
    models = {k: OneStep(model, alphabet, writing.TEMPERATURE, top_k=k) for k in (None, 40)}

    def write(streams, top_k, steps):
        text, states = tf.constant(["0"] * streams), None
        written = [text]
        for _ in range(steps):
            text, states = models[top_k].step(text, states)
            written.append(text)
        return tf.strings.join(written).numpy()

    writing.serve(write)


if __name__ == "__main__":
    main()
