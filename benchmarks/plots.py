"""Pictures of measurements: loss against time, and things compared by one figure each.

White behind and dark ink on it, so that they read in GitHub's light and dark themes alike.
The file's ending chooses the format, `.svg` or `.png`; the same figures give the same file.
LoopEngine needs matplotlib, which requirements-notebooks.txt brings.
"""

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from textgen.errors import ConfigError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_PEER = "nanoGPT"
_INK, _FAINT, _GRID = "#24292f", "#66707b", "#e6e8eb"
# Okabe & Ito's, darkened for a white ground: the colour-blind tell them apart too
_COLOURS = ("#0072b2", "#d55e00", "#00815c", "#a8508c", "#a67c00", "#1a8fa3")
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
_WIDTH = 6.4  # inches; at 10 points the text is as large as GitHub's beside it
_LABEL_GAP = 15.0  # points from one line's label to the next

# seconds, coarse to fine; the first that puts enough ticks on the axis is taken
_LADDERS = (
    (0.1, 1, 10, 60, 600, 3_600, 36_000),
    (0.1, 0.3, 1, 3, 10, 30, 60, 180, 600, 1_800, 3_600, 10_800, 36_000),
    (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1_200, 1_800, 3_600, 7_200, 18_000),
    (1, 1.5, 2, 3, 4, 5, 6, 8, 10, 15, 20, 25, 30, 40, 50, 60, 75, 90, 120, 150, 180, 240, 300),
)


def plot_curves(curves: dict[str, list[tuple[float, float]]], path: Path, title: str) -> None:
    """Draw validation loss against wall-clock seconds, a line for each run.

    Time has a logarithmic axis. A line's name and last loss stand to the right of the
    picture, and a dotted hairline leads there at the height of that loss. A name that
    begins with "nanoGPT" marks what the others are held to: dashed and grey.

    Args:
        curves: A name to its points, `(seconds, nats per character)`.
        path: Where to write, `.svg` or `.png`; a file there is replaced.
        title: What stands above the picture.

    Raises:
        ConfigError: No curve, a curve without points or with one that the axes have no place
            for, or another ending.
    """
    _require_something(curves, "curves")
    for name, points in curves.items():
        _require_drawable(name, points)
    subtitle = "validation loss, nats per character, over wall-clock time"
    _draw(lambda axes: _draw_curves(axes, curves), path, title, subtitle, height=3.6)


def plot_dots(values: dict[str, float], path: Path, title: str, unit: str) -> None:
    """Draw a dot on a line for each thing compared, with its figure beside it.

    The axis begins near the least figure, not at zero: dots, unlike bars, do not ask for it.

    Args:
        values: A name to its figure, from the top downwards.
        path: Where to write, `.svg` or `.png`; a file there is replaced.
        title: What stands above the picture.
        unit: What is counted, under the title.

    Raises:
        ConfigError: No figure, one that is not finite, or another ending.
    """
    _require_something(values, "values")
    for name, value in values.items():
        if not math.isfinite(value):
            raise ConfigError(
                f"`values` must be finite. Received: {name!r}: {value}. Leave it out."
            )
    height = 0.36 * len(values) + 0.1
    _draw(lambda axes: _draw_dots(axes, values), path, title, unit, height)


def _require_something(things: dict, name: str) -> None:
    if not things:
        raise ConfigError(f"`{name}` must hold something to draw. Received: {{}}.")


def _require_drawable(name: str, points: list[tuple[float, float]]) -> None:
    good = [0 < seconds < math.inf and math.isfinite(loss) for seconds, loss in points]
    if not points or not all(good):
        raise ConfigError(
            f"A curve must have points, all finite and later than 0 seconds: its axis is "
            f"logarithmic. Received: {name!r}: {points[good.index(False)] if points else []}. "
            f"Leave it out."
        )


def _draw(
    fill: "Callable[[Axes], None]", path: Path, title: str, subtitle: str, height: float
) -> None:
    """Have `fill` draw on axes of `height` inches, put the titles above them, and save."""
    if path.suffix not in (".svg", ".png"):
        raise ConfigError(f"`path` must end in .svg or .png. Received: {path}.")
    # a Figure of its own, without pyplot, is drawn by Agg and leaves no state behind
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(_WIDTH, height), facecolor="white")
        axes = figure.add_axes((0, 0, 1, 1))
        axes.spines[["top", "left", "right"]].set_visible(False)
        axes.set_axisbelow(True)
        axes.tick_params(length=0, pad=6)
        fill(axes)
        above: dict[str, Any] = {"xycoords": "axes fraction", "textcoords": "offset points"}
        axes.annotate(title, (0, 1), (0, 30), fontsize=12, fontweight="bold", **above)
        axes.annotate(subtitle, (0, 1), (0, 13), color=_FAINT, **above)
        # a date would make every SVG another file
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
        colour = _COLOURS[ours.index(name) % len(_COLOURS)] if name in ours else _FAINT
        style = "-" if name in ours else (0, (4, 2))
        axes.plot(seconds, losses, color=colour, linestyle=style, linewidth=1.8)
        axes.plot(seconds[-1], losses[-1], "o", color=colour, markersize=4.5)
        ends[name] = seconds[-1], losses[-1], colour
    _tick_seconds(axes)
    _label_ends(axes, ends)


def _tick_seconds(axes: "Axes") -> None:
    first, last = axes.get_xlim()
    for ladder in _LADDERS:
        ticks = [seconds for seconds in ladder if first <= seconds <= last]
        if len(ticks) >= 4:
            break
    axes.set_xticks(ticks, [_duration(seconds) for seconds in ticks])
    axes.set_xticks([], minor=True)
    axes.set_xlim(first, last)


def _duration(seconds: float) -> str:
    """Return `90` as "1.5 min": the largest unit of which there is one."""
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
        seconds, loss, colour = ends[name]
        leader, label = ((last / first) ** beyond * last for beyond in (0.035, 0.04))
        axes.plot(
            [seconds, last, leader],
            [loss, loss, height],
            color=colour,
            linewidth=0.8,
            linestyle=(0, (1, 3)),
            clip_on=False,
        )
        axes.text(label, height, f"{name}  {loss:.3f}", color=colour, va="center_baseline")
    axes.set_xlim(first, last)
    axes.set_ylim(low, high)


def _spread(wanted: Sequence[float], gap: float, least: float) -> np.ndarray:
    """Return places at least `gap` apart, as near to the `wanted` as can be.

    Args:
        wanted: Ascending.
        gap: The least distance between neighbours.
        least: No place is below it.

    Returns:
        `[len(wanted)]` float64, those of the least squared distance in all.

    Less `gap` for each place before it, this is an isotonic regression, and that has a
    closed form, the max-min formula.
    """
    steps = gap * np.arange(len(wanted))
    free = np.asarray(wanted) - steps
    places = range(len(free))
    nearest = [
        max(min(free[a : b + 1].mean() for b in places[i:]) for a in places[: i + 1])
        for i in places
    ]
    return np.maximum(nearest, least) + steps


def _draw_dots(axes: "Axes", values: dict[str, float]) -> None:
    names, figures = list(values), list(values.values())
    rows = range(len(names))
    span = (max(figures) - min(figures)) or abs(figures[0]) or 1.0
    axes.set_xlim(min(figures) - 0.12 * span, max(figures) + 0.16 * span)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.set_yticks(rows, names, color=_INK)
    # to three digits of what sets them apart; without steps of 2.5, ticks need no more
    decimals = max(0, round(2 - math.log10(span)))
    axes.locator_params(axis="x", nbins=6, steps=[1, 2, 5, 10])
    axes.xaxis.set_major_formatter(f"{{x:,.{decimals}f}}")
    axes.grid(axis="y")
    axes.plot(figures, rows, "o", color=_COLOURS[0], markersize=8)
    for row, value in zip(rows, figures, strict=True):
        # white behind the figure, so that the row's line does not strike it through
        axes.annotate(
            f"{value:,.{decimals}f}",
            (value, row),
            (9, 0),
            textcoords="offset points",
            va="center_baseline",
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 1.5},
        )
