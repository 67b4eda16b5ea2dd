"""Writes one page from the parts' files: a table, explanations, profiles, plots."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from pydantic import ValidationError

from benchmarks.speed.figures import (
    ALL_PARTS,
    FOLDER,
    Figure,
    Growth,
    Machine,
    PartResult,
    Products,
    Profile,
    Target,
)
from benchmarks.speed.growth_plot import growth_svg
from recloop.errors import DataError
from recloop.files import atomic_write_text
from recloop.progress import format_seconds

PAGE = "benchmarks.md"
HEAD = """\
# Benchmarks

Written by `python -m benchmarks.speed`; do not edit. Every ratio is ours against a named alternative; both take turns
in one run on one machine. Where they did different amounts of work, their rates are compared. The table has the median
and, in brackets, the range over the repetitions. The numbers are in `benchmarks/`, one JSON file per part.
`python -m benchmarks.speed --parts metrics,rewards --out docs` measures two parts again and keeps the others.
"""


def read_parts(folder: Path) -> list[PartResult]:
    """The records of all parts' files, in the order of the benchmark.

    Raises:
        DataError: a file is not that of a part.
    """
    found: list[PartResult] = []
    for part in ALL_PARTS:
        file = folder / f"{part}.json"
        if not file.is_file():
            continue
        try:
            found.append(PartResult.model_validate_json(file.read_text(encoding="utf-8")))
        except (ValidationError, json.JSONDecodeError) as error:
            raise DataError(
                f"{file} must hold a part of the speed benchmark, got another format "
                f"({str(error).splitlines()[0]}); remove it and measure the part again"
            ) from error
    return found


def write_page(out: Path) -> None:
    """Write ``benchmarks.md`` and the plots from the parts' files in ``out/benchmarks``."""
    parts = read_parts(out / FOLDER)
    lines = [HEAD, table(parts), "", missing_targets(parts), *machines(parts)]
    for part in parts:
        lines += section(part)
        for number, growth in enumerate(part.findings.growths):
            name = f"{part.part}-{number}.svg"
            atomic_write_text(out / FOLDER / name, growth_svg(growth) + "\n")
            lines += [f"![{growth.title}]({FOLDER}/{name})", "", growth_text(growth), ""]
    atomic_write_text(out / PAGE, "\n".join(lines).rstrip() + "\n")


def table(parts: Sequence[PartResult]) -> str:
    """A Markdown table with a line per figure."""
    rows = ["| path | recloop | against | times faster | equal | target |", "|---|---|---|---|---|---|"]
    for part in parts:
        for figure in part.findings.figures:
            trial = f" (trial: {part.share:.3g} of the work)" if part.share < 1 else ""
            cells = (
                figure.name + trial,
                rate_text(figure.ours.rates, figure.unit),
                "" if figure.against is None else against_text(figure),
                ratio_text(figure),
                "; ".join(f"{'yes' if c.holds else '**NO**'}: {c.what} {c.value:.2g}" for c in figure.checks),
                "; ".join(target_text(target) for target in figure.targets),
            )
            rows.append("| " + " | ".join(cells) + " |")
    return "\n".join(rows)


def against_text(figure: Figure) -> str:
    """The alternative and its rate."""
    assert figure.against is not None
    return f"{figure.against.name}: {rate_text(figure.against.rates, figure.unit)}"


def rate_text(rates: np.ndarray, unit: str) -> str:
    """Median and range of a rate."""
    median, low, high = np.median(rates), rates.min(), rates.max()
    digits = 0 if median >= 100 else 2
    return f"{median:,.{digits}f} {unit}/s ({low:,.{digits}f} to {high:,.{digits}f})"


def ratio_text(figure: Figure) -> str:
    """Median and range of the ratio; empty without an alternative."""
    ratios = figure.ratios
    if ratios is None:
        return ""
    return f"{np.median(ratios):.3g} ({ratios.min():.3g} to {ratios.max():.3g})"


def target_text(target: Target) -> str:
    """The limit, the value, and whether the target is met."""
    verdict = "met" if target.is_met else "**missed**"
    unit = f" {target.unit}" if target.unit else ""
    return f"{target.what} {target.wanted} {target.limit:,g}{unit}: {target.value:,.4g}, {verdict}"


def missing_targets(parts: Sequence[PartResult]) -> str:
    """A sentence on how many targets are met, and which parts were not measured."""
    targets = [target for part in parts for figure in part.findings.figures for target in figure.targets]
    met = sum(target.is_met for target in targets)
    absent = [name for name in ALL_PARTS if name not in {part.part for part in parts}]
    not_measured = f" Not measured yet: {', '.join(absent)}." if absent else ""
    return f"{met} of {len(targets)} targets are met.{not_measured}\n"


def machines(parts: Sequence[PartResult]) -> list[str]:
    """A paragraph per machine with the parts measured there."""
    if not parts:
        return []
    lines = ["## Machines", ""]
    by_machine: dict[str, list[str]] = {}
    for part in parts:
        limits = (
            f"{part.part} ({part.taken}, load {_load(part.machine)}, {part.repetitions} repetitions, "
            f"{format_seconds(part.wall_s)}; {part.machine.matmul_gflops:,.0f} GFLOP/s, "
            f"{part.machine.copy_gb_s:.1f} GB/s)"
        )
        by_machine.setdefault(machine_text(part.machine), []).append(limits)
    for machine, names in by_machine.items():
        lines += [f"{machine}", "", *(f"- {name}" for name in names), ""]
    lines += [
        "GFLOP/s is that of a product of two 1024 x 1024 float32 matrices, GB/s that of a copy, just before the part.",
        "",
    ]
    return lines


def machine_text(machine: Machine) -> str:
    """The machine, its threads and the versions in a sentence."""
    versions = ", ".join(f"{name} {number}" for name, number in machine.versions.items())
    variables = ", ".join(f"{name}={value}" for name, value in machine.environment.items()) or "none"
    return (
        f"{machine.processor}, {machine.cores} cores, {machine.threads} threads, {machine.memory_gb:g} GB. "
        f"Set: {variables}. {versions}."
    )


def section(part: PartResult) -> list[str]:
    """The lines on one part: what bounds it, its notes and its profiles."""
    findings = part.findings
    lines = [f"## {part.part}", ""]
    if findings.bound:
        lines += [findings.bound, ""]
    notes = [f"- {figure.name}: {note}" for figure in findings.figures for note in figure.notes]
    notes += [
        f"- {figure.name}: {products_text(figure.products, figure.unit, part.machine)}"
        for figure in findings.figures
        if figure.products
    ]
    lines += [*notes, ""] if notes else []
    for profile in findings.profiles:
        lines += profile_text(profile, part.machine)
    return lines


def products_text(products: Products, unit: str, machine: Machine) -> str:
    """The rate that the matrix products would allow at the machine's limit, and their ratio."""
    return (
        f"matrix products of 1,000 {unit} {products.ours / 1e6:,.3g} GFLOP, alternative "
        f"{products.against / 1e6:,.3g} GFLOP, {products.against / products.ours:.3g} times as many; at the "
        f"machine's limit at most {machine.matmul_gflops * 1e9 / products.ours:,.0f} {unit}/s"
    )


def profile_text(profile: Profile, machine: Machine) -> list[str]:
    """A profile as a Markdown table."""
    head = f"Where the time goes: {profile.path}"
    if profile.gflops is not None:
        share = profile.gflops / machine.matmul_gflops
        head += f". Matrix products: {profile.gflops:.1f} GFLOP/s over its whole time, {share:.0%} of the limit"
    rows = [f"| `{name}` | {own_ms:,.1f} | {share:.0%} |" for name, own_ms, share in profile.rows]
    return [head + ".", "", "| operation | own ms | share |", "|---|---|---|", *rows, ""]


def growth_text(growth: Growth) -> str:
    """The curves as numbers, with the slope of each in logarithms; 1 is linear."""
    lines: list[str] = []
    for line in growth.lines:
        points = ", ".join(f"{x:,g}: {y:.3g}" for x, y in zip(line.x, line.y, strict=True))
        slope = ""
        if len(line.x) > 1:
            power = np.polyfit(np.log(line.x), np.log(line.y), 1)[0]
            slope = f"; grows with the power {power:.2f}"
        lines.append(f"- {growth.y_label} by {growth.x_label}, {line.name}: {points}{slope}")
    return "\n".join(lines)


def _load(machine: Machine) -> str:
    return "unknown" if machine.load is None else f"{machine.load:.1f}"
