"""`textgen.generation.generate_texts`; the variant is the `weights_format`."""

from typing import cast

from benchmarks import workload
from benchmarks.random_inputs import random_weights
from benchmarks.workers import serve_generation
from textgen.config import EngineName, SamplingConfig, WeightsFormat
from textgen.engines import choose_engine, make_engine
from textgen.generation import Request, generate_texts
from textgen.tokenizers.char import CharTokenizer


def main() -> None:
    """Generate until there is no further turn, each time with the engine `auto` chooses."""
    sizes, variant = workload.parse_worker()
    weights_format = cast(WeightsFormat, variant)
    weights = random_weights(sizes)
    tokenizer = CharTokenizer(workload.ALPHABET, unk=False)
    names: tuple[EngineName, ...] = ("numpy", "onnx") if variant == "float32" else ("onnx",)
    engines = {name: make_engine(name, weights, weights_format) for name in names}

    def generate(streams: int, top_k: int | None, steps: int) -> None:
        sampling = SamplingConfig(
            temperature=workload.TEMPERATURE, top_k=top_k, max_new_tokens=steps
        )
        requests = [
            Request(prompt=workload.ALPHABET[0], sampling=sampling, sample_index=index)
            for index in range(streams)
        ]
        engine = engines[choose_engine(weights, weights_format, streams, steps)]
        generate_texts(engine, tokenizer, requests)

    serve_generation(generate)


if __name__ == "__main__":
    main()
