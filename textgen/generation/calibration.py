"""The temperature at which written text has the entropy of held-out text.

The entropy of both is estimated alike, by how well they compress: that sees repetition and
made-up words, and does not take the model's word for it. What a model believes of itself
does not tell: the surprise of its own text meets that of held-out text close to temperature
1 however much it stammers or invents there (docs/experiments.md).

Source: Ziv and Lempel 1978, "Compression of Individual Sequences via Variable-Rate Coding",
for compressed length as an estimate of entropy.
"""

import lzma
from dataclasses import dataclass

from textgen.config import SamplingConfig
from textgen.engines.base import Engine
from textgen.errors import ConfigError
from textgen.generation.generator import generate_texts
from textgen.generation.requests import Request
from textgen.tokenizers.base import Tokenizer

# Held-out text is compared in pieces of so many characters, at most so many of them.
_LENGTH, _MOST_PIECES = 3000, 32
_LEAST_LENGTH = 200
_LOWEST, _HIGHEST = 0.3, 1.5
_HALVINGS = 6


@dataclass(frozen=True)
class Calibration:
    """What was measured.

    Attributes:
        temperature: Where written and held-out text meet, within [0.3, 1.5].
        held_out_entropy: Bits a character of held-out text, compressed.
        written_entropy: The same of text written at `temperature`.
    """

    temperature: float
    held_out_entropy: float
    written_entropy: float


def calibrate_temperature(engine: Engine, tokenizer: Tokenizer, held_out: str) -> Calibration:
    """Find the temperature by halving an interval; the seeds stay the same throughout.

    Args:
        engine: The model.
        tokenizer: The one it was trained with.
        held_out: Text it was not trained on; up to 96,000 characters are compared.

    Returns:
        The temperature, to 0.02, with both entropies.

    Raises:
        ConfigError: `held_out` is shorter than 200 characters.
    """
    if len(held_out) < _LEAST_LENGTH:
        raise ConfigError(
            f"`temperature=auto` needs {_LEAST_LENGTH} characters of validation text. "
            f"Received: {len(held_out)}. Pass a number as --temperature."
        )
    length = min(_LENGTH, len(held_out))
    pieces = min(_MOST_PIECES, len(held_out) // length)
    step = len(held_out) // pieces
    wanted = _entropy([held_out[i * step : i * step + length] for i in range(pieces)])
    low, high = _LOWEST, _HIGHEST
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        written = _entropy(_written(engine, tokenizer, middle, pieces, length))
        low, high = (middle, high) if written < wanted else (low, middle)
    temperature = round((low + high) / 2, 2)
    written = _entropy(_written(engine, tokenizer, temperature, pieces, length))
    return Calibration(temperature, wanted, written)


def _written(
    engine: Engine, tokenizer: Tokenizer, temperature: float, pieces: int, length: int
) -> list[str]:
    """Return texts of `length` characters; a token is at least one, but for parts of one."""
    sampling = SamplingConfig(temperature=temperature, max_new_tokens=length)
    requests = [Request(sampling=sampling, sample_index=row) for row in range(pieces)]
    return [written.text[:length] for written in generate_texts(engine, tokenizer, requests)]


def _entropy(texts: list[str]) -> float:
    """Return bits a character of all texts together."""
    content = "\n".join(texts).encode("utf-8", "replace")
    compressed = lzma.compress(content, format=lzma.FORMAT_RAW, filters=_FILTERS)
    return 8 * len(compressed) / sum(map(len, texts))


_FILTERS = [{"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME}]
