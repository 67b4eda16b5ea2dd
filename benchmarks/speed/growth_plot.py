"""Growth curves as a small SVG that needs no style sheet. Both axes are logarithms: a straight line at 45
degrees is a cost in proportion."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from markupsafe import Markup, escape

from recloop.evaluation.charts import Scale

if TYPE_CHECKING:
    from benchmarks.speed.figures import Growth

WIDTH, HEIGHT = 520.0, 300.0
LEFT, RIGHT, TOP, BOTTOM = 64.0, 16.0, 40.0, 46.0
COLOURS = ("#2468a8", "#c05020", "#2e8b57", "#8a4fa0", "#7a7a20", "#505050")
STYLE = 'font-family="sans-serif" font-size="12" fill="#333"'


def growth_svg(growth: Growth) -> str:
    """The plot, its legend above it."""
    xs = [x for line in growth.lines for x in line.x]
    ys = [y for line in growth.lines for y in line.y]
    x_scale, y_scale = _scale(xs, LEFT, WIDTH - RIGHT), _scale(ys, HEIGHT - BOTTOM, TOP)
    parts = [_axes(growth, x_scale, y_scale, sorted(set(xs)))]
    for number, line in enumerate(growth.lines):
        colour = COLOURS[number % len(COLOURS)]
        dots = [(x_scale(math.log10(x)), y_scale(math.log10(y))) for x, y in zip(line.x, line.y, strict=True)]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in dots)
        parts.append(Markup('<polyline points="{}" fill="none" stroke="{}" stroke-width="2"/>').format(path, colour))
        parts += [Markup('<circle cx="{:.1f}" cy="{:.1f}" r="3" fill="{}"/>').format(x, y, colour) for x, y in dots]
        place = LEFT + number * (WIDTH - LEFT) / len(growth.lines)
        parts.append(Markup('<rect x="{:.0f}" y="8" width="10" height="10" fill="{}"/>').format(place, colour))
        parts.append(_text(place + 15, 17, line.name, "start"))
    return Markup(
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {:g} {:g}" role="img" aria-label="{}">'
        '<rect width="100%" height="100%" fill="#fff"/>{}</svg>'
    ).format(WIDTH, HEIGHT, escape(growth.title), Markup("").join(parts))


def _axes(growth: Growth, x_scale: Scale, y_scale: Scale, xs: list[float]) -> Markup:
    """Powers of ten across, the measured sizes below."""
    parts: list[Markup] = []
    for power in range(math.floor(y_scale.low), math.ceil(y_scale.high) + 1):
        if y_scale.low <= power <= y_scale.high:
            y = y_scale(power)
            parts.append(
                Markup('<line x1="{:.1f}" y1="{:.1f}" x2="{:.1f}" y2="{:.1f}" stroke="#ddd"/>').format(
                    LEFT, y, WIDTH - RIGHT, y
                )
            )
            parts.append(_text(LEFT - 6, y + 4, f"{10.0**power:g}", "end"))
    parts += [_text(x_scale(math.log10(x)), HEIGHT - BOTTOM + 18, f"{x:,g}", "middle") for x in xs]
    parts.append(_text((LEFT + WIDTH) / 2, HEIGHT - 8, growth.x_label, "middle"))
    turned = Markup('<g transform="translate(14 {:.0f}) rotate(-90)">{}</g>')
    parts.append(turned.format(HEIGHT / 2, _text(0, 0, growth.y_label, "middle")))
    return Markup("").join(parts)


def _scale(values: list[float], start: float, end: float) -> Scale:
    low, high = math.log10(min(values)), math.log10(max(values))
    room = (high - low) * 0.06 or 0.5
    return Scale(low - room, high + room, start, end)


def _text(x: float, y: float, text: str, reference_lm: str) -> Markup:
    return Markup('<text x="{:.1f}" y="{:.1f}" text-anchor="{}" ' + STYLE + ">{}</text>").format(
        x, y, reference_lm, text
    )
