"""`--preset auto` compared with presets tuned by hand, on texts it was not tuned on.

`python -m benchmarks.sizing [SOURCE ...]` trains on each text for the same time with `auto` and
with two presets. Scores are nats per character of the last 10 %, from the best validation, whose
weights the run keeps. `--quick` uses only the first text.
"""

import math
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.arguments import DEFAULT_SOURCE, benchmark_parser
from benchmarks.report import Measurement, report
from textgen.runs import RunDirectory

_ROOT = Path(__file__).resolve().parents[1]
_MINUTES = 1.0
_QUICK_MINUTES = 0.3
_PRESETS = ("auto", "shakespeare", "poetry")


def main() -> None:
    """Train and print."""
    parser = benchmark_parser(__doc__)
    parser.add_argument(
        "sources",
        nargs="*",
        default=[DEFAULT_SOURCE],
        metavar="SOURCE",
        help=f"UTF-8 files (default: {DEFAULT_SOURCE})",
    )
    arguments = parser.parse_args()
    minutes = _QUICK_MINUTES if arguments.quick else _MINUTES
    measurements = []
    with tempfile.TemporaryDirectory() as folder:
        for source in arguments.sources[:1] if arguments.quick else arguments.sources:
            scores = {name: _train(source, name, minutes, Path(folder)) for name in _PRESETS}
            best = min(score for name, score in scores.items() if name != "auto")
            case = Path(source).name
            measurements += [
                Measurement(case, f"textgen {name}", score, "nats per character")
                for name, score in scores.items()
            ]
            difference = scores["auto"] - best
            measurements.append(
                Measurement(f"{case}, auto minus best", "textgen auto", difference, "nats")
            )
    report(measurements, arguments.json)


def _train(source: str, preset: str, minutes: float, folder: Path) -> float:
    """Return the best validation score, nats per character."""
    command = [
        *(sys.executable, "train.py", source, "--preset", preset, "--max-minutes", str(minutes)),
        *("--run-dir", str(folder / "run"), "--overwrite", "--sample-length", "0"),
    ]
    process = subprocess.run(command, cwd=_ROOT, capture_output=True, text=True, check=False)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)}\n{process.stderr[-2000:]}")
    rows = RunDirectory(folder / "run").read_metrics()
    score = min(float(row["bits_per_char"]) for row in rows) * math.log(2)
    print(f"{source} {preset}: {score:.4f}", file=sys.stderr, flush=True)
    return score


if __name__ == "__main__":
    main()
