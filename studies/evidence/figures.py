"""The figures of the results page: SVG files that stand alone, readable on light and dark pages."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from recloop.evaluation.charts import CHART_H, CHART_W, Scale, line_chart, ticks
from recloop.evaluation.report_sections import Chart

if TYPE_CHECKING:
    from markupsafe import Markup

STYLE = (
    "text{font:12px Helvetica,Arial,sans-serif;fill:#333}.tick,.label{fill:#666;font-size:11px}"
    ".grid{stroke:#e3e3df}.axis,.guide{stroke:#999}.line{fill:none;stroke-width:2}.seed{stroke:#777}"
    ".c0{stroke:#2458a6}.c1{stroke:#b4531a}.c2{stroke:#2f7a4d}.c3{stroke:#a83232}.c4{stroke:#6d4aa2}"
    ".c5{stroke:#1f7a80}.end.c0,.key.c0{fill:#2458a6}.end.c1,.key.c1{fill:#b4531a}"
    ".end.c2,.key.c2{fill:#2f7a4d}.end.c3,.key.c3{fill:#a83232}.end.c4,.key.c4{fill:#6d4aa2}"
    ".end.c5,.key.c5{fill:#1f7a80}.bar{fill:#9db7dd}.dot{fill:#2458a6}"
)
LABEL_W, PLOT_W, ROW_H, AXIS_H, KEY_H = 250.0, 400.0, 24.0, 26.0, 18.0
MOST_TICKS = 6


@dataclass(frozen=True, slots=True)
class Bar:
    """One line of an interval plot; ticks are the means of the panels."""

    label: str
    value: float
    low: float
    high: float
    by_panel: tuple[float, ...]


def interval_plot(bars: Sequence[Bar], x_label: str) -> str:
    """Means as dots, intervals as bars, panels as ticks, and a line at 0."""
    from markupsafe import Markup

    ends = [end for bar in bars for end in (bar.low, bar.high, *bar.by_panel)] + [0.0]
    room = (max(ends) - min(ends)) * 0.06 or 0.01
    scale = Scale(min(ends) - room, max(ends) + room, LABEL_W, LABEL_W + PLOT_W)
    bottom = ROW_H * len(bars) + 6
    parts = [
        Markup('<line class="grid" x1="{0:.1f}" y1="0" x2="{0:.1f}" y2="{1:.1f}"/>').format(scale(tick), bottom)
        + Markup('<text class="tick" x="{:.1f}" y="{:.1f}" text-anchor="middle">{:+.4g}</text>').format(
            scale(tick), bottom + 14, tick
        )
        for tick in ticks(scale.low, scale.high, MOST_TICKS)
    ]
    parts.append(
        Markup('<line class="guide" x1="{0:.1f}" y1="0" x2="{0:.1f}" y2="{1:.1f}"/>').format(scale(0.0), bottom)
    )
    for place, bar in enumerate(bars):
        parts.append(_interval(bar, scale, ROW_H * (place + 0.5) + 4))
    label = Markup('<text class="label" x="{:.1f}" y="{:.1f}" text-anchor="middle">{}</text>')
    parts.append(label.format(LABEL_W + PLOT_W / 2, bottom + AXIS_H + 4, x_label))
    width, height = LABEL_W + PLOT_W + 14, bottom + AXIS_H + 10
    return _alone(Markup("").join(parts), width, height, x_label)


def lines(chart: Chart) -> str:
    """A line chart of the reports with its legend under it."""
    from markupsafe import Markup

    key = Markup("").join(
        Markup('<rect class="key c{}" x="{}" y="{:.1f}" width="10" height="10"/>').format(
            place % 6, 20, CHART_H + KEY_H * place + 6
        )
        + Markup('<text x="36" y="{:.1f}">{}</text>').format(CHART_H + KEY_H * place + 15, curve.name)
        for place, curve in enumerate(chart.curves)
    )
    inner = Markup('<svg width="{:g}" height="{:g}"').format(CHART_W, CHART_H)
    drawn = Markup(str(line_chart(chart)).replace("<svg", str(inner), 1))
    return _alone(drawn + key, CHART_W, CHART_H + KEY_H * len(chart.curves) + 10, chart.title)


def _interval(bar: Bar, scale: Scale, y: float) -> Markup:
    from markupsafe import Markup

    parts = [
        Markup('<text x="{:.1f}" y="{:.1f}" text-anchor="end">{}</text>').format(LABEL_W - 10, y + 4, bar.label),
        Markup('<rect class="bar" x="{:.1f}" y="{:.1f}" width="{:.1f}" height="6" rx="3"/>').format(
            scale(bar.low), y - 3, max(scale(bar.high) - scale(bar.low), 1.0)
        ),
    ]
    parts += [
        Markup('<line class="seed" x1="{0:.1f}" y1="{1:.1f}" x2="{0:.1f}" y2="{2:.1f}"/>').format(
            scale(mean), y - 7, y + 7
        )
        for mean in bar.by_panel
        if len(bar.by_panel) > 1
    ]
    parts.append(Markup('<circle class="dot" cx="{:.1f}" cy="{:.1f}" r="4"/>').format(scale(bar.value), y))
    return Markup("").join(parts)


def _alone(content: Markup, width: float, height: float, label: str) -> str:
    """A whole SVG file: name space, style and a white ground of its own."""
    from markupsafe import Markup

    head = Markup(
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {0:g} {1:g}" width="{0:g}" height="{1:g}" '
        'role="img" aria-label="{2}"><style>{3}</style><rect width="100%" height="100%" fill="#fff"/>'
    ).format(width, height, label, STYLE)
    return f"{head}{content}</svg>\n"
