"""Tokens per second in training: `textgen.train` beside stock Keras and PyTorch.

Batch 64 x 100, vocabulary 66, embedding 256, AdamW with clipping; random tokens, whose
values do not change the time. All subjects of a case stay in memory and take turns, a
few steps each; figures are medians over the turns. The case of two layers has dropout
0.3 everywhere and weight drop 0.3 for us alone, since the peers have none.
"""

import statistics

from benchmarks.pacing import Worker
from benchmarks.report import Measurement, parse_flags, report
from benchmarks.workload import PEAK_OPERATIONS, TOKENS_PER_STEP, Sizes

_SUBJECTS = {
    "textgen": "benchmarks.peers.textgen_train --variant auto",
    "textgen float32": "benchmarks.peers.textgen_train --variant float32",
    "Keras fit": "benchmarks.peers.keras_gru --variant plain",
    "Keras fit XLA": "benchmarks.peers.keras_gru --variant xla",
    "Keras fit bf16": "benchmarks.peers.keras_gru --variant mixed_bfloat16",
    "PyTorch float32": "benchmarks.peers.torch_gru --variant float32",
    "PyTorch bf16": "benchmarks.peers.torch_gru --variant bfloat16",
}
_PEERS = [name for name in _SUBJECTS if not name.startswith("textgen")]
_PEAKS = {"peak bf16": "bfloat16", "peak float32": "float32"}
_CASES = {
    "hidden 256": Sizes(256),
    "hidden 512": Sizes(512),
    "hidden 1024": Sizes(1024),
    "2 x 512, dropout": Sizes(512, num_layers=2, dropout=0.3),
}


def main() -> None:
    """Measure and print."""
    flags = parse_flags(__doc__)
    cases = {"hidden 512": _CASES["hidden 512"]} if flags.quick else _CASES
    measurements = []
    for case, sizes in cases.items():
        measurements += _compare(case, sizes, turns=3 if flags.quick else 7)
    report(measurements, flags.json)


def _compare(case: str, sizes: Sizes, turns: int) -> list[Measurement]:
    words = {name: f"{subject} {sizes.flags()}" for name, subject in _SUBJECTS.items()}
    for name, dtype in _PEAKS.items():
        words[name] = f"benchmarks.peers.matrix_product --variant {dtype} {sizes.flags()}"
    workers = [Worker.start(name, command) for name, command in words.items()]
    seconds: dict[str, list[float]] = {worker.name: [] for worker in workers}
    for _ in range(turns):
        for worker in workers:
            # about half a second a turn, whatever the size
            steps = max(1, round(0.5 / (seconds[worker.name] or [0.25])[0]))
            seconds[worker.name].append(worker.run(steps))
    for worker in workers:
        worker.stop()
    step_time = {name: statistics.median(values) for name, values in seconds.items()}
    peaks = {worker.name: worker.peak_mib for worker in workers if worker.name in _SUBJECTS}
    return _measurements(case, sizes, step_time, peaks)


def _measurements(
    case: str, sizes: Sizes, step_time: dict[str, float], peaks: dict[str, float]
) -> list[Measurement]:
    rates = {name: TOKENS_PER_STEP / step_time[name] for name in _SUBJECTS}
    rows = [Measurement(case, name, rate, "tokens/s") for name, rate in rates.items()]
    rows += [Measurement(case, name, mib, "MiB peak") for name, mib in peaks.items()]
    best_peer = max(rates[name] for name in _PEERS)
    ratio = {"best peer": rates["textgen"] / best_peer}
    ratio["Keras, both float32"] = rates["textgen float32"] / rates["Keras fit"]
    for name, value in ratio.items():
        rows.append(Measurement(f"{case}, to {name}", "textgen", value, "times"))
    achieved = rates["textgen"] * sizes.operations_per_token()
    peak = PEAK_OPERATIONS / step_time["peak bf16"]
    rows.append(Measurement(case, "textgen", achieved / peak, "of the bf16 peak"))
    rows.append(Measurement(case, "textgen", peak / 1e9, "GFLOP/s bf16 peak"))
    float32 = PEAK_OPERATIONS / step_time["peak float32"]
    rows.append(Measurement(case, "textgen", float32 / 1e9, "GFLOP/s float32 peak"))
    return rows


if __name__ == "__main__":
    main()
