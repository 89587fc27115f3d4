"""Pictures: they are drawn, hold every name, and refuse what has no place on their axes."""

import pytest

from benchmarks.plots import plot_curves, plot_dots
from textgen.errors import ConfigError


def test_curves_name_every_line_and_the_same_figures_give_the_same_file(tmp_path):
    curves = {"small": [(10, 2.5), (80, 1.6)], "nanoGPT": [(31, 2.2), (82, 1.9)]}
    for name in ("a.svg", "b.svg"):
        plot_curves(curves, tmp_path / name, "Loss over time")
    drawn = (tmp_path / "a.svg").read_bytes()
    assert drawn == (tmp_path / "b.svg").read_bytes()
    assert len(drawn) > 2000
    plot_curves(curves, tmp_path / "c.png", "Loss over time")
    assert (tmp_path / "c.png").read_bytes().startswith(b"\x89PNG")


def test_dots_of_one_and_of_equal_values_are_drawn(tmp_path):
    plot_dots({"gru": 1.5}, tmp_path / "one.svg", "Cells", "nats")
    plot_dots({"gru": 1.5, "lstm": 1.5}, tmp_path / "two.svg", "Cells", "nats")
    assert (tmp_path / "one.svg").read_bytes() != (tmp_path / "two.svg").read_bytes()


@pytest.mark.parametrize(
    "draw",
    [
        lambda folder: plot_curves({}, folder / "a.svg", ""),
        lambda folder: plot_curves({"a": [(0, 1.0)]}, folder / "a.svg", ""),
        lambda folder: plot_curves({"a": [(1, float("nan"))]}, folder / "a.svg", ""),
        lambda folder: plot_dots({"a": float("inf")}, folder / "a.svg", "", ""),
        lambda folder: plot_dots({"a": 1.0}, folder / "a.gif", "", ""),
    ],
)
def test_what_cannot_be_drawn_is_refused(draw, tmp_path):
    with pytest.raises(ConfigError, match="Received"):
        draw(tmp_path)
    assert not any(tmp_path.iterdir())
