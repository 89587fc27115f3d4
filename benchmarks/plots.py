"""Plots of measurements: loss over time, and a comparison of single figures.

They have dark text on a white background, readable in GitHub's light and dark themes. The suffix
of the file selects the format, `.svg` or `.png`; the same figures give the same file. Plotting
needs Matplotlib, which is in the extra `notebooks`.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from textgen.arrays import Float64Array
from textgen.errors import ConfigError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_PEER = "nanoGPT"
_INK, _FAINT, _GRID = "#24292f", "#66707b", "#e6e8eb"
# The palette of Okabe & Ito, distinguishable with color blindness, darkened for white.
_COLORS = ("#0072b2", "#d55e00", "#00815c", "#a8508c", "#a67c00", "#1a8fa3")
_STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 10,
    "text.color": _INK,
    "text.parse_math": False,
    "axes.edgecolor": _FAINT,
    "axes.labelcolor": _FAINT,
    "xtick.color": _FAINT,
    "ytick.color": _FAINT,
    "grid.color": _GRID,
    "svg.hashsalt": "textgen",
}
_WIDTH = 6.4  # Inches, at which 10 points are as large as GitHub's text.
_LABEL_GAP = 15.0  # Points between the labels of two lines.

# Ticks in seconds, coarse to fine; the first with enough ticks on the axis is used.
_MIN_TICKS = 4
_TICKS = (
    (0.1, 1, 10, 60, 600, 3_600, 36_000),
    (0.1, 0.3, 1, 3, 10, 30, 60, 180, 600, 1_800, 3_600, 10_800, 36_000),
    (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1_200, 1_800, 3_600, 7_200, 18_000),
    (1, 1.5, 2, 3, 4, 5, 6, 8, 10, 15, 20, 25, 30, 40, 50, 60, 75, 90, 120, 150, 180, 240, 300),
)


def plot_curves(curves: dict[str, list[tuple[float, float]]], path: Path, title: str) -> None:
    """Plot validation loss over wall-clock seconds, one line per run.

    The time axis is logarithmic. The name and the last loss of a line are to the right of the
    plot, connected to the line by a thin dotted one. A name that starts with "nanoGPT" is the
    reference: its line is dashed and gray.

    Args:
        curves: Points `(seconds, nats per character)` by name.
        path: A `.svg` or `.png` file; an existing one is replaced.
        title: Text above the plot.

    Raises:
        ConfigError: There is no curve, a curve has no points or one that the axes cannot show,
            or `path` has another suffix.
    """
    _require_not_empty(curves, "curves")
    for name, points in curves.items():
        _require_plottable(name, points)
    subtitle = "validation loss, nats per character, over wall-clock time"
    _plot(lambda axes: _draw_curves(axes, curves), path, title, subtitle, height=3.6)


def plot_dots(values: dict[str, float], path: Path, title: str, unit: str) -> None:
    """Plot one figure per row as a dot, with its value next to it.

    The axis starts near the smallest figure, not at zero, which dots, unlike bars, allow.

    Args:
        values: Figures by name, from top to bottom.
        path: A `.svg` or `.png` file; an existing one is replaced.
        title: Text above the plot.
        unit: Unit of the figures, shown under the title.

    Raises:
        ConfigError: There is no figure, one is not finite, or `path` has another suffix.
    """
    _require_not_empty(values, "values")
    for name, value in values.items():
        if not math.isfinite(value):
            raise ConfigError(
                f"`values` must be finite numbers. Received: {value} for {name!r}. Remove it."
            )
    height = 0.36 * len(values) + 0.1
    _plot(lambda axes: _draw_dots(axes, values), path, title, unit, height)


def _require_not_empty(entries: Mapping[str, object], name: str) -> None:
    if not entries:
        raise ConfigError(f"`{name}` must have at least one entry. Received: {{}}.")


def _require_plottable(name: str, points: Sequence[tuple[float, float]]) -> None:
    for seconds, loss in points:
        if not (0 < seconds < math.inf and math.isfinite(loss)):
            raise ConfigError(
                "`curves` must have finite losses at finite times greater than 0, because the "
                f"time axis is logarithmic. Received: {(seconds, loss)} in {name!r}. Remove it."
            )
    if not points:
        raise ConfigError(
            f"`curves` must have at least one point each. Received: none for {name!r}. Remove it."
        )


def _plot(
    draw: "Callable[[Axes], None]", path: Path, title: str, subtitle: str, height: float
) -> None:
    """Call `draw` with axes of `height` inches, add the titles, and save the figure."""
    if path.suffix not in (".svg", ".png"):
        raise ConfigError(f"`path` must end with .svg or .png. Received: {path}.")
    # A Figure made without pyplot needs no display and leaves no global state.
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(_WIDTH, height), facecolor="white")
        axes = figure.add_axes((0, 0, 1, 1))
        axes.spines[["top", "left", "right"]].set_visible(False)
        axes.set_axisbelow(True)
        axes.tick_params(length=0, pad=6)
        draw(axes)
        above: dict[str, Any] = {"xycoords": "axes fraction", "textcoords": "offset points"}
        axes.annotate(title, (0, 1), (0, 30), fontsize=12, fontweight="bold", **above)
        axes.annotate(subtitle, (0, 1), (0, 13), color=_FAINT, **above)
        # With a date, no two SVG files would be equal.
        metadata = {"Date": None} if path.suffix == ".svg" else None
        figure.savefig(path, dpi=150, bbox_inches="tight", pad_inches=0.2, metadata=metadata)


def _draw_curves(axes: "Axes", curves: dict[str, list[tuple[float, float]]]) -> None:
    ours = [name for name in curves if not name.startswith(_PEER)]
    axes.set_xscale("log")
    axes.locator_params(axis="y", nbins=8, steps=[1, 2, 5, 10])
    axes.grid(axis="y")
    ends = {}
    for name, points in curves.items():
        seconds, losses = zip(*sorted(points), strict=True)
        color = _COLORS[ours.index(name) % len(_COLORS)] if name in ours else _FAINT
        style = "-" if name in ours else (0, (4, 2))
        axes.plot(seconds, losses, color=color, linestyle=style, linewidth=1.8)
        axes.plot(seconds[-1], losses[-1], "o", color=color, markersize=4.5)
        ends[name] = seconds[-1], losses[-1], color
    _tick_seconds(axes)
    _label_ends(axes, ends)


def _tick_seconds(axes: "Axes") -> None:
    first, last = axes.get_xlim()
    for candidates in _TICKS:
        ticks = [seconds for seconds in candidates if first <= seconds <= last]
        if len(ticks) >= _MIN_TICKS:
            break
    axes.set_xticks(ticks, [_duration(seconds) for seconds in ticks])
    axes.set_xticks([], minor=True)
    axes.set_xlim(first, last)


def _duration(seconds: float) -> str:
    """Return `90` as "1.5 min", in the largest unit in which it is at least 1."""
    for size, unit in ((3_600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:g} {unit}"
    return f"{seconds:g} s"


def _label_ends(axes: "Axes", ends: dict[str, tuple[float, float, str]]) -> None:
    low, high = axes.get_ylim()
    first, last = axes.get_xlim()
    points = axes.bbox.height / axes.figure.dpi * 72
    gap = _LABEL_GAP / points * (high - low)
    names = sorted(ends, key=lambda name: ends[name][1])
    heights = _spread([ends[name][1] for name in names], gap, low + gap / 2)
    for name, height in zip(names, heights, strict=True):
        seconds, loss, color = ends[name]
        leader, label = ((last / first) ** beyond * last for beyond in (0.035, 0.04))
        axes.plot(
            [seconds, last, leader],
            [loss, loss, height],
            color=color,
            linewidth=0.8,
            linestyle=(0, (1, 3)),
            clip_on=False,
        )
        axes.text(label, height, f"{name}  {loss:.3f}", color=color, va="center_baseline")
    axes.set_xlim(first, last)
    axes.set_ylim(low, high)


def _spread(wanted: Sequence[float], gap: float, minimum: float) -> Float64Array:
    """Return positions at least `gap` apart, as close to the wanted ones as possible.

    Args:
        wanted: Ascending positions.
        gap: Smallest distance between neighbors.
        minimum: Smallest position.

    Returns:
        `[len(wanted)]` float64, with the least sum of squared distances to `wanted`.

    After `gap` is subtracted once per preceding position, this is isotonic regression, which has
    a closed form, the max-min formula.
    """
    steps = gap * np.arange(len(wanted))
    free = np.asarray(wanted) - steps
    indices = range(len(free))
    nearest = [
        max(min(free[a : b + 1].mean() for b in indices[i:]) for a in indices[: i + 1])
        for i in indices
    ]
    return np.asarray(np.maximum(nearest, minimum) + steps, np.float64)


def _draw_dots(axes: "Axes", values: dict[str, float]) -> None:
    names, figures = list(values), list(values.values())
    rows = range(len(names))
    span = (max(figures) - min(figures)) or abs(figures[0]) or 1.0
    axes.set_xlim(min(figures) - 0.12 * span, max(figures) + 0.16 * span)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.set_yticks(rows, names, color=_INK)
    # Three digits of the range; tick steps of 1, 2, 5 and 10 need no more.
    decimals = max(0, round(2 - math.log10(span)))
    axes.locator_params(axis="x", nbins=6, steps=[1, 2, 5, 10])
    axes.xaxis.set_major_formatter(f"{{x:,.{decimals}f}}")
    axes.grid(axis="y")
    axes.plot(figures, rows, "o", color=_COLORS[0], markersize=8)
    for row, value in zip(rows, figures, strict=True):
        # A white box keeps the grid line from crossing the figure.
        axes.annotate(
            f"{value:,.{decimals}f}",
            (value, row),
            (9, 0),
            textcoords="offset points",
            va="center_baseline",
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 1.5},
        )
