"""Growth curves as SVG files. Both axes are logarithms: a slope of 1 is a cost in proportion to the size."""

from __future__ import annotations

from io import StringIO
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from benchmarks.speed.figures import Growth

STYLE: dict[Any, Any] = {
    "axes.spines.top": False,
    "axes.spines.right": False,
    "font.size": 9,
    "svg.fonttype": "none",  # text stays text
    "svg.hashsalt": "recloop",  # without it ids are random
}


def growth_svg(growth: Growth) -> str:
    """The plot with its legend; equal numbers give equal bytes."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator

    with rc_context(STYLE):
        figure = Figure(figsize=(5.6, 3.0), layout="constrained")
        axes = figure.add_subplot()
        for line in growth.lines:
            axes.plot(line.x, line.y, "o-", label=line.name, markersize=4)
        axes.set(xscale="log", yscale="log", title=growth.title, xlabel=growth.x_label, ylabel=growth.y_label)
        sizes = sorted({x for line in growth.lines for x in line.x})
        axes.set_xticks(sizes, [f"{x:,g}" for x in sizes])
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter("{x:g}")
        axes.minorticks_off()
        axes.grid(color="#e3e3df")
        axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
        text = StringIO()
        figure.savefig(text, format="svg", metadata={"Date": None})
        return text.getvalue()
