"""Plots: files that are reproducible, and the error for values that axes cannot show."""

import pytest

from benchmarks.plots import plot_curves, plot_dots
from textgen.errors import ConfigError


def test_the_same_curves_give_the_same_file(tmp_path):
    curves = {"small": [(10, 2.5), (80, 1.6)], "nanoGPT": [(31, 2.2), (82, 1.9)]}
    for name in ("a.svg", "b.svg"):
        plot_curves(curves, tmp_path / name, "Loss over time")
    svg = (tmp_path / "a.svg").read_bytes()
    assert svg == (tmp_path / "b.svg").read_bytes()
    other = {**curves, "small": [(10, 2.5), (80, 1.7)]}
    plot_curves(other, tmp_path / "b.svg", "Loss over time")
    assert svg != (tmp_path / "b.svg").read_bytes()
    plot_curves(curves, tmp_path / "c.png", "Loss over time")
    assert (tmp_path / "c.png").read_bytes().startswith(b"\x89PNG")


def test_one_value_and_equal_values_have_a_plot(tmp_path):
    plot_dots({"gru": 1.5}, tmp_path / "one.svg", "Cells", "nats")
    plot_dots({"gru": 1.5, "lstm": 1.5}, tmp_path / "two.svg", "Cells", "nats")
    assert (tmp_path / "one.svg").read_bytes() != (tmp_path / "two.svg").read_bytes()


@pytest.mark.parametrize(
    "plot",
    [
        lambda folder: plot_curves({}, folder / "a.svg", ""),
        lambda folder: plot_curves({"a": []}, folder / "a.svg", ""),
        lambda folder: plot_curves({"a": [(0, 1.0)]}, folder / "a.svg", ""),
        lambda folder: plot_curves({"a": [(1, float("nan"))]}, folder / "a.svg", ""),
        lambda folder: plot_dots({}, folder / "a.svg", "", ""),
        lambda folder: plot_dots({"a": float("inf")}, folder / "a.svg", "", ""),
        lambda folder: plot_dots({"a": 1.0}, folder / "a.gif", "", ""),
    ],
)
def test_values_that_axes_cannot_show_are_refused(plot, tmp_path):
    with pytest.raises(ConfigError, match="Received"):
        plot(tmp_path)
    assert not any(tmp_path.iterdir())
