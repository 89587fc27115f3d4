"""How good is the text after the minutes that people wait? Nats per character on held-out text.

`python -m benchmarks.quality FILE`, where FILE is tinyshakespeare's input.txt: the first 90 % of
the characters to train, the last 10 % to validate, as nanoGPT splits it. Budgets are wall-clock
seconds of a whole process, from its start to the written weights. Nobody looks at the held-out
text before training is over, and the last weights count.

Protocols: carried: one pass with carried state (A); windows: windows of 256 that begin with no
past (B); dynamic: the model learns on while it is scored (D).

Parts: `floor`, what counting n-grams gives; `budgets`, an hour with the curves of the presets
on the way; `ablations`; `cells`; without --part all of them. `--pictures FOLDER` draws, too;
--quick shows one short training of each part.
"""

import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks.ngram import ngram_nats_per_char
from benchmarks.plots import plot_curves, plot_dots
from benchmarks.report import Measurement, parse_flags, report

# what a part measured, and what draws it into a folder
Part = tuple[list[Measurement], Callable[[Path], None] | None]

_ROOT = Path(__file__).resolve().parents[1]
_UNIT = "nats per character"

# seconds: nats per character of nanoGPT's recipe for CPUs, recorded on two cores
_NANOGPT = {31: 2.191, 41: 2.053, 51: 2.009, 62: 1.923, 72: 1.892, 82: 1.886}
# what nanoGPT's recipe for a GPU is quoted at, 10.7 million weights, windows of 256
_NANOGPT_GPU = 1.4697


@dataclass(frozen=True)
class Trial:
    """One training.

    Attributes:
        case: What it is called in the table.
        preset: Of `train.py`.
        seconds: Wall-clock budget.
        protocols: How the result is scored; `curve`: the weights of each validation, too.
        seeds: Trainings; the mean is reported, and the spread.
        flags: More of `train.py`.
        share: Of the training text, how much of its beginning is trained on.
    """

    case: str
    preset: str
    seconds: float
    protocols: tuple[str, ...] = ("carried",)
    seeds: int = 1
    flags: str = ""
    share: float = 1.0


_QUICK_SECONDS = 20
_POINT = "curve, after"
_CURVE = ("carried", "curve")
_OFTEN, _SELDOM = "--validate-every 500", "--validate-every 400"
_BUDGETS = (
    Trial("82 s", "shakespeare", 82, _CURVE, seeds=3, flags=_OFTEN),
    Trial("10 min", "medium", 600, (*_CURVE, "windows", "dynamic"), seeds=3, flags=_SELDOM),
    Trial("10 min, under 1 M weights", "small", 600, _CURVE, flags=_SELDOM),
    Trial("10 min, subword", "subword", 600),
)

# what is taken out of a preset, or put in that it left out
_CHANGES = {
    "as it is": "",
    "64 lanes of 100": "--batch-size 64 --seq-len 100",
    "no average of the weights": "--ema-decay None",
    "no dropout": "--dropout 0",
    "no weight decay": "--weight-decay 0",
    "Dense bias of zeros": "--dense-bias zeros",
    "cosine rate": "--schedule cosine",
    "linear rate": "--schedule linear",
    "weight drop 0.2": "--weight-drop 0.2",
    "input dropout 0.1": "--input-dropout 0.1",
    "embedding dropout 0.05": "--embedding-dropout 0.05",
    "jitter of 8": "--seq-len-jitter 8",
    "state reset 0.02": "--state-reset-probability 0.02",
    "first state learned": "--initial-state learned",
    "update gate's bias 1": "--forget-bias 1",
    "AR 1, TAR 1": "--activation-penalty 1 --temporal-penalty 1",
    "tied, 448 units": "--tie-weights --embedding-dim 448 --hidden-size 448",
    "2 layers of 320": "--num-layers 2 --hidden-size 320",
    "the same, residual and normalised": (
        "--num-layers 2 --hidden-size 320 --residual --layer-norm"
    ),
}
# of a few passes over the text; and of some thirteen, over the first quarter of it
_ABLATIONS = (
    (Trial("shakespeare", "shakespeare", 40), _CHANGES),
    (
        Trial("small, a quarter of the text", "small", 120, share=0.25),
        {
            "as it is": "",
            "no average of the weights": "--ema-decay None",
            "no dropout": "--dropout 0",
            "no weight decay": "--weight-decay 0",
            "no weight drop": "--weight-drop 0",
            "constant rate": "--schedule constant",
            "state reset 0.02": "--state-reset-probability 0.02",
        },
    ),
)

# of the preset `shakespeare`, each with the units that make about 1.23 million weights
_CELLS = {
    "gru": "--hidden-size 512",
    "lstm": "--cell lstm --hidden-size 432",
    "rnn": "--cell rnn --hidden-size 960",
    "gru, output gate": "--output-gate --hidden-size 432",
}


class Bench:
    """Runs trials on one corpus, in processes of their own, one after the other."""

    def __init__(self, corpus: Path, folder: Path, *, quick: bool):
        text = corpus.read_text("utf-8")
        border = int(0.9 * len(text))
        self.train_text, self.held_out = text[:border], text[border:]
        self.folder, self.quick = folder, quick
        (folder / "held_out.txt").write_text(self.held_out, "utf-8")

    def run(self, trial: Trial) -> list[dict[str, Any]]:
        """Return what each seed gave: seconds, steps, parameters, and a score a protocol."""
        seeds = 1 if self.quick else trial.seeds
        return [self._train(trial, seed) for seed in range(1, seeds + 1)]

    def _train(self, trial: Trial, seed: int) -> dict[str, Any]:
        seconds = min(trial.seconds, _QUICK_SECONDS) if self.quick else trial.seconds
        text = self.train_text[: int(trial.share * len(self.train_text))]
        (self.folder / "train.txt").write_text(text, "utf-8")
        command = [
            *(sys.executable, "-m", "benchmarks.peers.timed_train"),
            *(str(seconds), str(self.folder / "run"), str(self.folder / "held_out.txt")),
            ",".join(trial.protocols),
            *(str(self.folder / "train.txt"), "--preset", trial.preset, "--seed", str(seed)),
            *trial.flags.split(),
        ]
        process = subprocess.run(command, cwd=_ROOT, capture_output=True, text=True, check=False)
        if process.returncode:
            raise SystemExit(f"{trial.case}: {' '.join(command)}\n{process.stderr[-2000:]}")
        result = json.loads(process.stdout.splitlines()[-1])
        print(f"{trial.case}, seed {seed}: {result}", file=sys.stderr, flush=True)
        return result


def main() -> None:
    """Train, score and print."""
    flags = parse_flags(__doc__, ("corpus", "tinyshakespeare's input.txt"), parts=tuple(_PARTS))
    measurements = []
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(flags.corpus), Path(folder), quick=flags.quick)
        for part in flags.part:
            measured, draw = _PARTS[part](bench)
            measurements += measured
            if flags.pictures is not None and draw is not None:
                flags.pictures.mkdir(parents=True, exist_ok=True)
                draw(flags.pictures)
    points = [m for m in measurements if m.case.startswith(_POINT)]
    report([m for m in measurements if m not in points], flags.json, unshown=points)


def _floor(bench: Bench) -> Part:
    """Count n-grams: a check of the split, and what a trained model must beat."""
    measured = [
        Measurement(
            f"{context} characters before",
            smoothing,
            ngram_nats_per_char(bench.train_text, bench.held_out, context + 1, smoothing),
            _UNIT,
        )
        for context in (4, 5, 6)
        for smoothing in ("witten-bell", "kneser-ney")
    ]
    return measured, None


def _budgets(bench: Bench) -> Part:
    """Train the presets, some with several seeds; the curves are those of the first seed."""
    rows, curves = [], {}
    short = replace(_BUDGETS[0], case=f"{_QUICK_SECONDS} s", seconds=_QUICK_SECONDS)
    for trial in [short] if bench.quick else _BUDGETS:
        results = bench.run(trial)
        if "curve" in trial.protocols:
            curves[trial.preset] = [(seconds, nats) for seconds, nats in results[0]["curve"]]
        rows += _budget_rows(trial, results)
    nanogpt = "nanoGPT's recipe for CPUs, recorded"
    if not bench.quick:
        gpu = "the one for a GPU, quoted"
        rows.append(Measurement("82 s, carried", nanogpt, _NANOGPT[82], _UNIT))
        rows.append(Measurement("10 min, windows", gpu, _NANOGPT_GPU, _UNIT))
    curves[nanogpt] = list(_NANOGPT.items())
    rows += [
        Measurement(f"{_POINT} {seconds:.0f} s", name, nats, _UNIT)
        for name, points in curves.items()
        for seconds, nats in points
    ]
    title = "tinyshakespeare on two CPU cores"
    return rows, lambda folder: plot_curves(curves, folder / "curves.svg", title)


def _budget_rows(trial: Trial, results: list[dict[str, Any]]) -> Iterator[Measurement]:
    for protocol in trial.protocols:
        if protocol == "curve":
            continue
        case = f"{trial.case}, {protocol}"
        scores = [result[protocol] for result in results]
        yield Measurement(case, "textgen", statistics.mean(scores), _UNIT)
        if len(scores) > 1:
            yield Measurement(f"{case}, spread", "textgen", max(scores) - min(scores), _UNIT)
    seconds = max(result["seconds"] for result in results)
    yield Measurement(f"{trial.case}, whole process", "textgen", seconds, "s")
    yield Measurement(f"{trial.case}, weights", "textgen", results[0]["parameters"], "weights")
    yield Measurement(f"{trial.case}, steps", "textgen", results[0]["steps"], "steps")


def _ablations(bench: Bench) -> Part:
    """Take each ingredient out of a recipe, or put one in, one at a time."""
    parts = [
        _compare(bench, trial, changes, f"ablations-{trial.preset}.svg")
        for trial, changes in _ABLATIONS
    ]

    def draw(folder: Path) -> None:
        for _, draw_one in parts:
            draw_one(folder)

    return [row for rows, _ in parts for row in rows], draw


def _cells(bench: Bench) -> Part:
    """Compare cells of equally many weights in equally many seconds."""
    return _compare(bench, Trial("shakespeare", "shakespeare", 82), _CELLS, "cells.svg")


def _compare(
    bench: Bench, trial: Trial, changes: dict[str, str], picture: str
) -> tuple[list[Measurement], Callable[[Path], None]]:
    """Train with each of some changes."""
    rows, values = [], {}
    for change, flags in list(changes.items())[: 1 if bench.quick else None]:
        case = f"{trial.case}, {change}"
        result = bench.run(replace(trial, case=case, flags=flags))[0]
        values[change] = result["carried"]
        first = next(iter(values.values()))
        rows += [
            Measurement(case, "textgen", result["carried"], _UNIT),
            Measurement(f"{case}, difference", "textgen", result["carried"] - first, "nats"),
            Measurement(f"{case}, steps", "textgen", result["steps"], "steps"),
            Measurement(f"{case}, weights", "textgen", result["parameters"], "weights"),
        ]
    title = f"tinyshakespeare, {trial.case}, {trial.seconds:.0f} s on two CPU cores"
    return rows, lambda folder: plot_dots(values, folder / picture, title, _UNIT)


_PARTS = {"floor": _floor, "budgets": _budgets, "ablations": _ablations, "cells": _cells}


if __name__ == "__main__":
    main()
