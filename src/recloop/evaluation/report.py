"""One HTML file that holds a whole study: tables, tests, curves, completions, costs. It requests nothing.

Every text is escaped by the template engine; drawings are made by `recloop.evaluation.charts`.
"""

from __future__ import annotations

import math
from importlib.resources import files
from itertools import groupby
from typing import TYPE_CHECKING, Any

import jinja2
import numpy as np

from recloop.errors import SettingError
from recloop.evaluation import charts
from recloop.evaluation import labels as wording
from recloop.evaluation.report_sections import VariantKind
from recloop.evaluation.significance import Verdict

if TYPE_CHECKING:
    from pathlib import Path

    from markupsafe import Markup

    from recloop.evaluation.report_sections import (
        Chart,
        ListView,
        ReportData,
        RewardSection,
        TableSection,
        UserView,
    )
    from recloop.evaluation.significance import Comparison, Contrast, RowEstimate

OTHERS_IN_MAIN = 3  # metrics beside the tested one in the main table; all are in the appendix
PRIMARY_METRICS = 3  # contrasts of each table that are told in a sentence at the top
METRICS_PER_TABLE = 8  # of the appendix; what a printed page holds
LIST_ROW_PX = 30.0


def write_report(path: Path, data: ReportData) -> None:
    """Write the report, over an older one.

    Raises:
        SettingError: a row of a table has no words, or a reference is no row.
    """
    path.write_text(render_report(data), encoding="utf-8")


def render_report(data: ReportData) -> str:
    """The report as one HTML text.

    Raises:
        SettingError: a row of a table has no words, or a reference is no row.
    """
    _check(data)
    folder = files("recloop.evaluation") / "templates"
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(lambda name: (folder / name).read_text(encoding="utf-8")),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        number=wording.number, signed=wording.signed, p_value=wording.p_value, duration=wording.duration
    )
    return environment.get_template("report.html.jinja").render(
        data=data,
        is_demonstration=any(table.main.is_demonstration for table in data.tables),
        primary_metrics=[
            {
                "table": table.title,
                "claims": [_claim(c, table.main, data) for c in table.main.contrasts[:PRIMARY_METRICS]],
            }
            for table in data.tables
            if table.main.contrasts
        ],
        tables=[_table(table, data) for table in data.tables],
        metrics=_metrics(data),
        fits=[_chart(chart) for chart in data.fits],
        rewards=[_reward(section) for section in data.rewards],
        training=[_chart(chart) for chart in data.training],
        users=[_user(user) for user in data.users],
        lists=[_list(view, data) for view in data.lists],
        extras=[(section, [_chart(chart) for chart in section.charts]) for section in data.extras],
        total_wall_s=sum(cost.wall_s for cost in data.costs),
    )


def _check(data: ReportData) -> None:
    for table in data.tables:
        table.main.row(table.reference)
        missing = [row.name for row in table.main.rows if row.name not in data.words]
        if missing:
            raise SettingError(
                f"every row of a report needs its title and sentence, got none for {', '.join(missing)}; "
                f"add them to ReportData.words"
            )


def _claim(contrast: Contrast, table: Comparison, data: ReportData) -> dict[str, Any]:
    relation = {
        Verdict.BETTER: "is better than",
        Verdict.WORSE: "is worse than",
        Verdict.NOT_SHOWN: "is not shown to differ from",
        Verdict.TOO_FEW_SEEDS: "against",
    }[contrast.verdict]
    return {
        "contrast": contrast,
        "name": data.words[contrast.name].title,
        "relation": relation,
        "against": data.words[contrast.against].title,
        "metric": wording.metric_title(table.metric),
        "seeds": wording.seeds_agree(contrast),
        "style": _verdict_style(contrast.verdict),
    }


def _table(section: TableSection, data: ReportData) -> dict[str, Any]:
    main = section.main
    row_scale = charts.interval_scale([row.estimate for row in main.rows], with_zero=False)
    line_at = main.row(section.reference).estimate.value
    shown = section.others[:OTHERS_IN_MAIN]

    def line(row: RowEstimate) -> dict[str, Any]:
        words = data.words[row.name]
        return {
            "words": words,
            "estimate": row.estimate,
            "plot": charts.interval(row.estimate, row_scale, line_at, words.kind.name.lower()),
            "others": [other.row(row.name).estimate.value for other in shown],
        }

    return {
        "title": section.title,
        "conventions": wording.conventions(main, section.unit),
        "unit": section.unit,
        "metric": wording.metric_title(main.metric),
        "other_metrics": [wording.metric_title(other.metric) for other in shown],
        "reference": data.words[section.reference].title,
        "axis": charts.interval_axis(row_scale),
        "groups": [
            {"kind": kind.value, "rows": [line(row) for row in rows]}
            for kind, rows in groupby(main.rows, key=lambda row: data.words[row.name].kind)
        ],
        "contrasts": _contrasts(main, data),
        "appendix": _appendices((main, *section.others), data),
        "config": main.config,
    }


def _contrasts(table: Comparison, data: ReportData) -> dict[str, Any] | None:
    if not table.contrasts:
        return None
    scale = charts.interval_scale([contrast.difference for contrast in table.contrasts], with_zero=True)
    return {
        "axis": charts.interval_axis(scale),
        "rows": [
            _claim(contrast, table, data)
            | {"plot": charts.interval(contrast.difference, scale, 0.0, _verdict_style(contrast.verdict))}
            for contrast in table.contrasts
        ],
    }


def _verdict_style(verdict: Verdict) -> str:
    return verdict.value.replace(" ", "-")


def _appendices(tables: tuple[Comparison, ...], data: ReportData) -> list[dict[str, Any]]:
    """The metrics dealt evenly into tables that fit a page."""
    num_parts = math.ceil(len(tables) / METRICS_PER_TABLE)
    size = math.ceil(len(tables) / num_parts)
    return [_appendix(tables[start : start + size], data) for start in range(0, len(tables), size)]


def _appendix(tables: tuple[Comparison, ...], data: ReportData) -> dict[str, Any]:
    names = [row.name for row in tables[0].rows]
    values_RM = np.array([[table.row(name).estimate.value for table in tables] for name in names])
    competes_R = [data.words[name].kind not in (VariantKind.BOUND, VariantKind.REWARD_MODEL) for name in names]
    best_M = values_RM[competes_R].max(axis=0, initial=-np.inf)
    return {
        "metrics": [wording.metric_title(table.metric) for table in tables],
        "rows": [
            {
                "title": data.words[name].title,
                "values": values_RM[r].tolist(),
                "best": ((values_RM[r] == best_M) & competes_R[r]).tolist(),
            }
            for r, name in enumerate(names)
        ],
    }


def _metrics(data: ReportData) -> list[tuple[str, str]]:
    names = dict.fromkeys(table.metric for section in data.tables for table in (section.main, *section.others))
    meanings: dict[str, list[str]] = {}
    for name in names:
        meanings.setdefault(wording.metric_meaning(name), []).append(wording.metric_title(name))
    return [(", ".join(titles), meaning) for meaning, titles in meanings.items()]


def _chart(chart: Chart) -> dict[str, Any]:
    return {
        "title": chart.title,
        "curves": [curve.name for curve in chart.curves],
        "svg": charts.line_chart(chart),
    }


def _reward(section: RewardSection) -> dict[str, Any]:
    rewards_UN = section.rewards.rewards_UN.astype(np.float64)
    metric = wording.reward_title(section.rewards.metric, section.is_predicted)
    spread_U = rewards_UN.max(axis=1) - rewards_UN.min(axis=1)
    plots: list[tuple[str, Markup]] = [
        ("All completions", charts.histogram(rewards_UN.ravel(), f"reward ({metric})", "completions")),
        (
            "Best minus worst completion of each user",
            charts.histogram(spread_U, f"difference in {metric}", "users"),
        ),
    ]
    return {
        "round": section.rewards.round,
        "metric": metric,
        "num_users": len(rewards_UN),
        "num_completions": rewards_UN.shape[1],
        "reliability": section.reliability,
        "pairs": section.pairs,
        "plots": plots,
    }


def _user(user: UserView) -> dict[str, Any]:
    completions = sorted(user.completions, key=lambda completion: -completion.reward)
    low, high = completions[-1].reward, completions[0].reward
    span = (high - low) or 1.0
    return {
        "user": user.user,
        "history": user.history,
        "metric": wording.reward_title(user.metric, user.is_predicted),
        "completions": [(completion, round(100 * (completion.reward - low) / span)) for completion in completions],
    }


def _list(view: ListView, data: ReportData) -> dict[str, Any]:
    return {
        "view": view,
        "metric": wording.metric_title(view.metric),
        "before_title": data.words[view.before].title,
        "after_title": data.words[view.after].title,
        "before": sorted(view.items, key=lambda item: item.before),
        "after": sorted(view.items, key=lambda item: item.after),
        "moves": charts.moves([(i.before, i.after, i.is_positive) for i in view.items], LIST_ROW_PX),
        "height": LIST_ROW_PX * len(view.items),
    }
