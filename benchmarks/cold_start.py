"""From the shell to 200 characters: whole processes side by side, seconds and peak memory.

Ours is `generate.py` on a run directory with random weights; the peer imports
TensorFlow, builds the same sizes and loops over a compiled step, as the TensorFlow
tutorial does. Random weights cost both the same time as trained ones.
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from benchmarks.report import Measurement, parse_flags, report
from textgen.config import ModelConfig, RunConfig, TokenizerConfig
from textgen.models import LayerWeights, ModelWeights
from textgen.runs import RunDirectory
from textgen.tokenizers import build_tokenizer

_LENGTH = 200
_RUNS = 5
_ROOT = Path(__file__).resolve().parents[1]


def random_run(path: Path, hidden_size: int) -> RunDirectory:
    """Write a run directory with 66 characters, embedding 256 and random weights."""
    alphabet = "".join(chr(code) for code in range(32, 97)) + "\n"
    tokenizer = build_tokenizer(TokenizerConfig(), alphabet, alphabet)
    rng = np.random.default_rng(1)

    def normal(*shape: int) -> np.ndarray:
        return (0.05 * rng.standard_normal(shape)).astype(np.float32)

    gates = 3 * hidden_size
    weights = ModelWeights(
        embedding=normal(66, 256),
        layers=(
            LayerWeights(
                input_kernel=normal(256, gates),
                recurrent_kernel=normal(hidden_size, gates),
                bias=normal(2, gates),
            ),
        ),
        dense_kernel=normal(hidden_size, 66),
        dense_bias=normal(66),
    )
    run = RunDirectory(path)
    run.create()
    run.write_config(RunConfig(model=ModelConfig(hidden_size=hidden_size)))
    run.write_tokenizer(tokenizer)
    run.write_weights(weights, tokenizer)
    return run


def measure(words: str) -> tuple[float, float]:
    """Run Python with `words` to its end; return its seconds and its peak resident MiB."""
    command = [sys.executable, *words.split()]
    begun = time.perf_counter()
    process = subprocess.Popen(
        command, cwd=_ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    text = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - begun
    if status or len(text) < _LENGTH:
        raise SystemExit(f"python {words} ended with status {status}")
    return seconds, usage.ru_maxrss / 1024


def main() -> None:
    """Measure and print."""
    flags = parse_flags(__doc__)
    measurements = []
    with tempfile.TemporaryDirectory() as folder:
        for hidden_size in (1024,) if flags.quick else (256, 1024):
            run = random_run(Path(folder) / str(hidden_size), hidden_size)
            commands = {
                "textgen": f"generate.py {run.path} --prompt THE --max-new-tokens {_LENGTH}",
                "TensorFlow tutorial": "-m benchmarks.peers.tensorflow_tutorial "
                f"--hidden-size {hidden_size} --length {_LENGTH}",
            }
            measurements += _compare(f"hidden {hidden_size}", commands)
    report(measurements, flags.json)


def _compare(case: str, commands: dict[str, str]) -> list[Measurement]:
    runs: dict[str, list[tuple[float, float]]] = {name: [] for name in commands}
    for _ in range(_RUNS):
        for name, words in commands.items():
            runs[name].append(measure(words))
    return [
        Measurement(f"{case}, {what}", name, statistics.median(r[i] for r in results), unit)
        for i, what, unit in ((0, "shell to text", "s"), (1, "peak memory", "MiB"))
        for name, results in runs.items()
    ]


if __name__ == "__main__":
    main()
