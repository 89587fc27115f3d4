"""Is `--preset auto` as good as the best preset made by hand, on texts it was not made for?

`python -m benchmarks.sizing FILE...`: each text is trained for equally many minutes with `auto`
and with the presets for a text of about its kind; nats per character of the last 10 % by the
weights that a user would get, the best of the validations on the way.
"""

import math
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.report import Measurement, parse_flags, report
from textgen.runs import RunDirectory

_ROOT = Path(__file__).resolve().parents[1]
_MINUTES = 1.0
_PRESETS = ("auto", "shakespeare", "poetry")


def main() -> None:
    """Train and print."""
    flags = parse_flags(__doc__, ("files", "texts in UTF-8"))
    minutes = 0.3 if flags.quick else _MINUTES
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for file in flags.files:
            scores = {name: _train(file, name, minutes, Path(folder)) for name in _PRESETS}
            best = min(score for name, score in scores.items() if name != "auto")
            case = Path(file).name
            rows += [Measurement(case, n, s, "nats per character") for n, s in scores.items()]
            rows.append(Measurement(case, "auto less best", scores["auto"] - best, "nats"))
    report(rows, flags.json)


def _train(file: str, preset: str, minutes: float, folder: Path) -> float:
    command = [
        *(sys.executable, "train.py", file, "--preset", preset, "--max-minutes", str(minutes)),
        *("--run-dir", str(folder / "run"), "--overwrite", "--sample-length", "0"),
    ]
    process = subprocess.run(command, cwd=_ROOT, capture_output=True, text=True, check=False)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)}\n{process.stderr[-2000:]}")
    rows = RunDirectory(folder / "run").read_metrics()
    score = min(row["bits_per_char"] for row in rows) * math.log(2)
    print(f"{file} {preset}: {score:.4f}", file=sys.stderr, flush=True)
    return score


if __name__ == "__main__":
    main()
