"""What all sections of the results page use."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from studies.evidence.labels import NOT_RUN
from studies.evidence.numbers import RunNumbers
from studies.evidence.pooling import Evidence

FIGURES = "results"  # folder of the figures, beside the page
PRIMARY_METRIC = "ndcg@5"
SHOWN_METRICS = ("ndcg@5", "map@5", "ndcg@10", "loglik")


@dataclass(frozen=True, slots=True)
class Part:
    """One section's lines, and the figures in it by file name."""

    lines: Sequence[str]
    figures: Mapping[str, str] = field(default_factory=dict[str, str])


def figure(name: str, title: str) -> list[str]:
    """The line that shows a figure."""
    return [f"![{title}]({FIGURES}/{name})", ""]


def not_run(evidence: Evidence, study: str, setting: str = "") -> list[str]:
    """A line that names the missing runs of one setting; no line when all are done."""
    missing = [state.run.name for state in evidence.missing if (state.run.study, state.run.setting) == (study, setting)]
    return [f"{NOT_RUN}: {', '.join(missing)}", ""] if missing else []


def first_setting(evidence: Evidence, study: str) -> str:
    """The setting of a study's tables: its only one, or ``base``."""
    return "base" if evidence.studies[study].settings else ""


def main_results(evidence: Evidence, place: str) -> list[tuple[str, str, list[RunNumbers]]]:
    """Study, setting and done runs of every study of a part of the page."""
    return [
        (name, setting, evidence.of_study(name, setting))
        for name in evidence.of_place(place)
        for setting in [first_setting(evidence, name)]
    ]


def backbones_of(results: Sequence[RunNumbers]) -> list[str]:
    """The evaluation rerankers that all these runs have."""
    if not results:
        return []
    names = [table.ranker for table in results[0].tables if table.group == "test" and table.ranker != "reward_model"]
    return [name for name in names if all(result.table(name) for result in results)]
