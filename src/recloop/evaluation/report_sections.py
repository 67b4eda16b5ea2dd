"""What a report shows: frozen records, filled by a method and drawn by `recloop.evaluation.report`.

A report is a list of sections; a section is a list of parts. A method says its own sections, and `run_report` adds
those that every method has: the verdict and what it is made from stand first, the rest is folded below.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from recloop.errors import DataError
from recloop.evaluation.tables import VariantTable, below_chance
from recloop.evaluation.terminal import read_results
from recloop.evaluation.verdict import PlainVerdict, verdicts
from recloop.experiment.reuse import own_steps, reused_in_words
from recloop.experiment.run_folder import METRICS
from recloop.llm.server.cost import describe_server_usage

if TYPE_CHECKING:
    from recloop.experiment.run_folder import RunFolder
    from recloop.records import Rewards
    from recloop.rewards.preference_pairs import PairSet
    from recloop.rewards.reliability import Reliability


@dataclass(frozen=True, slots=True)
class Note:
    """A paragraph that says how to read what follows."""

    text: str


@dataclass(frozen=True, slots=True)
class Curve:
    """One line of a chart: at least one point, all of them finite."""

    name: str
    x: tuple[float, ...]
    y: tuple[float, ...]

    def __post_init__(self) -> None:
        if not self.x or len(self.x) != len(self.y) or not all(map(math.isfinite, (*self.x, *self.y))):
            raise DataError(
                f"a curve needs as many finite y as x and at least one, got {len(self.x)} x and "
                f"{len(self.y)} y for {self.name!r}; leave out steps that logged nothing"
            )


@dataclass(frozen=True, slots=True)
class Chart:
    """Lines, at least one, that share their axes."""

    title: str
    x_label: str
    y_label: str
    curves: tuple[Curve, ...]

    def __post_init__(self) -> None:
        if not self.curves:
            raise DataError(f"chart {self.title!r} needs at least one curve, got none; leave the chart out")


@dataclass(frozen=True, slots=True)
class Charts:
    """Charts side by side."""

    charts: tuple[Chart, ...]


@dataclass(frozen=True, slots=True)
class PlainTable:
    """A small table as text: a heading per column, cells by row."""

    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True, slots=True)
class Verdicts:
    """What the run found, in plain sentences; the tables' titles where there are several tables."""

    verdicts: tuple[PlainVerdict, ...]


@dataclass(frozen=True, slots=True)
class Worth:
    """The variant that a table is about beside everything it is tested against, in one figure."""

    table: VariantTable
    verdict: PlainVerdict


@dataclass(frozen=True, slots=True)
class Facts:
    """What was run: label and value, e.g. ``("Data", "MovieLens-1M, 6,040 users")``."""

    facts: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class MainTable:
    """A table of variants with intervals, and its contrasts."""

    table: VariantTable


@dataclass(frozen=True, slots=True)
class AllMetrics:
    """Every metric of a table, without tests."""

    table: VariantTable


@dataclass(frozen=True, slots=True)
class Glossary:
    """What the words of the page, its metrics and variants mean, and how scores, intervals and tests are made."""

    tables: tuple[VariantTable, ...]


@dataclass(frozen=True, slots=True)
class RewardSummary:
    """The rewards of one round, how reliable the measured ones are, and the pairs made of them.

    reliability: None for rewards that no reward model gave.
    is_cross_fitted: the rewards are predicted from other users' completions (`cross_fit_rewards`).
    """

    rewards: Rewards
    reliability: Reliability | None
    pairs: PairSet
    is_cross_fitted: bool = False


@dataclass(frozen=True, slots=True)
class CompletionView:
    """One completion as it was written, and its reward."""

    text: str
    reward: float
    mark: Literal["chosen", "rejected", ""]


@dataclass(frozen=True, slots=True)
class UserView:
    """One reward user: what the language model was shown and what it wrote. Items are oldest first."""

    user: str
    history: tuple[tuple[str, float | None], ...]  # title, rating (None when implicit)
    metric: str
    completions: tuple[CompletionView, ...]
    is_cross_fitted: bool = False  # as of RewardSummary


@dataclass(frozen=True, slots=True)
class RankedItem:
    """One candidate; ranks count from 1."""

    title: str
    is_positive: bool
    before: int
    after: int


@dataclass(frozen=True, slots=True)
class ListView:
    """One test list as two variants rank it; `before` and `after` are their labels."""

    user: str
    before: str
    after: str
    metric: str
    before_value: float
    after_value: float
    items: tuple[RankedItem, ...]


@dataclass(frozen=True, slots=True)
class StepCost:
    """What the steps of one verb took; None where it does not apply."""

    verb: str
    wall_s: float
    num_tokens: int | None
    peak_memory_mib: float | None


@dataclass(frozen=True, slots=True)
class Costs:
    """What a run took, verb by verb."""

    costs: tuple[StepCost, ...]


Part = (
    Note | Charts | PlainTable | Verdicts | Worth | Facts | MainTable | AllMetrics | Glossary | RewardSummary | UserView
    | ListView | Costs
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Section:
    """One section of a report; without parts it is left out.

    anchor: names it in links.
    is_open: it stands open near the top; others are folded, all of them open on paper.
    """

    anchor: str
    title: str
    parts: tuple[Part, ...]
    is_open: bool = False


@dataclass(frozen=True, slots=True)
class Report:
    """Everything a report shows.

    summary: what kind of run it was.
    versions: of packages, by name.
    """

    title: str
    summary: str
    sections: tuple[Section, ...]
    versions: Mapping[str, str]


def run_report(
    run: RunFolder,
    title: str,
    summary: str,
    facts: Sequence[tuple[str, str]],
    tables: Sequence[VariantTable],
    sections: Sequence[Section],
) -> Report:
    """The report of a run: what its method says, between what every method has."""
    steps: Mapping[str, Mapping[str, Any]] = run.manifest["steps"]
    shared = [("Seeds", ", ".join(map(str, run.config["seeds"])))]
    shared += [("Reused", line) for line in reused_in_words(steps)]
    shared += [("Sampling", line) for line in describe_server_usage(own_steps(steps))]
    opening = opening_sections(tables, read_results(run.path, run.manifest))
    closing = (preflight_section(steps.get("preflight", {})), *closing_sections(tables, steps, (*facts, *shared)))
    return Report(title, summary, in_page_order(*opening, *sections, *closing), run.manifest["versions"])


def in_page_order(*sections: Section) -> tuple[Section, ...]:
    """Those that stand open, the folded ones, and the glossary, to which all link."""
    return tuple(sorted(sections, key=lambda one: (one.anchor == "words", not one.is_open)))


def opening_sections(tables: Sequence[VariantTable], results: Mapping[str, Any]) -> tuple[Section, ...]:
    """What the run found, the figure that shows it, and the tables.

    Args:
        results: of results.json.
    """
    told = tuple(Note(f"{table.title}. {text}") for table in tables if (text := below_chance(table)))
    found = verdicts(results)
    tested = (table for table in tables if table.main.contrasts)
    worth = tuple(Worth(table, one) for table, one in zip(tested, found, strict=True))
    return (
        Section("verdict", "Verdict", (Verdicts(found),), is_open=True),
        Section("worth", "Is it worth it", worth, is_open=True),
        Section("tables", "Tables and tests", told + tuple(map(MainTable, tables))),
    )


def preflight_section(made: Mapping[str, Any]) -> Section:
    """What was found in the completions that were checked first; empty where none was."""
    if "findings" not in made:
        return Section("preflight", "Before the run", ())
    rows = tuple(tuple(row) for row in made["findings"])
    caption = f"{made['num_checked']} completions of the language model, before any training"
    return Section(
        "preflight", "Before the run", (PlainTable(caption, ("Share", "Found", "Bound", "Beyond it"), rows),)
    )


def closing_sections(
    tables: Sequence[VariantTable], steps: Mapping[str, Mapping[str, Any]], facts: Sequence[tuple[str, str]]
) -> tuple[Section, ...]:
    """All metrics, what was run and what it took, and what the words mean.

    Args:
        steps: of the run's manifest.
        facts: as of `Facts`.
    """
    return (
        Section("metrics", "All metrics", tuple(map(AllMetrics, tables))),
        Section("run", "What was run", (Facts(tuple(facts)),)),
        Section("cost", "Cost", (Costs(step_costs(steps)),)),
        Section("words", "What the words mean", (Glossary(tuple(tables)),), is_open=True),
    )


def step_costs(steps: Mapping[str, Mapping[str, Any]]) -> tuple[StepCost, ...]:
    """Time, tokens and memory by verb, all seeds and variants together; without what another run did."""
    costs: dict[str, StepCost] = {}
    for name, entry in own_steps(steps).items():
        verb = name.partition(".")[0]
        old = costs.get(verb, StepCost(verb, 0.0, None, 0.0))
        tokens = entry.get("tokens")
        costs[verb] = StepCost(
            verb,
            old.wall_s + entry["wall_s"],
            old.num_tokens if tokens is None else (old.num_tokens or 0) + tokens,
            max(old.peak_memory_mib or 0.0, entry["peak_memory_bytes"] / 2**20),
        )
    return tuple(costs.values())


def logged_rows(run: RunFolder) -> list[dict[str, Any]]:
    """What the run's steps logged, in their order."""
    return [json.loads(line) for line in (run.path / METRICS).read_text(encoding="utf-8").splitlines()]


def curve_of(name: str, rows: Sequence[Mapping[str, Any]], x: str, y: str) -> Curve:
    """One line of a chart from what was logged."""
    return Curve(name, tuple(row[x] for row in rows), tuple(row[y] for row in rows))
