"""The way of TensorFlow's "Text generation with an RNN": a compiled one-step model in a loop.

As a program it goes from the shell to `--length` characters on stdout, weights random,
since their values do not change the time.
"""

import argparse

import tensorflow as tf


class CharacterModel(tf.keras.Model):
    """Embedding, stock GRU, Dense; the state is an argument."""

    def __init__(self, vocab_size: int, embedding_dim: int, hidden_size: int, num_layers: int = 1):
        super().__init__()
        self.embedding = tf.keras.layers.Embedding(vocab_size, embedding_dim)
        self.grus = [
            tf.keras.layers.GRU(hidden_size, return_sequences=True, return_state=True)
            for _ in range(num_layers)
        ]
        self.dense = tf.keras.layers.Dense(vocab_size)

    def call(self, token_ids, states=None, training=False):
        """Return logits `[batch, time, vocab_size]` and the next state."""
        x = self.embedding(token_ids, training=training)
        if states is None:
            states = [tf.zeros([tf.shape(x)[0], gru.units]) for gru in self.grus]
        next_states = []
        for gru, state in zip(self.grus, states, strict=True):
            x, next_state = gru(x, initial_state=state, training=training)
            next_states.append(next_state)
        return self.dense(x, training=training), next_states


class OneStep(tf.Module):
    """Characters in, one more character out, as one `tf.function`."""

    def __init__(self, model: CharacterModel, alphabet: list[str], temperature: float, top_k=None):
        super().__init__()
        self.model, self.temperature, self.top_k = model, temperature, top_k
        self.ids_of = tf.keras.layers.StringLookup(vocabulary=alphabet, mask_token=None)
        self.chars_of = tf.keras.layers.StringLookup(
            vocabulary=self.ids_of.get_vocabulary(), invert=True, mask_token=None
        )
        self.mask = tf.one_hot(0, len(alphabet) + 1, on_value=float("-inf"), off_value=0.0)

    @tf.function
    def step(self, text, states=None):
        """Return the next character of each text, and the state."""
        ids = self.ids_of(tf.strings.unicode_split(text, "UTF-8")).to_tensor()
        logits, states = self.model(ids, states)
        logits = logits[:, -1] / self.temperature + self.mask
        if self.top_k is not None:
            least = tf.math.top_k(logits, self.top_k).values[:, -1:]
            logits = tf.where(logits < least, float("-inf"), logits)
        ids = tf.squeeze(tf.random.categorical(logits, num_samples=1), axis=-1)
        return self.chars_of(ids), states


def main() -> None:
    """Write the text."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--hidden-size", type=int, required=True)
    parser.add_argument("--length", type=int, required=True)
    flags = parser.parse_args()
    alphabet = [chr(code) for code in range(32, 97)]
    model = CharacterModel(len(alphabet) + 1, 256, flags.hidden_size)
    one_step = OneStep(model, alphabet, 0.8)
    next_char, states, result = tf.constant(["THE "]), None, [tf.constant(["THE "])]
    for _ in range(flags.length):
        next_char, states = one_step.step(next_char, states)
        result.append(next_char)
    print(tf.strings.join(result)[0].numpy().decode())


if __name__ == "__main__":
    main()
