"""One HTML file that holds a whole study: tables, tests, curves, completions, costs. It requests nothing.

Every text is escaped by the template engine; drawings are made by `recloop.evaluation.charts`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from importlib.resources import files
from itertools import groupby
from typing import TYPE_CHECKING, Any

import jinja2
import numpy as np
from markupsafe import Markup

from recloop.evaluation import charts, labels
from recloop.evaluation import report_sections as parts
from recloop.evaluation.glossary import linked, used_terms
from recloop.evaluation.labels import VariantKind
from recloop.evaluation.significance import ALPHA, LEVEL, MAX_EXACT, MIN_SEEDS, Verdict
from recloop.evaluation.terminal import REPORT
from recloop.experiment.step import StepKind, Steps
from recloop.files import atomic_write_text
from recloop.progress import format_seconds

if TYPE_CHECKING:
    from pathlib import Path

    from recloop.evaluation.tables import VariantTable

REPORT_STEP = StepKind("report", is_cheap=True)
OTHERS_IN_MAIN = 3  # metrics beside the tested one in the main table; all are in the appendix
METRICS_PER_TABLE = 8  # of the appendix; what a printed page holds
ITEM_HEIGHT_PX = 30.0


def report_step(study: Steps, make: Callable[[], parts.Report]) -> None:
    """Write ``report.html`` into the run folder, once."""
    with study.step(REPORT_STEP, "", {"evaluate": study.run.digest("evaluate")}) as step:
        if not step.is_done:
            write_report(study.run.path, make())
            step.publish(REPORT)


def write_report(folder: Path, report: parts.Report) -> Path:
    """Write the report into this folder, over an older one; its path."""
    atomic_write_text(folder / REPORT, render_report(report))
    return folder / REPORT


def render_report(report: parts.Report) -> str:
    """The report as one HTML text."""
    folder = files("recloop.evaluation") / "templates"
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(lambda name: (folder / name).read_text(encoding="utf-8")),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    used: list[str] = []

    @jinja2.pass_context  # or else what a branch that is not taken says would be counted too
    def with_links(_: jinja2.runtime.Context, text: str) -> Markup:
        used.append(text)
        return linked(text)

    filters: dict[str, Any] = {
        "number": labels.number,
        "signed": labels.signed,
        "p_value": labels.p_value,
        "duration": format_seconds,
        "linked": with_links,
    }
    constants: dict[str, Any] = {"ALPHA": ALPHA, "LEVEL": LEVEL, "MAX_EXACT": MAX_EXACT, "MIN_SEEDS": MIN_SEEDS}
    environment.filters.update(filters)
    constants["used_terms"] = lambda: used_terms(used)  # asked by the glossary, which comes last
    environment.globals.update(constants)
    sections = [(section, [_draw(part) for part in section.parts]) for section in report.sections if section.parts]
    return environment.get_template("report.html.jinja").render(report=report, sections=sections)


def _draw(part: parts.Part) -> dict[str, Any]:
    """What the macro of a part's kind in the template is given."""
    return {"kind": type(part).__name__, "part": part, **_VALUES.get(type(part), lambda _: {})(part)}


def _style(verdict: Verdict) -> str:
    return verdict.value.replace(" ", "-")


def _worth(part: parts.Worth) -> dict[str, Any]:
    """Two drawings with the same rows, best first: what each variant scores, and the subject minus each."""
    table, subject = part.table, part.verdict.subject
    estimates, contrasts = table.main.estimates, {one.against: one for one in part.verdict.contrasts}
    names = sorted((subject, *contrasts), key=lambda name: -estimates[name].value)
    label_of = {name: table.labels[name].label for name in names}
    scores = [
        charts.RankedEstimate(
            label_of[name],
            estimates[name],
            f"{labels.short(estimates[name].value)} {labels.interval(estimates[name])}",
            "method" if name == subject else "other",
        )
        for name in names
        if name != labels.CHANCE
    ]
    differences = [
        charts.RankedEstimate(
            f"against {label_of[name]}",
            one.difference,
            f"{labels.short(one.difference.value, sign=True)} {labels.interval(one.difference)}",
            _style(one.verdict),
        )
        for name in names
        if (one := contrasts.get(name)) is not None
    ]
    metric = labels.metric_title(table.main.metric)
    chance = "" if table.chance is None else f"chance {labels.short(table.chance)}"
    return {
        "metric": metric,
        "subject": label_of[subject],
        "is_demonstration": table.main.is_demonstration,
        "unit": table.units.name,
        "scores": charts.ranking(scores, table.chance, chance, metric),
        "differences": charts.ranking(differences, 0.0, "no difference", f"{label_of[subject]} minus each, {metric}"),
    }


def _main_table(part: parts.MainTable) -> dict[str, Any]:
    table, main = part.table, part.table.main
    scale = charts.interval_scale(list(main.estimates.values()), with_zero=False)
    line_at = main.estimates[table.reference].value
    shown = table.others[:OTHERS_IN_MAIN]

    def line(name: str) -> dict[str, Any]:
        label, estimate = table.labels[name], main.estimates[name]
        plot = charts.interval(estimate, scale, line_at, label.kind.name.lower())
        values = [other.estimates[name].value for other in shown]
        return {"label": label, "estimate": estimate, "plot": plot, "others": values}

    return {
        "table": table,
        "conventions": labels.conventions(main, table.units.name),
        "metric": labels.metric_title(main.metric),
        "other_metrics": [labels.metric_title(other.metric) for other in shown],
        "reference": table.labels[table.reference].label,
        "axis": charts.interval_axis(scale),
        "groups": [
            {"kind": kind.value, "variants": [line(name) for name in group]}
            for kind, group in groupby(main.estimates, key=lambda name: table.labels[name].kind)
        ],
        "contrasts": _contrasts(table),
    }


def _contrasts(table: VariantTable) -> dict[str, Any] | None:
    contrasts = table.main.contrasts
    if not contrasts:
        return None
    scale = charts.interval_scale([contrast.difference for contrast in contrasts], with_zero=True)
    lines = [
        {
            "contrast": contrast,
            "name": table.labels[contrast.name].label,
            "against": table.labels[contrast.against].label,
            "seeds": labels.seeds_agree(contrast),
            "style": _style(contrast.verdict),
            "plot": charts.interval(contrast.difference, scale, 0.0, _style(contrast.verdict)),
        }
        for contrast in contrasts
    ]
    return {"axis": charts.interval_axis(scale), "lines": lines}


def _all_metrics(part: parts.AllMetrics) -> dict[str, Any]:
    """The metrics dealt evenly into tables that fit a page; the best of each column is marked."""
    table, comparisons, names = part.table, part.table.comparisons, list(part.table.main.estimates)
    values_VM = np.array([[one.estimates[name].value for one in comparisons] for name in names])
    aside = (VariantKind.BOUND, VariantKind.REWARD_MODEL)
    competes_V = np.array([table.labels[name].kind not in aside for name in names])
    best_M = values_VM[competes_V].max(axis=0, initial=-np.inf)
    is_best_VM = (values_VM == best_M) & competes_V[:, None]
    size = math.ceil(len(comparisons) / math.ceil(len(comparisons) / METRICS_PER_TABLE))
    cells_VM = [list(zip(*row, strict=True)) for row in zip(values_VM.tolist(), is_best_VM.tolist(), strict=True)]
    pages: list[dict[str, Any]] = []
    for start in range(0, len(comparisons), size):
        shown = slice(start, start + size)
        lines = [(table.labels[name].label, row[shown]) for name, row in zip(names, cells_VM, strict=True)]
        pages.append({"metrics": [labels.metric_title(one.metric) for one in comparisons[shown]], "lines": lines})
    return {"title": table.title, "metric": labels.metric_title(table.main.metric), "pages": pages}


def _glossary(part: parts.Glossary) -> dict[str, Any]:
    names = dict.fromkeys(one.metric for table in part.tables for one in table.comparisons)
    titles: dict[str, list[str]] = {}
    for name in names:
        titles.setdefault(labels.metric_meaning(name), []).append(labels.metric_title(name))
    metrics = [(", ".join(found), meaning) for meaning, found in titles.items()]
    found = [one for table in part.tables for one in table.labels.values() if one.kind is not VariantKind.REWARD_MODEL]
    variants = {one.name: one for one in found}
    return {"metrics": metrics, "variants": list(variants.values()), "config": part.tables[0].main.config}


def _charts(part: parts.Charts) -> dict[str, Any]:
    return {"figures": [(chart, charts.line_chart(chart)) for chart in part.charts]}


def _rewards(part: parts.RewardSummary) -> dict[str, Any]:
    rewards_UN = part.rewards.rewards_UN.astype(np.float64)
    metric = labels.reward_title(part.rewards.metric, part.is_cross_fitted)
    spread_U = rewards_UN.max(axis=1) - rewards_UN.min(axis=1)
    plots = [
        ("All completions", charts.histogram(rewards_UN.ravel(), f"reward ({metric})", "completions")),
        ("Best minus worst completion of each user", charts.histogram(spread_U, f"difference in {metric}", "users")),
    ]
    num_users, num_completions = rewards_UN.shape
    return {"metric": metric, "num_users": num_users, "num_completions": num_completions, "plots": plots}


def _user(part: parts.UserView) -> dict[str, Any]:
    completions = sorted(part.completions, key=lambda completion: -completion.reward)
    low, high = completions[-1].reward, completions[0].reward
    span = (high - low) or 1.0
    return {
        "metric": labels.reward_title(part.metric, part.is_cross_fitted),
        "completions": [(completion, round(100 * (completion.reward - low) / span)) for completion in completions],
    }


def _list(part: parts.ListView) -> dict[str, Any]:
    return {
        "metric": labels.metric_title(part.metric),
        "before": sorted(part.items, key=lambda item: item.before),
        "after": sorted(part.items, key=lambda item: item.after),
        "moves": charts.moves([(i.before, i.after, i.is_positive) for i in part.items], ITEM_HEIGHT_PX),
        "height": ITEM_HEIGHT_PX * len(part.items),
    }


def _costs(part: parts.Costs) -> dict[str, Any]:
    return {"total_wall_s": sum(cost.wall_s for cost in part.costs)}


_VALUES: Mapping[type, Callable[[Any], dict[str, Any]]] = {
    parts.Worth: _worth,
    parts.MainTable: _main_table,
    parts.AllMetrics: _all_metrics,
    parts.Glossary: _glossary,
    parts.Charts: _charts,
    parts.RewardSummary: _rewards,
    parts.UserView: _user,
    parts.ListView: _list,
    parts.Costs: _costs,
}
