"""Small SVG drawings for the report. Colours come from the page's style sheet, by class."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from markupsafe import Markup, escape

if TYPE_CHECKING:
    from jaxtyping import Float

    from recloop.evaluation.report_sections import Chart
    from recloop.evaluation.significance import Estimate

INTERVAL_W, INTERVAL_H, NUM_BINS = 220.0, 26.0, 24
RANKING_W, RANKING_TOP, ROW_H = 460.0, 20.0, 44.0
CHART_W, CHART_H = 460.0, 230.0
LEFT, RIGHT, TOP, BOTTOM = 52.0, 12.0, 12.0, 40.0


@dataclass(frozen=True, slots=True)
class RankedEstimate:
    """One row of `ranking`. told: the value in words; style: of the page's style sheet."""

    label: str
    estimate: Estimate
    told: str
    style: str


@dataclass(frozen=True, slots=True)
class Scale:
    """A linear map from values to pixels."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)


def interval_scale(estimates: Sequence[Estimate], *, with_zero: bool) -> Scale:
    """One scale for all intervals of a column, with room at both ends."""
    ends = [end for e in estimates for end in (e.low, e.high, e.value, *e.by_seed)] + [0.0] * with_zero
    room = (max(ends) - min(ends)) * 0.06 or 0.01
    return Scale(min(ends) - room, max(ends) + room, 4.0, INTERVAL_W - 4.0)


def interval(estimate: Estimate, scale: Scale, line_at: float, style: str) -> Markup:
    """A mean as a dot, its interval as a bar, its seeds as ticks, and a faint line to compare with."""
    middle = INTERVAL_H / 2
    x_low, x_high, x_mean = scale(estimate.low), scale(estimate.high), scale(estimate.value)
    bar = Markup('<rect class="bar" x="{:.1f}" y="{}" width="{:.1f}" height="6" rx="3"/>')
    parts = [
        _line("guide", scale(line_at), 0, scale(line_at), INTERVAL_H),
        bar.format(x_low, middle - 3, max(x_high - x_low, 1.0)),
    ]
    if len(estimate.by_seed) > 1:
        parts += [_line("seed", scale(seed), middle - 7, scale(seed), middle + 7) for seed in estimate.by_seed]
    parts.append(Markup('<circle class="dot" cx="{:.1f}" cy="{}" r="4"/>').format(x_mean, middle))
    label = f"{estimate.value:.4f}, interval {estimate.low:.4f} to {estimate.high:.4f}"
    return _svg(parts, INTERVAL_W, INTERVAL_H, f"interval {style}", label)


def interval_axis(scale: Scale) -> Markup:
    """The tick labels above a column of intervals."""
    parts = [
        _text("tick", min(max(scale(tick), 14.0), INTERVAL_W - 14.0), 12, _tick_text(tick))
        for tick in ticks(scale.low, scale.high, 5)
    ]
    return _svg(parts, INTERVAL_W, 16.0, "interval axis", "axis")


def ranking(rows: Sequence[RankedEstimate], line_at: float | None, line_label: str, about: str) -> Markup:
    """A row for each estimate: its words above, its value at the right, its interval below; one line to compare with.

    Args:
        line_at: where the line stands, e.g. chance; None for none.
        about: what is drawn, for those who do not see it.
    """
    ends = [end for row in rows for end in (row.estimate.low, row.estimate.high, row.estimate.value)]
    ends += [] if line_at is None else [line_at]
    room = (max(ends) - min(ends)) * 0.05 or 0.01
    scale = Scale(min(ends) - room, max(ends) + room, 4.0, RANKING_W - 4.0)
    bottom = RANKING_TOP + ROW_H * len(rows)
    parts: list[Markup] = []
    for tick in ticks(scale.low, scale.high, 5):
        parts.append(_line("grid", scale(tick), RANKING_TOP, scale(tick), bottom))
        parts.append(_text("tick", min(max(scale(tick), 14.0), RANKING_W - 14.0), bottom + 16, _tick_text(tick)))
    if line_at is not None:
        at = scale(line_at)
        parts.append(_line("chance", at, RANKING_TOP, at, bottom))
        side = "start" if at < RANKING_W / 2 else "end"
        parts.append(_text("label", at, RANKING_TOP - 6, line_label, side))
    for number, row in enumerate(rows):
        parts += _ranked(row, RANKING_TOP + ROW_H * number, scale)
    told = "; ".join(f"{row.label} {row.told}" for row in rows)
    return _svg(parts, RANKING_W, bottom + 22, "ranking", f"{about}: {told}")


def _ranked(row: RankedEstimate, top: float, scale: Scale) -> list[Markup]:
    one, middle = row.estimate, top + 28
    group = Markup('<g class="{}">{}</g>')
    bar = Markup('<rect class="bar" x="{:.1f}" y="{}" width="{:.1f}" height="6" rx="3"/>')
    dot = Markup('<circle class="dot" cx="{:.1f}" cy="{}" r="4.5"/>')
    drawn = [
        _text("name", 0, top + 17, row.label, "start"),
        _text("value", RANKING_W, top + 17, row.told, "end"),
        bar.format(scale(one.low), middle - 3, max(scale(one.high) - scale(one.low), 1.0)),
        dot.format(scale(one.value), middle),
    ]
    return [group.format(row.style, Markup("").join(drawn))]


def line_chart(chart: Chart) -> Markup:
    """Lines over shared axes; the legend is the page's."""
    xs = [x for curve in chart.curves for x in curve.x]
    ys = [y for curve in chart.curves for y in curve.y]
    x_scale, y_scale = _plot_scales((min(xs), max(xs)), _padded(min(ys), max(ys)))
    parts = _axes(x_scale, y_scale, chart.x_label, chart.y_label)
    line = Markup('<polyline class="line c{}" points="{}"/>')
    end = Markup('<circle class="end c{}" cx="{:.1f}" cy="{:.1f}" r="3"/>')
    for number, curve in enumerate(chart.curves):
        points = " ".join(f"{x_scale(x):.1f},{y_scale(y):.1f}" for x, y in zip(curve.x, curve.y, strict=True))
        parts.append(line.format(number % 6, points))
        parts.append(end.format(number % 6, x_scale(curve.x[-1]), y_scale(curve.y[-1])))
    return _svg(parts, CHART_W, CHART_H, "chart", f"{chart.title}: {chart.y_label} by {chart.x_label}")


def histogram(values_n: Float[np.ndarray, " n"], x_label: str, y_label: str) -> Markup:
    """Counts in equal bins; the mean as a line."""
    low, high = float(values_n.min()), float(values_n.max())
    if low == high:
        low, high = low - 0.5, high + 0.5
    counts, edges = np.histogram(values_n, bins=NUM_BINS, range=(low, high))
    x_scale, y_scale = _plot_scales((low, high), (0.0, float(counts.max()) * 1.06))
    parts = _axes(x_scale, y_scale, x_label, y_label)
    column = Markup('<rect class="column" x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}"/>')
    for count, start, end in zip(counts.tolist(), edges[:-1].tolist(), edges[1:].tolist(), strict=True):
        width, height = max(x_scale(end) - x_scale(start) - 1, 0.5), y_scale(0.0) - y_scale(count)
        parts.append(column.format(x_scale(start) + 0.5, y_scale(count), width, height))
    mean = float(values_n.mean())
    parts.append(_line("mean", x_scale(mean), TOP, x_scale(mean), CHART_H - BOTTOM))
    return _svg(parts, CHART_W, CHART_H, "chart", f"{y_label} by {x_label}, mean {mean:.3f}")


def moves(ranks: Sequence[tuple[int, int, bool]], row_height: float) -> Markup:
    """Lines from each item's rank before to its rank after; liked items stand out."""
    width, height = 90.0, row_height * len(ranks)
    path = Markup('<path class="{}" d="M0,{:.1f} C{half:.1f},{:.1f} {half:.1f},{:.1f} {:.1f},{:.1f}"/>')
    parts: list[Markup] = []
    for before, after, is_positive in sorted(ranks, key=lambda rank: rank[2]):
        style = "move liked" if is_positive else "move"
        y_from, y_to = (before - 0.5) * row_height, (after - 0.5) * row_height
        parts.append(path.format(style, y_from, y_from, y_to, width, y_to, half=width / 2))
    return _svg(parts, width, height, "moves", "ranks before and after")


def ticks(low: float, high: float, most: int) -> list[float]:
    """As many round numbers between `low` and `high` as fit, at most `most` (3 or more)."""
    power = 10.0 ** (math.floor(math.log10(high - low)) - 1)
    for step in (factor * power for factor in (1, 2, 2.5, 5, 10, 20, 25)):
        numbers = _multiples(low, high, step)
        if len(numbers) <= most:
            return [number * step for number in numbers]
    return [number * 50 * power for number in _multiples(low, high, 50 * power)]


def _multiples(low: float, high: float, step: float) -> range:
    return range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)


def _plot_scales(x_ends: tuple[float, float], y_ends: tuple[float, float]) -> tuple[Scale, Scale]:
    x_low, x_high = x_ends if x_ends[0] < x_ends[1] else (x_ends[0] - 0.5, x_ends[1] + 0.5)
    return Scale(x_low, x_high, LEFT, CHART_W - RIGHT), Scale(*y_ends, CHART_H - BOTTOM, TOP)


def _padded(low: float, high: float) -> tuple[float, float]:
    room = (high - low) * 0.08 or 0.05
    return low - room, high + room


def _axes(x_scale: Scale, y_scale: Scale, x_label: str, y_label: str) -> list[Markup]:
    left, right, bottom = LEFT, CHART_W - RIGHT, CHART_H - BOTTOM
    parts = [_line("axis", left, bottom, right, bottom)]
    for tick in ticks(y_scale.low, y_scale.high, 5):
        parts.append(_line("grid", left, y_scale(tick), right, y_scale(tick)))
        parts.append(_text("tick", left - 8, y_scale(tick) + 4, _tick_text(tick), "end"))
    for tick in ticks(x_scale.low, x_scale.high, 7):
        parts.append(_text("tick", x_scale(tick), bottom + 16, _tick_text(tick)))
    parts.append(_text("label", (left + right) / 2, CHART_H - 6, x_label))
    turned = Markup('<g transform="translate(12 {:.1f}) rotate(-90)">{}</g>')
    parts.append(turned.format((TOP + bottom) / 2, _text("label", 0, 0, y_label)))
    return parts


def _line(style: str, x1: float, y1: float, x2: float, y2: float) -> Markup:
    return Markup('<line class="{}" x1="{:.1f}" y1="{:.1f}" x2="{:.1f}" y2="{:.1f}"/>').format(style, x1, y1, x2, y2)


def _text(style: str, x: float, y: float, text: str, anchor: str = "middle") -> Markup:
    return Markup('<text class="{}" x="{:.1f}" y="{:.1f}" text-anchor="{}">{}</text>').format(style, x, y, anchor, text)


def _tick_text(tick: float) -> str:
    return f"{tick:.6g}".replace("-", "−") if abs(tick) > 1e-12 else "0"


def _svg(parts: Sequence[Markup], width: float, height: float, style: str, label: str) -> Markup:
    return Markup('<svg class="{}" viewBox="0 0 {:g} {:g}" role="img" aria-label="{}">{}</svg>').format(
        style, width, height, escape(label), Markup("").join(parts)
    )
