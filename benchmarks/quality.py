"""Nats per character on held-out text after a budget of wall-clock time.

`python -m benchmarks.quality [SOURCE]`; published figures use tinyshakespeare's input.txt. The
first 90 % of the characters are for training, the last 10 % are scored, the split of nanoGPT. The
budget covers a whole process, from its start to the written weights. The held-out text is scored
only after training, with the last weights.

Protocols: `carried`, one pass with carried state; `windows`, windows of 256 tokens that start
from the initial state; `dynamic`, the model keeps learning from what it has scored.

Parts: `ngrams`, a baseline that counts n-grams; `budgets`, the presets, with curves of loss over
time; `ablations`; `cells`. They take an hour in all. `--quick` trains briefly once per part.
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

from benchmarks.arguments import Corpus, add_corpus, benchmark_parser
from benchmarks.ngram import SMOOTHINGS, ngram_nats_per_char
from benchmarks.plots import plot_curves, plot_dots
from benchmarks.report import Measurement, report
from textgen.corpora import split_text
from textgen.machine import core_count

# Plots the figures of a part into a folder.
Plot = Callable[[Path], None]

_ROOT = Path(__file__).resolve().parents[1]
_UNIT = "nats per character"
_VALIDATION_FRACTION = 0.1

# Nats per character by seconds, nanoGPT's recipe for CPUs, recorded on two cores.
_NANOGPT = {31: 2.191, 41: 2.053, 51: 2.009, 62: 1.923, 72: 1.892, 82: 1.886}
# Published for nanoGPT's recipe for a GPU: 10.7 million weights, windows of 256 tokens.
_NANOGPT_GPU = 1.4697


@dataclass(frozen=True)
class Trial:
    """One configuration to train.

    Attributes:
        case: Its name in the table.
        preset: A preset of `train.py`.
        seconds: Wall-clock budget.
        protocols: Scoring protocols; `curve` also scores the weights of each validation.
        num_seeds: Number of runs, each with its own seed; their mean and range are reported.
        flags: More flags of `train.py`.
        fraction: Fraction of the training text to train on, from its start.
    """

    case: str
    preset: str
    seconds: float
    protocols: tuple[str, ...] = ("carried",)
    num_seeds: int = 1
    flags: str = ""
    fraction: float = 1.0


_QUICK_SECONDS = 20
# Prefix of the cases that are points of a curve, which are written to the JSON only.
_POINT = "curve, after"
_WITH_CURVE = ("carried", "curve")
_BUDGETS = (
    Trial("82 s", "shakespeare", 82, _WITH_CURVE, num_seeds=3, flags="--validate-every 500"),
    Trial(
        "10 min",
        "medium",
        600,
        (*_WITH_CURVE, "windows", "dynamic"),
        num_seeds=3,
        flags="--validate-every 400",
    ),
    Trial("10 min, under 1 M weights", "small", 600, _WITH_CURVE, flags="--validate-every 400"),
    Trial("10 min, subword", "subword", 600),
)

# Flags that remove one ingredient of a preset, or add one, by the name of the change.
_CHANGES = {
    "unchanged": "",
    "64 lanes of 100": "--batch-size 64 --seq-len 100",
    "no weight averaging": "--ema-decay None",
    "no dropout": "--dropout 0",
    "no weight decay": "--weight-decay 0",
    "zero dense bias": "--dense-bias zeros",
    "cosine schedule": "--schedule cosine",
    "linear schedule": "--schedule linear",
    "weight drop 0.2": "--weight-drop 0.2",
    "input dropout 0.1": "--input-dropout 0.1",
    "embedding dropout 0.05": "--embedding-dropout 0.05",
    "sequence length jitter 8": "--seq-len-jitter 8",
    "state reset probability 0.02": "--state-reset-probability 0.02",
    "learned initial state": "--initial-state learned",
    "forget bias 1": "--forget-bias 1",
    "AR 1, TAR 1": "--activation-penalty 1 --temporal-penalty 1",
    "tied, 448 units": "--tie-weights --embedding-dim 448 --hidden-size 448",
    "2 layers of 320": "--num-layers 2 --hidden-size 320",
    "2 layers of 320, residual, layer norm": (
        "--num-layers 2 --hidden-size 320 --residual --layer-norm"
    ),
}
# One recipe of a few epochs, and one of about thirteen on the first quarter of the text.
_ABLATIONS = (
    (Trial("shakespeare", "shakespeare", 40), _CHANGES),
    (
        Trial("small, a quarter of the text", "small", 120, fraction=0.25),
        {
            "unchanged": "",
            "no weight averaging": "--ema-decay None",
            "no dropout": "--dropout 0",
            "no weight decay": "--weight-decay 0",
            "no weight drop": "--weight-drop 0",
            "constant schedule": "--schedule constant",
            "state reset probability 0.02": "--state-reset-probability 0.02",
        },
    ),
)

# Flags for the preset `shakespeare`; the units give each cell about 1.23 million weights.
_CELLS = {
    "gru": "--hidden-size 512",
    "lstm": "--cell lstm --hidden-size 432",
    "rnn": "--cell rnn --hidden-size 960",
    "gru, output gate": "--output-gate --hidden-size 432",
}


class TrialRunner:
    """Runs trials on one corpus, each seed in a process of its own.

    Attributes:
        training_text: The first 90 % of the corpus.
        held_out: The rest.
        title: Corpus and machine, for pictures.
        quick: Whether to train one seed per trial, for 20 seconds at most.
    """

    def __init__(self, corpus: Corpus, folder: Path, *, quick: bool) -> None:
        self.training_text, self.held_out = split_text(corpus.text, _VALIDATION_FRACTION)
        self.title = f"{corpus.name} on {core_count()} CPU cores"
        self.quick = quick
        self._folder = folder

    def run(self, trial: Trial) -> list[dict[str, Any]]:
        """Return the result of each seed: seconds, steps, parameters, and a score by protocol."""
        num_seeds = 1 if self.quick else trial.num_seeds
        return [self._train(trial, seed) for seed in range(1, num_seeds + 1)]

    def _train(self, trial: Trial, seed: int) -> dict[str, Any]:
        seconds = min(trial.seconds, _QUICK_SECONDS) if self.quick else trial.seconds
        text = self.training_text[: int(trial.fraction * len(self.training_text))]
        training_file, held_out_file = self._folder / "train.txt", self._folder / "held_out.txt"
        training_file.write_text(text, "utf-8")
        held_out_file.write_text(self.held_out, "utf-8")
        command = [
            *(sys.executable, "-m", "benchmarks.peers.budget_train"),
            *(str(seconds), str(self._folder / "run"), str(held_out_file)),
            ",".join(trial.protocols),
            *(str(training_file), "--preset", trial.preset, "--seed", str(seed)),
            *trial.flags.split(),
        ]
        process = subprocess.run(command, cwd=_ROOT, capture_output=True, text=True, check=False)
        if process.returncode:
            raise SystemExit(f"{trial.case}: {' '.join(command)}\n{process.stderr[-2000:]}")
        result: dict[str, Any] = json.loads(process.stdout.splitlines()[-1])
        print(f"{trial.case}, seed {seed}: {result}", file=sys.stderr, flush=True)
        return result


def main() -> None:
    """Train, score and print."""
    parser = benchmark_parser(__doc__)
    add_corpus(parser)
    parser.add_argument(
        "--part", nargs="+", choices=_PARTS, default=list(_PARTS), help="run only these parts"
    )
    parser.add_argument("--pictures", type=Path, metavar="FOLDER", help="also plot into a folder")
    arguments = parser.parse_args()
    measurements: list[Measurement] = []
    with tempfile.TemporaryDirectory() as folder:
        runner = TrialRunner(arguments.corpus, Path(folder), quick=arguments.quick)
        for part in arguments.part:
            measured, plots = _PARTS[part](runner)
            measurements += measured
            if arguments.pictures is not None:
                arguments.pictures.mkdir(parents=True, exist_ok=True)
                for plot in plots:
                    plot(arguments.pictures)
    points = [m for m in measurements if m.case.startswith(_POINT)]
    shown = [m for m in measurements if not m.case.startswith(_POINT)]
    report(shown, arguments.json, json_only=points)


def _ngrams(runner: TrialRunner) -> tuple[list[Measurement], list[Plot]]:
    """Count n-grams: a check of the split, and a score that a trained model must beat."""
    measurements = [
        Measurement(
            f"{context} characters of context",
            smoothing,
            ngram_nats_per_char(runner.training_text, runner.held_out, context + 1, smoothing),
            _UNIT,
        )
        for context in ((5,) if runner.quick else (4, 5, 6))
        for smoothing in SMOOTHINGS
    ]
    return measurements, []


def _budgets(runner: TrialRunner) -> tuple[list[Measurement], list[Plot]]:
    """Train the presets; the curves are those of the first seed."""
    measurements: list[Measurement] = []
    curves: dict[str, list[tuple[float, float]]] = {}
    quick_trial = replace(_BUDGETS[0], case=f"{_QUICK_SECONDS} s", seconds=_QUICK_SECONDS)
    for trial in [quick_trial] if runner.quick else _BUDGETS:
        results = runner.run(trial)
        if "curve" in trial.protocols:
            curves[trial.preset] = [(seconds, nats) for seconds, nats in results[0]["curve"]]
        measurements += _budget_rows(trial, results)
    nanogpt = "nanoGPT's recipe for CPUs, recorded"
    if not runner.quick:
        gpu = "nanoGPT's recipe for a GPU, published"
        measurements.append(Measurement("82 s, carried", nanogpt, _NANOGPT[82], _UNIT))
        measurements.append(Measurement("10 min, windows", gpu, _NANOGPT_GPU, _UNIT))
    measurements += [
        Measurement(f"{_POINT} {seconds:.0f} s", f"textgen {preset}", nats, _UNIT)
        for preset, points in curves.items()
        for seconds, nats in points
    ]
    measurements += [
        Measurement(f"{_POINT} {seconds} s", nanogpt, nats, _UNIT)
        for seconds, nats in _NANOGPT.items()
    ]
    plotted = curves | {nanogpt: [(float(s), nats) for s, nats in _NANOGPT.items()]}
    return measurements, [lambda folder: plot_curves(plotted, folder / "curves.svg", runner.title)]


def _budget_rows(trial: Trial, results: list[dict[str, Any]]) -> Iterator[Measurement]:
    for protocol in trial.protocols:
        if protocol == "curve":
            continue
        case = f"{trial.case}, {protocol}"
        scores = [result[protocol] for result in results]
        yield Measurement(case, "textgen", statistics.mean(scores), _UNIT)
        if len(scores) > 1:
            yield Measurement(f"{case}, range", "textgen", max(scores) - min(scores), _UNIT)
    seconds = max(result["seconds"] for result in results)
    yield Measurement(f"{trial.case}, whole process", "textgen", seconds, "s")
    yield Measurement(f"{trial.case}, weights", "textgen", results[0]["parameters"], "weights")
    yield Measurement(f"{trial.case}, steps", "textgen", results[0]["steps"], "steps")


def _ablations(runner: TrialRunner) -> tuple[list[Measurement], list[Plot]]:
    """Remove each ingredient of a recipe, or add one, one at a time."""
    parts = [
        _compare(runner, trial, changes, f"ablations-{trial.preset}.svg")
        for trial, changes in _ABLATIONS
    ]
    return [m for measured, _ in parts for m in measured], [p for _, plots in parts for p in plots]


def _cells(runner: TrialRunner) -> tuple[list[Measurement], list[Plot]]:
    """Compare cells with the same number of weights and the same budget."""
    return _compare(runner, Trial("shakespeare", "shakespeare", 82), _CELLS, "cells.svg")


def _compare(
    runner: TrialRunner, trial: Trial, changes: dict[str, str], picture: str
) -> tuple[list[Measurement], list[Plot]]:
    """Train with each of several changes; the first is the reference."""
    measurements: list[Measurement] = []
    scores: dict[str, float] = {}
    for change, flags in list(changes.items())[: 1 if runner.quick else None]:
        case = f"{trial.case}, {change}"
        (result,) = runner.run(replace(trial, case=case, flags=flags))
        scores[change] = result["carried"]
        reference = next(iter(scores.values()))
        measurements += [
            Measurement(case, "textgen", result["carried"], _UNIT),
            Measurement(f"{case}, difference", "textgen", result["carried"] - reference, "nats"),
            Measurement(f"{case}, steps", "textgen", result["steps"], "steps"),
            Measurement(f"{case}, weights", "textgen", result["parameters"], "weights"),
        ]
    title = f"{runner.title}, {trial.case}, {trial.seconds:.0f} s"
    return measurements, [lambda folder: plot_dots(scores, folder / picture, title, _UNIT)]


_PARTS = {"ngrams": _ngrams, "budgets": _budgets, "ablations": _ablations, "cells": _cells}


if __name__ == "__main__":
    main()
