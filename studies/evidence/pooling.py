"""Units put together: panels of one variant become one table over all their test users."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from recloop.errors import DataError
from recloop.evaluation.significance import holm
from recloop.methods.dpo4rec.evaluate import BEST_OF_N, TRAINED, UNTUNED
from studies.evidence.moments import Moments, pool, ratio_interval
from studies.evidence.numbers import (
    PredictedNumbers,
    ReliabilityNumbers,
    TableNumbers,
    UnitResult,
    WritingNumbers,
)
from studies.evidence.study import Study, Unit


@dataclass(frozen=True, slots=True)
class UnitState:
    """A unit and, if it was done as the study has it now, its numbers.

    why: why there are none; empty when there are.
    minutes: about, from a done unit of the same variant where there is one.
    """

    unit: Unit
    result: UnitResult | None
    why: str
    minutes: float


@dataclass(frozen=True, slots=True)
class Evidence:
    """All studies and what there is of them."""

    studies: Mapping[str, Study]
    states: tuple[UnitState, ...]

    def of_study(self, study: str, variant: str = "") -> list[UnitResult]:
        """The done units of one variant, by panel."""
        return [
            state.result
            for state in self.states
            if (state.unit.study, state.unit.variant) == (study, variant) and state.result is not None
        ]

    def of_place(self, place: str) -> list[str]:
        """The studies that fill a part of the page: those with most panels first."""
        names = [name for name, study in self.studies.items() if study.place == place]
        return sorted(names, key=lambda name: -len(self.studies[name].panels))

    @property
    def missing(self) -> list[UnitState]:
        """The units that are still to be done."""
        return [state for state in self.states if state.result is None]


@dataclass(frozen=True, slots=True)
class Pooled:
    """A mean over the test users of all panels, and the mean of each panel."""

    values: Moments
    by_panel: tuple[float, ...]

    @property
    def same_sign(self) -> bool:
        """True when every panel lies on the same side of 0."""
        return min(self.by_panel) > 0 or max(self.by_panel) < 0


@dataclass(frozen=True, slots=True)
class PooledContrast:
    """One difference over all panels. p_holm: corrected for the differences it was pooled with."""

    name: str
    against: str
    difference: Pooled
    p_holm: float


def tables_of(results: Sequence[UnitResult], ranker: str, group: str = "test") -> list[TableNumbers]:
    """The table of each unit under one kind of evaluator; units without one are left out."""
    return [table for result in results if (table := result.table(ranker, group)) is not None]


def pooled_rows(tables: Sequence[TableNumbers], metric: str) -> dict[str, Pooled]:
    """Every row that all panels have, in the order of the first."""
    found: dict[str, Pooled] = {}
    for row in tables[0].rows if tables else ():
        parts = [other.values[metric] for table in tables if (other := table.row(row.name)) is not None]
        if len(parts) == len(tables):
            found[row.name] = Pooled(pool(parts), tuple(part.mean for part in parts))
    return found


def pooled_contrasts(
    tables: Sequence[TableNumbers], metric: str, name: str, baselines: Sequence[str]
) -> list[PooledContrast]:
    """`name` against every baseline that all panels have; Holm over exactly these."""
    found = [(baseline, pooled_contrast(tables, metric, name, baseline)) for baseline in baselines]
    there = [(baseline, difference) for baseline, difference in found if difference is not None]
    adjusted = holm(np.array([difference.values.p for _, difference in there]))
    return [
        PooledContrast(name, baseline, difference, p)
        for (baseline, difference), p in zip(there, adjusted.tolist(), strict=True)
    ]


def pooled_contrast(tables: Sequence[TableNumbers], metric: str, name: str, against: str) -> Pooled | None:
    """One difference over all panels; None where a panel lacks it."""
    parts = [found.values[metric] for table in tables if (found := table.contrast(name, against)) is not None]
    if not parts or len(parts) < len(tables):
        return None
    return Pooled(pool(parts), tuple(part.mean for part in parts))


@dataclass(frozen=True, slots=True)
class GapClosed:
    """Share of the way from the untuned model to cross-validated best-of-N that training went."""

    share: float
    interval: tuple[float, float] | None
    gap: float


def gap_closed(tables: Sequence[TableNumbers], metric: str) -> GapClosed | None:
    """None where a row is missing or best-of-N is not above the untuned model."""
    top = pooled_contrast(tables, metric, TRAINED, UNTUNED)
    bottom = pooled_contrast(tables, metric, BEST_OF_N, UNTUNED)
    between = pooled_contrast(tables, metric, TRAINED, BEST_OF_N)
    if top is None or bottom is None or between is None or bottom.values.mean <= 0:
        return None
    interval = ratio_interval(top.values, bottom.values, between.values)
    return GapClosed(top.values.mean / bottom.values.mean, interval, bottom.values.mean)


def pooled_reliability(results: Sequence[UnitResult]) -> list[ReliabilityNumbers]:
    """Reliabilities over panels: the mean weighted by users, its interval from those of the panels.

    Variances add as if panels were independent, though turns of a log share some reward users; a panel's is
    that of a normal distribution with its interval.
    """
    by_key: dict[tuple[str, int | None], list[ReliabilityNumbers]] = {}
    for result in results:
        for one in result.reliability:
            by_key.setdefault((one.metric, one.num_lists), []).append(one)
    found: list[ReliabilityNumbers] = []
    for (metric, num_lists), parts in by_key.items():
        weight_P = np.array([part.num_users for part in parts], dtype=np.float64)
        weight_P /= weight_P.sum()
        value = float(weight_P @ [part.reliability for part in parts])
        half = float(np.sqrt((weight_P**2) @ [((part.high - part.low) / 2) ** 2 for part in parts]))
        alone = len(parts) == 1
        found.append(
            ReliabilityNumbers(
                metric=metric,
                num_lists=num_lists,
                reliability=value,
                low=parts[0].low if alone else value - half,
                high=parts[0].high if alone else value + half,
                num_users=sum(part.num_users for part in parts),
            )
        )
    return found


def pooled_predicted(results: Sequence[UnitResult]) -> list[PredictedNumbers]:
    """What is predicted over panels, weighted by users, as if panels shared no reward user."""
    by_metric: dict[str, list[PredictedNumbers]] = {}
    for result in results:
        for one in result.predicted:
            by_metric.setdefault(one.metric, []).append(one)
    found: list[PredictedNumbers] = []
    for metric, parts in by_metric.items():
        gained = pool([part.gained for part in parts])
        explained = sum(part.explained * part.gained.num_users for part in parts) / gained.num_users
        reached = {
            row: pool([part.reached[row] for part in parts])
            for row in parts[0].reached
            if all(row in part.reached for part in parts)
        }
        found.append(PredictedNumbers(metric=metric, explained=explained, gained=gained, reached=reached))
    return found


def pooled_writing(results: Sequence[UnitResult]) -> list[WritingNumbers]:
    """Each language model over all panels: means weighted by completions."""
    by_row: dict[str, list[WritingNumbers]] = {}
    for result in results:
        for one in result.writing:
            by_row.setdefault(one.row, []).append(one)
    return [
        WritingNumbers(
            row=row,
            num_completions=sum(part.num_completions for part in parts),
            skill={name: _mean(parts, [part.skill[name] for part in parts]) for name in parts[0].skill},
            attribute_of_claims=_means(parts, [part.attribute_of_claims for part in parts]),
            attribute_of_completions=_means(parts, [part.attribute_of_completions for part in parts]),
            surprisal=_mean(parts, [part.surprisal for part in parts]),
        )
        for row, parts in by_row.items()
        if len(parts) == len(results)
    ]


def pooled_change(results: Sequence[UnitResult], measure: str) -> Moments | None:
    """Trained less untuned in one measure of what is written, over all users; None where nobody measured it."""
    parts = [one.change for result in results for one in result.writing_changes if one.measure == measure]
    return pool(parts) if parts else None


def _mean(parts: Sequence[WritingNumbers], values: Sequence[float | None]) -> float | None:
    there = [(part.num_completions, value) for part, value in zip(parts, values, strict=True) if value is not None]
    if not there:
        return None
    return sum(num * value for num, value in there) / sum(num for num, _ in there)


def _means(parts: Sequence[WritingNumbers], shares: Sequence[Mapping[str, float]]) -> dict[str, float]:
    if any(set(share) != set(shares[0]) for share in shares):
        raise DataError(
            f"panels of one variant must have the same attributes, got {[sorted(share) for share in shares]}; "
            f"do the units again"
        )
    return {attribute: _mean(parts, [share[attribute] for share in shares]) or 0.0 for attribute in shares[0]}
