"""The TensorFlow tutorial's compiled one-step model in a Python loop, with random weights."""

import tensorflow as tf

from benchmarks import workload
from benchmarks.peers.tensorflow_tutorial import CharacterModel, OneStep
from benchmarks.workers import serve_generation


def main() -> None:
    """Generate until there is no further turn."""
    sizes, _ = workload.parse_worker()
    # The tutorial adds a token for unknown characters.
    alphabet = list(workload.ALPHABET[:-1])
    model = CharacterModel(
        workload.VOCAB_SIZE, workload.EMBEDDING_DIM, sizes.hidden_size, sizes.num_layers
    )
    models = {k: OneStep(model, alphabet, workload.TEMPERATURE, top_k=k) for k in (None, 40)}

    def generate(streams: int, top_k: int | None, steps: int) -> list[bytes]:
        text, states = tf.constant([alphabet[0]] * streams), None
        characters = [text]
        for _ in range(steps):
            text, states = models[top_k].step(text, states)
            characters.append(text)
        return list(tf.strings.join(characters).numpy())

    serve_generation(generate)


if __name__ == "__main__":
    main()
