"""Random weights and text for the speed benchmarks; their values do not change the time."""

import numpy as np

from benchmarks.workload import ALPHABET, EMBEDDING_DIM, VOCAB_SIZE, Sizes
from textgen.arrays import Float32Array
from textgen.models.weights import LayerWeights, ModelWeights


def random_text(num_characters: int = 300_000) -> str:
    """Return characters of `ALPHABET`, independent and uniform."""
    indices = np.random.default_rng(1).integers(0, VOCAB_SIZE, size=num_characters)
    return "".join(ALPHABET[index] for index in indices)


def random_weights(sizes: Sizes) -> ModelWeights:
    """Return the weights of a GRU model, scaled so that its states do not saturate."""
    rng = np.random.default_rng(1)

    def draw(*shape: int) -> Float32Array:
        return np.asarray(rng.normal(size=shape) / np.sqrt(shape[0]), np.float32)

    hidden_size = sizes.hidden_size
    inputs = [EMBEDDING_DIM] + [hidden_size] * (sizes.num_layers - 1)
    layers = tuple(
        LayerWeights(
            input_kernel=draw(width, 3 * hidden_size),
            recurrent_kernel=draw(hidden_size, 3 * hidden_size),
            bias=draw(2, 3 * hidden_size),
        )
        for width in inputs
    )
    return ModelWeights(
        embedding=draw(VOCAB_SIZE, EMBEDDING_DIM),
        layers=layers,
        dense_kernel=draw(hidden_size, VOCAB_SIZE),
        dense_bias=draw(1, VOCAB_SIZE)[0],
    )
