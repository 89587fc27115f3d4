"""`textgen.generation.generate_texts`; the variant is the `weights_format`."""

from typing import cast

from benchmarks import workload
from benchmarks.random_inputs import random_weights
from benchmarks.workers import serve_generation
from textgen.config import QuantizedFormat, SamplingConfig
from textgen.engines import EnginePool, quantize_weights
from textgen.generation import Request, generate_texts
from textgen.tokenizers.char import CharTokenizer


def main() -> None:
    """Generate until there is no further turn, each time with the engine `auto` chooses."""
    sizes, variant = workload.parse_worker()
    weights = random_weights(sizes)
    quantized = None
    if variant != "float32":
        quantized = quantize_weights(weights, cast(QuantizedFormat, variant))
    pool = EnginePool(weights, quantized)
    tokenizer = CharTokenizer(workload.ALPHABET, unk=False)
    # Made before the first turn, because the choice depends on the number of steps.
    pool.engine("onnx")

    def generate(streams: int, top_k: int | None, steps: int) -> None:
        sampling = SamplingConfig(
            temperature=workload.TEMPERATURE, top_k=top_k, max_new_tokens=steps
        )
        requests = [
            Request(prompt=workload.ALPHABET[0], sampling=sampling, sample_index=index)
            for index in range(streams)
        ]
        engine = pool.engine(pool.choose([sampling] * streams))
        generate_texts(engine, tokenizer, requests)

    serve_generation(generate)


if __name__ == "__main__":
    main()
