"""The TensorFlow tutorial "Text generation with an RNN": a compiled one-step model in a loop.

As a program it prints `--length` characters; its weights are random, since their values do not
change the time.
"""

import argparse
from collections.abc import Sequence

import tensorflow as tf

from benchmarks import workload


class CharacterModel(tf.keras.Model):
    """Embedding, stock GRU, Dense; the state is an argument."""

    def __init__(
        self, vocab_size: int, embedding_dim: int, hidden_size: int, num_layers: int = 1
    ) -> None:
        super().__init__()
        self.embedding = tf.keras.layers.Embedding(vocab_size, embedding_dim)
        self.grus = [
            tf.keras.layers.GRU(hidden_size, return_sequences=True, return_state=True)
            for _ in range(num_layers)
        ]
        self.dense = tf.keras.layers.Dense(vocab_size)

    def call(
        self,
        token_ids: tf.Tensor,
        states: Sequence[tf.Tensor] | None = None,
        training: bool = False,
    ) -> tuple[tf.Tensor, list[tf.Tensor]]:
        """Return logits `[batch, time, vocab_size]` and the next state of each layer."""
        x = self.embedding(token_ids, training=training)
        if states is None:
            states = [tf.zeros([tf.shape(x)[0], gru.units]) for gru in self.grus]
        next_states = []
        for gru, state in zip(self.grus, states, strict=True):
            x, next_state = gru(x, initial_state=state, training=training)
            next_states.append(next_state)
        return self.dense(x, training=training), next_states


class OneStep(tf.Module):
    """One step of generation, from characters to the next characters, as a `tf.function`."""

    def __init__(
        self,
        model: CharacterModel,
        alphabet: Sequence[str],
        temperature: float,
        top_k: int | None = None,
    ) -> None:
        super().__init__()
        self.model, self.temperature, self.top_k = model, temperature, top_k
        self.ids_of = tf.keras.layers.StringLookup(vocabulary=alphabet, mask_token=None)
        self.chars_of = tf.keras.layers.StringLookup(
            vocabulary=self.ids_of.get_vocabulary(), invert=True, mask_token=None
        )
        self.mask = tf.one_hot(0, len(alphabet) + 1, on_value=float("-inf"), off_value=0.0)

    @tf.function
    def step(
        self, text: tf.Tensor, states: Sequence[tf.Tensor] | None = None
    ) -> tuple[tf.Tensor, Sequence[tf.Tensor]]:
        """Return the next character of each text `[batch]`, and the next states."""
        ids = self.ids_of(tf.strings.unicode_split(text, "UTF-8")).to_tensor()
        logits, states = self.model(ids, states)
        logits = logits[:, -1] / self.temperature + self.mask
        if self.top_k is not None:
            kth_largest = tf.math.top_k(logits, self.top_k).values[:, -1:]
            logits = tf.where(logits < kth_largest, float("-inf"), logits)
        ids = tf.squeeze(tf.random.categorical(logits, num_samples=1), axis=-1)
        return self.chars_of(ids), states


def main() -> None:
    """Generate a text and print it."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--hidden-size", type=int, required=True)
    parser.add_argument("--length", type=int, required=True)
    arguments = parser.parse_args()
    alphabet = workload.ALPHABET[:-1]
    model = CharacterModel(workload.VOCAB_SIZE, workload.EMBEDDING_DIM, arguments.hidden_size)
    one_step = OneStep(model, list(alphabet), workload.TEMPERATURE)
    next_char, states = tf.constant([workload.PROMPT]), None
    characters = [next_char]
    for _ in range(arguments.length):
        next_char, states = one_step.step(next_char, states)
        characters.append(next_char)
    print(tf.strings.join(characters)[0].numpy().decode())


if __name__ == "__main__":
    main()
