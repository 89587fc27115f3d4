"""`textgen.generation.generate_texts` on random weights; the variant is the weights' precision."""

import numpy as np

from benchmarks.peers import writing
from textgen.config import SamplingConfig
from textgen.engines import choose_engine, make_engine
from textgen.generation import Request, generate_texts
from textgen.models.weights import LayerWeights, ModelWeights
from textgen.tokenizers.char import CharTokenizer


def main() -> None:
    """Write as told."""
    flags = writing.parse()
    weights = random_weights(flags.hidden_size, flags.num_layers)
    tokenizer = CharTokenizer("".join(chr(48 + i) for i in range(writing.VOCAB_SIZE)), unk=False)
    engines = {name: make_engine(name, weights, flags.variant) for name in _names(flags.variant)}

    def write(streams, top_k, steps):
        sampling = SamplingConfig(
            temperature=writing.TEMPERATURE, top_k=top_k, max_new_tokens=steps
        )
        requests = [Request(prompt="0", sampling=sampling, sample_index=row) for row in range(streams)]
        engine = engines[choose_engine(weights, flags.variant, streams, steps)]
        generate_texts(engine, tokenizer, requests)

    writing.serve(write)


def _names(weights_format: str) -> tuple[str, ...]:
    return ("numpy", "onnx") if weights_format == "float32" else ("onnx",)


def random_weights(hidden_size: int, num_layers: int) -> ModelWeights:
    """Return weights of a size at which states stay lively."""
    rng = np.random.default_rng(1)

    def draw(*shape):
        return (rng.normal(size=shape) / np.sqrt(shape[0])).astype(np.float32)

    sizes = [writing.EMBEDDING_DIM] + [hidden_size] * (num_layers - 1)
    layers = [
        LayerWeights(
            input_kernel=draw(size, 3 * hidden_size),
            recurrent_kernel=draw(hidden_size, 3 * hidden_size),
            bias=draw(2, 3 * hidden_size),
        )
        for size in sizes
    ]
    return ModelWeights(
        embedding=draw(writing.VOCAB_SIZE, writing.EMBEDDING_DIM),
        layers=tuple(layers),
        dense_kernel=draw(hidden_size, writing.VOCAB_SIZE),
        dense_bias=draw(1, writing.VOCAB_SIZE)[0],
    )


if __name__ == "__main__":
    main()
