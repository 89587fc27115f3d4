"""Speed and memory at the start and at the end of a text of one million characters.

Random weights, 256 units, temperature 0.8, one stream. Each tenth of the text is timed, and the
resident memory is read after it.
"""

import time
from typing import Literal

import psutil

from benchmarks.arguments import benchmark_parser
from benchmarks.random_inputs import random_weights
from benchmarks.report import Measurement, report
from benchmarks.workload import ALPHABET, TEMPERATURE, Sizes
from textgen.config import SamplingConfig
from textgen.engines import Engine, make_engine
from textgen.generation import Request, stream_text
from textgen.tokenizers.char import CharTokenizer

_NUM_CHARACTERS = 1_000_000
_SUBJECTS: tuple[tuple[str, Literal["onnx", "numpy"]], ...] = (
    ("textgen", "onnx"),
    ("textgen numpy", "numpy"),
)


def main() -> None:
    """Generate and print."""
    arguments = benchmark_parser(__doc__).parse_args()
    num_characters = _NUM_CHARACTERS // 10 if arguments.quick else _NUM_CHARACTERS
    measurements = []
    for subject, engine_name in _SUBJECTS:
        engine = make_engine(engine_name, random_weights(Sizes(256)))
        rates, memory = _generate(engine, num_characters)
        for case, value, unit in (
            ("first tenth", rates[0], "characters/s"),
            ("last tenth", rates[-1], "characters/s"),
            ("last to first tenth", rates[-1] / rates[0], "times"),
            ("memory growth after the first tenth", memory[-1] - memory[0], "MiB"),
        ):
            measurements.append(Measurement(case, subject, value, unit))
    report(measurements, arguments.json)


def _generate(engine: Engine, num_characters: int) -> tuple[list[float], list[float]]:
    """Return characters per second in each tenth, and the resident MiB after it."""
    sampling = SamplingConfig(max_new_tokens=num_characters, temperature=TEMPERATURE)
    request = Request(prompt=ALPHABET[0], sampling=sampling)
    rates: list[float] = []
    memory: list[float] = []
    done, tenth = 0, num_characters // 10
    started, done_at_start = time.perf_counter(), 0
    for piece in stream_text(engine, CharTokenizer(ALPHABET, unk=False), request):
        done += len(piece)
        if done >= (len(rates) + 1) * tenth:
            now = time.perf_counter()
            rates.append((done - done_at_start) / (now - started))
            memory.append(psutil.Process().memory_info().rss / 2**20)
            started, done_at_start = now, done
    return rates, memory


if __name__ == "__main__":
    main()
