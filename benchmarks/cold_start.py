"""Seconds and peak memory of whole processes that generate 200 characters.

textgen is `generate.py` on a run directory with random weights; the peer imports TensorFlow,
builds a model of the same sizes and loops over a compiled step, as the TensorFlow tutorial does.
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.arguments import benchmark_parser
from benchmarks.random_inputs import random_weights
from benchmarks.report import Measurement, report
from benchmarks.workload import ALPHABET, PROMPT, Sizes
from textgen.config import ModelConfig, RunConfig
from textgen.runs import RunDirectory
from textgen.tokenizers.char import CharTokenizer

_NUM_CHARACTERS = 200
_REPEATS = 5
_ROOT = Path(__file__).resolve().parents[1]


def main() -> None:
    """Measure and print."""
    arguments = benchmark_parser(__doc__).parse_args()
    measurements = []
    with tempfile.TemporaryDirectory() as folder:
        for hidden_size in (1024,) if arguments.quick else (256, 1024):
            run = write_random_run(Path(folder) / str(hidden_size), hidden_size)
            commands = {
                "textgen": f"generate.py {run.path} --prompt {PROMPT} "
                f"--max-new-tokens {_NUM_CHARACTERS}",
                "TensorFlow tutorial": "-m benchmarks.peers.tensorflow_tutorial "
                f"--hidden-size {hidden_size} --length {_NUM_CHARACTERS}",
            }
            measurements += _compare(f"hidden {hidden_size}", commands)
    report(measurements, arguments.json)


def write_random_run(path: Path, hidden_size: int) -> RunDirectory:
    """Write a run directory with random weights."""
    run = RunDirectory(path)
    run.create()
    run.write_config(RunConfig(model=ModelConfig(hidden_size=hidden_size)))
    tokenizer = CharTokenizer(ALPHABET, unk=False)
    run.write_tokenizer(tokenizer)
    run.write_weights(random_weights(Sizes(hidden_size)), tokenizer)
    return run


def _compare(case: str, commands: dict[str, str]) -> list[Measurement]:
    results: dict[str, list[tuple[float, float]]] = {name: [] for name in commands}
    for _ in range(_REPEATS):
        for name, command in commands.items():
            results[name].append(measure_process(command))
    return [
        Measurement(f"{case}, {quantity}", name, statistics.median(r[i] for r in runs), unit)
        for i, quantity, unit in ((0, "shell to text", "s"), (1, "peak memory", "MiB"))
        for name, runs in results.items()
    ]


def measure_process(command: str) -> tuple[float, float]:
    """Run `python COMMAND`; return its seconds and its peak resident MiB."""
    started = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, *command.split()],
        cwd=_ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    text = b"" if process.stdout is None else process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - started
    if status or len(text) < _NUM_CHARACTERS:
        raise SystemExit(
            f"`python {command}` must exit with status 0 after {_NUM_CHARACTERS} characters. "
            f"Received: status {status}, {len(text)} bytes. Run it alone to see its error."
        )
    return seconds, usage.ru_maxrss / 1024


if __name__ == "__main__":
    main()
