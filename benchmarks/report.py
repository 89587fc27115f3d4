"""What every benchmark shares: its flags, its table, its JSON."""

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True)
class Measurement:
    """One figure.

    Attributes:
        case: What was measured.
        subject: `textgen`, or the peer's name.
        value: The figure, a median where there were several runs.
        unit: Its unit.
    """

    case: str
    subject: str
    value: float
    unit: str


def parse_flags(
    description: str | None, *words: tuple[str, str], parts: Sequence[str] = ()
) -> argparse.Namespace:
    """Return the flags that all benchmarks have, `quick` and `json`.

    Args:
        description: What the benchmark does.
        words: Words that must follow as well, `(name, help text)`; "files" takes several.
        parts: Of a benchmark that can be run in parts and draws: gives it `part`, a list of
            them, all by default, and `pictures`, a folder or None.

    Returns:
        The parsed command line.
    """
    parser = argparse.ArgumentParser(description=description)
    for name, text in words:
        parser.add_argument(name, help=text, nargs="+" if name == "files" else None)
    parser.add_argument("--quick", action="store_true", help="end within two minutes")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures as JSON")
    if parts:
        parser.add_argument(
            "--part", nargs="+", choices=parts, default=parts, help="run these alone"
        )
        parser.add_argument("--pictures", type=Path, metavar="FOLDER", help="draw pictures there")
    return parser.parse_args()


def report(
    measurements: Sequence[Measurement],
    json_file: Path | None,
    unshown: Sequence[Measurement] = (),
) -> None:
    """Print a table of cases by subjects; write the list to `json_file` if there is one.

    Args:
        measurements: What is shown and written.
        json_file: Where to write; None: nowhere.
        unshown: Only written: too many for a table.
    """
    subjects = list(dict.fromkeys(m.subject for m in measurements))
    rows: dict[str, dict[str, str]] = {}
    for m in measurements:
        rows.setdefault(f"{m.case} [{m.unit}]", {})[m.subject] = _shown(m.value)
    first = max(map(len, rows))
    widths = [max(len(s), 10) for s in subjects]
    print(" " * first, *(f"{s:>{w}}" for s, w in zip(subjects, widths, strict=True)), sep="  ")
    for case, figures in rows.items():
        cells = (f"{figures.get(s, ''):>{w}}" for s, w in zip(subjects, widths, strict=True))
        print(f"{case:<{first}}", *cells, sep="  ")
    if json_file is not None:
        json_file.write_text(
            json.dumps([asdict(m) for m in (*measurements, *unshown)], indent=2) + "\n"
        )


def _shown(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.4g}"
