"""Measurements, and their two forms: a table for people, JSON for machines."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True)
class Measurement:
    """One figure.

    Attributes:
        case: What was measured.
        subject: `textgen`, `textgen VARIANT`, or the name of a peer.
        value: The figure; a median if there were several runs.
        unit: Its unit; empty for a number without one.
    """

    case: str
    subject: str
    value: float
    unit: str


def report(
    measurements: Sequence[Measurement],
    json_file: Path | None,
    json_only: Sequence[Measurement] = (),
) -> None:
    """Print a table of cases by subjects, and write the list to `json_file`.

    Args:
        measurements: At least one; rows and columns are in the order of first appearance.
        json_file: A file to write or replace; None: none.
        json_only: Written after `measurements`, but too many for a table.
    """
    print(format_table(measurements))
    if json_file is not None:
        values = [asdict(measurement) for measurement in (*measurements, *json_only)]
        json_file.write_text(json.dumps(values, indent=2) + "\n", "utf-8")


def format_table(measurements: Sequence[Measurement]) -> str:
    """Return a table of cases by subjects; a cell without a measurement is empty."""
    subjects = list(dict.fromkeys(m.subject for m in measurements))
    rows: dict[str, dict[str, str]] = {}
    for m in measurements:
        label = f"{m.case} [{m.unit}]" if m.unit else m.case
        rows.setdefault(label, {})[m.subject] = format_value(m.value)
    label_width = max(map(len, rows))
    widths = [max(len(subject), 10) for subject in subjects]
    lines = [[" " * label_width, *map(str.rjust, subjects, widths)]]
    for label, cells in rows.items():
        figures = [cells.get(subject, "") for subject in subjects]
        lines.append([label.ljust(label_width), *map(str.rjust, figures, widths)])
    return "\n".join("  ".join(line).rstrip() for line in lines)


def format_value(value: float) -> str:
    """Return a figure with thousands separators from 100 on, with four digits below."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.4g}"
