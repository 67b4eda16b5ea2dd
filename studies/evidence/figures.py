"""The figures of the results page: SVG files that come out byte for byte equal for equal numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from io import StringIO
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLOURS = ("#2458a6", "#b4531a", "#2f7a4d", "#a83232", "#6d4aa2", "#1f7a80")
STYLE: dict[Any, Any] = {
    "axes.spines.top": False,
    "axes.spines.right": False,
    "font.size": 9,
    "svg.fonttype": "none",  # text stays text
    "svg.hashsalt": "recloop",  # without it ids are random
}


@dataclass(frozen=True, slots=True)
class Interval:
    """One line of an interval plot: a mean, its interval and the mean of each fold."""

    label: str
    value: float
    low: float
    high: float
    by_fold: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a line plot."""

    name: str
    x: tuple[float, ...]
    y: tuple[float, ...]


def interval_plot(intervals: Sequence[Interval], x_label: str) -> str:
    """An SVG with means as dots, intervals as bars, folds as ticks, and a line at 0."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with rc_context(STYLE):
        figure = Figure(figsize=(7.2, 0.9 + 0.26 * len(intervals)), layout="constrained")
        axes = figure.add_subplot()
        places = range(len(intervals))
        axes.axvline(0, color="#999", linewidth=1)
        axes.hlines(places, [i.low for i in intervals], [i.high for i in intervals], colors="#9db7dd", linewidth=5)
        for place, interval in enumerate(intervals):
            if len(interval.by_fold) > 1:
                axes.plot(interval.by_fold, [place] * len(interval.by_fold), "|", color="#777", markersize=10)
        axes.plot([i.value for i in intervals], places, "o", color=COLOURS[0], markersize=5)
        axes.set_yticks(places, [i.label for i in intervals])
        axes.set_ylim(len(intervals) - 0.4, -0.6)
        axes.grid(axis="x", color="#e3e3df")
        axes.set_axisbelow(True)
        axes.set_xlabel(x_label)
        return svg_of(figure)


def line_plot(lines: Sequence[Line], title: str, x_label: str, y_label: str) -> str:
    """An SVG with one line per series, points marked, and a legend; the x axis is a logarithm."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with rc_context(STYLE):
        figure = Figure(figsize=(5.6, 3.0), layout="constrained")
        axes = figure.add_subplot()
        for line, colour in zip(lines, COLOURS, strict=False):
            axes.plot(line.x, line.y, "o-", label=line.name, color=colour, markersize=4)
        sizes = sorted({x for line in lines for x in line.x})
        axes.set(title=title, xlabel=x_label, ylabel=y_label, xscale="log")
        axes.set_xticks(sizes, [f"{x:g}" for x in sizes])
        axes.minorticks_off()
        axes.grid(color="#e3e3df")
        axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
        return svg_of(figure)


def svg_of(figure: Figure) -> str:
    """The figure as SVG without a date."""
    text = StringIO()
    figure.savefig(text, format="svg", metadata={"Date": None})
    return text.getvalue()
