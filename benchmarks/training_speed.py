"""Tokens per second in training: `textgen.train`, stock Keras and PyTorch.

Batch 64 x 100, vocabulary 66, embedding 256, AdamW with clipping; the tokens are random, which
does not change the time. All subjects of a case stay in memory and take turns of a few steps;
figures are medians over the turns. The case with two layers has dropout 0.3 in all subjects; only
textgen has weight drop, 0.3, which the peers do not offer.
"""

import statistics
from collections.abc import Mapping

from benchmarks.arguments import benchmark_parser
from benchmarks.report import Measurement, report
from benchmarks.workers import Worker, installed_subjects
from benchmarks.workload import PEAK_OPERATIONS, TOKENS_PER_STEP, Sizes

_SUBJECTS = {
    "textgen": "benchmarks.peers.textgen_train --variant auto",
    "textgen float32": "benchmarks.peers.textgen_train --variant float32",
    "Keras fit": "benchmarks.peers.keras_train --variant plain",
    "Keras fit XLA": "benchmarks.peers.keras_train --variant xla",
    "Keras fit bf16": "benchmarks.peers.keras_train --variant mixed_bfloat16",
    "PyTorch float32": "benchmarks.peers.torch_train --variant float32",
    "PyTorch bf16": "benchmarks.peers.torch_train --variant bfloat16",
}
# Matrix products alone: the machine's peak.
_PEAKS = {
    "peak bf16": "benchmarks.peers.matrix_product --variant bfloat16",
    "peak float32": "benchmarks.peers.matrix_product --variant float32",
}
_CASES = {
    "hidden 256": Sizes(256),
    "hidden 512": Sizes(512),
    "hidden 1024": Sizes(1024),
    "2 x 512, dropout": Sizes(512, num_layers=2, dropout=0.3),
}
_SECONDS_PER_TURN = 0.5
# Assumed before the first turn has been measured.
_SECONDS_PER_STEP = 0.25


def main() -> None:
    """Measure and print."""
    arguments = benchmark_parser(__doc__).parse_args()
    subjects = installed_subjects(_SUBJECTS)
    cases = {"hidden 512": _CASES["hidden 512"]} if arguments.quick else _CASES
    measurements = []
    for case, sizes in cases.items():
        workers = [
            Worker.start(name, f"{command} {sizes.flags()}")
            for name, command in (subjects | _PEAKS).items()
        ]
        seconds = _time_steps(workers, num_turns=3 if arguments.quick else 7)
        for worker in workers:
            worker.stop()
        peaks = {worker.name: worker.peak_mib for worker in workers if worker.name in subjects}
        measurements += _rates(case, sizes, seconds) + _memory(case, peaks)
    report(measurements, arguments.json)


def _time_steps(workers: list[Worker], num_turns: int) -> dict[str, float]:
    """Return the median of the seconds per step by subject."""
    seconds: dict[str, list[float]] = {worker.name: [] for worker in workers}
    for _ in range(num_turns):
        for worker in workers:
            expected = (seconds[worker.name] or [_SECONDS_PER_STEP])[0]
            steps = max(1, round(_SECONDS_PER_TURN / expected))
            seconds[worker.name].append(worker.run(steps))
    return {name: statistics.median(values) for name, values in seconds.items()}


def _rates(case: str, sizes: Sizes, seconds: Mapping[str, float]) -> list[Measurement]:
    rates = {name: TOKENS_PER_STEP / seconds[name] for name in seconds if name not in _PEAKS}
    best_peer = max((n for n in rates if not n.startswith("textgen")), key=rates.__getitem__)
    peaks = {name: PEAK_OPERATIONS / seconds[name] for name in _PEAKS}
    share = rates["textgen"] * sizes.training_operations() / peaks["peak bf16"]
    ratio = rates["textgen"] / rates[best_peer]
    ratio_float32 = rates["textgen float32"] / rates["Keras fit"]
    return [
        *(Measurement(case, name, rate, "tokens/s") for name, rate in rates.items()),
        Measurement(f"{case}, to the best peer, {best_peer}", "textgen", ratio, "times"),
        Measurement(f"{case}, to Keras fit", "textgen float32", ratio_float32, "times"),
        Measurement(f"{case}, share of the bf16 peak", "textgen", share, "share"),
        *(Measurement(case, name, peak / 1e9, "GFLOP/s") for name, peak in peaks.items()),
    ]


def _memory(case: str, peaks: Mapping[str, float]) -> list[Measurement]:
    return [Measurement(f"{case}, peak memory", name, mib, "MiB") for name, mib in peaks.items()]


if __name__ == "__main__":
    main()
