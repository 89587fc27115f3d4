"""One million characters in one stream: does memory stay flat, and speed?

Random weights, 256 units, temperature 0.8; the tenths of the text are timed apart, and the
resident memory is read after each.
"""

import time

import psutil

from benchmarks.peers.textgen_write import random_weights
from benchmarks.peers.writing import VOCAB_SIZE
from benchmarks.report import Measurement, parse_flags, report
from textgen.config import SamplingConfig
from textgen.engines import make_engine
from textgen.generation import Request, stream_text
from textgen.tokenizers.char import CharTokenizer

_CHARACTERS = 1_000_000


def main() -> None:
    """Write and print."""
    flags = parse_flags(__doc__)
    characters = _CHARACTERS // 10 if flags.quick else _CHARACTERS
    alphabet = "".join(chr(48 + i) for i in range(VOCAB_SIZE))
    measurements = []
    for subject, engine in (("textgen", "onnx"), ("textgen numpy", "numpy")):
        rates, memory = _write(make_engine(engine, random_weights(256, 1)), alphabet, characters)
        for case, value, unit in (
            ("first tenth", rates[0], "characters/s"),
            ("last tenth", rates[-1], "characters/s"),
            ("last to first tenth", rates[-1] / rates[0], "times"),
            ("memory, last tenth less first", memory[-1] - memory[0], "MiB"),
        ):
            measurements.append(Measurement(case, subject, value, unit))
    report(measurements, flags.json)


def _write(engine, alphabet: str, characters: int) -> tuple[list[float], list[float]]:
    """Return characters per second, and resident MiB at the end, of each tenth."""
    request = Request(prompt="0", sampling=SamplingConfig(max_new_tokens=characters))
    rates, memory, written, tenth = [], [], 0, characters // 10
    begun, begun_at = time.perf_counter(), 0
    for piece in stream_text(engine, CharTokenizer(alphabet, unk=False), request):
        written += len(piece)
        if written >= (len(rates) + 1) * tenth:
            now = time.perf_counter()
            rates.append((written - begun_at) / (now - begun))
            memory.append(psutil.Process().memory_info().rss / 2**20)
            begun, begun_at = now, written
    return rates, memory


if __name__ == "__main__":
    main()
