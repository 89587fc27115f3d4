"""Calibration: the temperature at which generated text has the entropy of held-out text.

The entropy of both is estimated by how well they compress, which reflects repetition and invented
words without relying on the model. The model's own estimate is no substitute: the surprise of its
own text equals that of held-out text near temperature 1, however much it repeats or invents there
(docs/experiments.md#temperature-entropy).

Source: Ziv and Lempel 1978, "Compression of Individual Sequences via Variable-Rate Coding", for
compressed length as an estimate of entropy.
"""

import lzma
from dataclasses import dataclass

from textgen.config import SamplingConfig
from textgen.engines.base import Engine
from textgen.errors import ConfigError
from textgen.generation.generator import generate_texts
from textgen.generation.requests import Request
from textgen.tokenizers.base import Tokenizer

# Held-out text is compared in pieces of this length, in characters.
_PIECE_LENGTH = 3000
_MAX_PIECES = 32
_MIN_LENGTH = 200
_MIN_TEMPERATURE, _MAX_TEMPERATURE = 0.3, 1.5
# Halvings of that interval: the last one is 0.02 wide.
_NUM_HALVINGS = 6


@dataclass(frozen=True)
class Calibration:
    """A calibrated temperature, and the entropies that it equalizes.

    Attributes:
        temperature: At which generated and held-out text have equal entropy, within [0.3, 1.5].
        held_out_entropy: Of held-out text, bits per character, compressed.
        generated_entropy: The same of text generated at `temperature`.
    """

    temperature: float
    held_out_entropy: float
    generated_entropy: float


def calibrate_temperature(engine: Engine, tokenizer: Tokenizer, held_out: str) -> Calibration:
    """Find the temperature by bisection; the seeds are the same at every temperature.

    Args:
        engine: The model.
        tokenizer: The one it was trained with.
        held_out: Text it was not trained on; up to 96,000 characters are compared.

    Returns:
        The temperature, to 0.02, with both entropies.

    Raises:
        ConfigError: `held_out` has fewer than 200 characters.
    """
    if len(held_out) < _MIN_LENGTH:
        raise ConfigError(
            f"`temperature=auto` needs {_MIN_LENGTH} characters of validation text. "
            f"Received: {len(held_out)}. Use a number as the `temperature`."
        )
    length = min(_PIECE_LENGTH, len(held_out))
    num_pieces = min(_MAX_PIECES, len(held_out) // length)
    stride = len(held_out) // num_pieces
    pieces = [held_out[i * stride : i * stride + length] for i in range(num_pieces)]
    target = _entropy(pieces)
    low, high = _MIN_TEMPERATURE, _MAX_TEMPERATURE
    for _ in range(_NUM_HALVINGS):
        middle = (low + high) / 2
        generated = _entropy(_generate(engine, tokenizer, middle, num_pieces, length))
        low, high = (middle, high) if generated < target else (low, middle)
    temperature = round((low + high) / 2, 2)
    generated = _entropy(_generate(engine, tokenizer, temperature, num_pieces, length))
    return Calibration(temperature, target, generated)


def _generate(
    engine: Engine, tokenizer: Tokenizer, temperature: float, num_pieces: int, length: int
) -> list[str]:
    """Return texts of up to `length` characters; most tokens have at least one character."""
    sampling = SamplingConfig(temperature=temperature, max_new_tokens=length)
    requests = [Request(sampling=sampling, sample_index=index) for index in range(num_pieces)]
    return [generated.text[:length] for generated in generate_texts(engine, tokenizer, requests)]


def _entropy(texts: list[str]) -> float:
    """Return the bits per character of all texts together, compressed."""
    content = "\n".join(texts).encode("utf-8", "replace")
    compressed = lzma.compress(content, format=lzma.FORMAT_RAW, filters=_FILTERS)
    return 8 * len(compressed) / sum(map(len, texts))


_FILTERS = [{"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME}]
