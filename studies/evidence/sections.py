"""What every section of the results page is made with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from studies.evidence.numbers import UnitResult
from studies.evidence.pooling import Evidence
from studies.evidence.wording import NOT_RUN

FIGURES = "results"  # folder of the figures, beside the page
PRIMARY_METRIC = "ndcg@5"
SHOWN_METRICS = ("ndcg@5", "map@5", "ndcg@10", "loglik")


@dataclass(frozen=True, slots=True)
class Part:
    """One section's lines, and the figures they show by file name."""

    lines: Sequence[str]
    figures: Mapping[str, str] = field(default_factory=dict[str, str])


def figure(name: str, title: str) -> list[str]:
    """The line that shows a figure."""
    return [f"![{title}]({FIGURES}/{name})", ""]


def not_run(evidence: Evidence, study: str, variant: str = "") -> list[str]:
    """A line for the panels of one variant that are missing; none when all are there."""
    missing = [
        state.unit.name for state in evidence.missing if (state.unit.study, state.unit.variant) == (study, variant)
    ]
    return [f"{NOT_RUN}: {', '.join(missing)}", ""] if missing else []


def first_variant(evidence: Evidence, study: str) -> str:
    """The variant a study's tables are of: its only one, or ``base``."""
    return "base" if evidence.studies[study].variants else ""


def main_results(evidence: Evidence, place: str) -> list[tuple[str, str, list[UnitResult]]]:
    """Study, variant and done units of every study of a part of the page."""
    return [
        (name, variant, evidence.of_study(name, variant))
        for name in evidence.of_place(place)
        for variant in [first_variant(evidence, name)]
    ]


def backbones_of(results: Sequence[UnitResult]) -> list[str]:
    """The evaluators that all these units have."""
    if not results:
        return []
    names = [table.ranker for table in results[0].tables if table.group == "test" and table.ranker != "reward_model"]
    return [name for name in names if all(result.table(name) for result in results)]
