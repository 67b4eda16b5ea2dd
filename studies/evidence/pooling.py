"""Pools study runs: the folds of one setting become one table over all their test users."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from recloop.errors import DataError
from recloop.evaluation.significance import holm
from recloop.methods.dpo4rec.names import BEST_OF_N, TRAINED, UNTUNED
from studies.evidence.numbers import (
    PredictedNumbers,
    ReliabilityNumbers,
    RunNumbers,
    TableNumbers,
    WritingNumbers,
)
from studies.evidence.statistics import Moments, covariance, pool, ratio_interval
from studies.evidence.study import Study, StudyRun


@dataclass(frozen=True, slots=True)
class RunState:
    """A study run and, if it was done with the study's present settings, its numbers.

    why: why there are no numbers; empty when there are.
    minutes: estimated, or measured on a done run of the same setting.
    """

    run: StudyRun
    numbers: RunNumbers | None
    why: str
    minutes: float


@dataclass(frozen=True, slots=True)
class Evidence:
    """All studies and the state of their runs."""

    studies: Mapping[str, Study]
    states: tuple[RunState, ...]

    def of_study(self, study: str, setting: str = "") -> list[RunNumbers]:
        """The done runs of one setting, by fold."""
        return [
            state.numbers
            for state in self.states
            if (state.run.study, state.run.setting) == (study, setting) and state.numbers is not None
        ]

    def of_place(self, place: str) -> list[str]:
        """The studies that fill a part of the page: published language models first, then those with most folds."""
        there = {name: study for name, study in self.studies.items() if study.place == place}
        return sorted(there, key=lambda name: (there[name].has_bundled_lm, -len(there[name].folds)))

    @property
    def missing(self) -> list[RunState]:
        """The runs that are still to be done."""
        return [state for state in self.states if state.numbers is None]


@dataclass(frozen=True, slots=True)
class Pooled:
    """The mean over the test users of all folds, and the mean of each fold."""

    values: Moments
    by_fold: tuple[float, ...]

    @property
    def same_sign(self) -> bool:
        """True when the means of all folds lie on the same side of 0."""
        return min(self.by_fold) > 0 or max(self.by_fold) < 0


@dataclass(frozen=True, slots=True)
class PooledContrast:
    """One difference over all folds. p_holm: corrected for all differences that were pooled with it."""

    name: str
    against: str
    difference: Pooled
    p_holm: float


def tables_of(results: Sequence[RunNumbers], ranker: str, group: str = "test") -> list[TableNumbers]:
    """The table of each run under one kind of evaluation reranker; runs without one are left out."""
    return [table for result in results if (table := result.table(ranker, group)) is not None]


def pooled_variants(tables: Sequence[TableNumbers], metric: str) -> dict[str, Pooled]:
    """Every variant that all folds have, in the order of the first."""
    found: dict[str, Pooled] = {}
    for variant in tables[0].variants if tables else ():
        parts = [other.values[metric] for table in tables if (other := table.variant(variant.name)) is not None]
        if len(parts) == len(tables):
            found[variant.name] = Pooled(pool(parts), tuple(part.mean for part in parts))
    return found


def pooled_contrasts(
    tables: Sequence[TableNumbers], metric: str, name: str, baselines: Sequence[str]
) -> list[PooledContrast]:
    """`name` against every baseline that all folds have, with Holm over exactly these."""
    found = [(baseline, pooled_contrast(tables, metric, name, baseline)) for baseline in baselines]
    there = [(baseline, difference) for baseline, difference in found if difference is not None]
    adjusted = holm(np.array([difference.values.p for _, difference in there]))
    return [
        PooledContrast(name, baseline, difference, p)
        for (baseline, difference), p in zip(there, adjusted.tolist(), strict=True)
    ]


def pooled_contrast(tables: Sequence[TableNumbers], metric: str, name: str, against: str) -> Pooled | None:
    """One difference over all folds, or None where a fold lacks it."""
    parts = [found.values[metric] for table in tables if (found := table.contrast(name, against)) is not None]
    if not parts or len(parts) < len(tables):
        return None
    return Pooled(pool(parts), tuple(part.mean for part in parts))


@dataclass(frozen=True, slots=True)
class GapClosed:
    """Share of the gap between the untuned model and cross-validated best-of-N that training closes.

    interval: of the share; None where the gap itself may be 0.
    above_half: what training gains less half the gap, over users; above 0 where it closes more than half.
    """

    share: float
    interval: tuple[float, float] | None
    gap: float
    above_half: Moments


def gap_closed(tables: Sequence[TableNumbers], metric: str) -> GapClosed | None:
    """The gap closed, or None where a variant is missing or best-of-N is not above the untuned model."""
    top = pooled_contrast(tables, metric, TRAINED, UNTUNED)
    bottom = pooled_contrast(tables, metric, BEST_OF_N, UNTUNED)
    between = pooled_contrast(tables, metric, TRAINED, BEST_OF_N)
    if top is None or bottom is None or between is None or bottom.values.mean <= 0:
        return None
    interval = ratio_interval(top.values, bottom.values, between.values)
    both = covariance(top.values, bottom.values, between.values)
    above_half = Moments(
        num_users=top.values.num_users,
        mean=top.values.mean - bottom.values.mean / 2,
        variance=max(top.values.variance + bottom.values.variance / 4 - both, 0.0),
    )
    return GapClosed(top.values.mean / bottom.values.mean, interval, bottom.values.mean, above_half)


def pooled_reliability(results: Sequence[RunNumbers]) -> list[ReliabilityNumbers]:
    """Reliabilities over folds: the mean weighted by users, and its interval from those of the folds.

    Variances add as if folds were independent, although splits of one log share some reward users. The variance of a
    fold is that of a normal distribution with the fold's interval.
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


def pooled_predicted(results: Sequence[RunNumbers]) -> list[PredictedNumbers]:
    """Predicted rewards over folds, weighted by users, as if folds shared no reward user."""
    by_metric: dict[str, list[PredictedNumbers]] = {}
    for result in results:
        for one in result.predicted:
            by_metric.setdefault(one.metric, []).append(one)
    found: list[PredictedNumbers] = []
    for metric, parts in by_metric.items():
        gained = pool([part.gained for part in parts])
        explained = sum(part.explained * part.gained.num_users for part in parts) / gained.num_users
        reached = {
            name: pool([part.reached[name] for part in parts])
            for name in parts[0].reached
            if all(name in part.reached for part in parts)
        }
        found.append(PredictedNumbers(metric=metric, explained=explained, gained=gained, reached=reached))
    return found


def pooled_writing(results: Sequence[RunNumbers]) -> list[WritingNumbers]:
    """Each language model's numbers over all folds: means weighted by completions."""
    by_name: dict[str, list[WritingNumbers]] = {}
    for result in results:
        for one in result.writing:
            by_name.setdefault(one.variant, []).append(one)
    return [
        WritingNumbers(
            variant=name,
            num_completions=sum(part.num_completions for part in parts),
            skill={key: _mean(parts, [part.skill[key] for part in parts]) for key in parts[0].skill},
            attribute_of_claims=_means(parts, [part.attribute_of_claims for part in parts]),
            attribute_of_completions=_means(parts, [part.attribute_of_completions for part in parts]),
            surprisal=_mean(parts, [part.surprisal for part in parts]),
        )
        for name, parts in by_name.items()
        if len(parts) == len(results)
    ]


def pooled_change(results: Sequence[RunNumbers], metric: str) -> Moments | None:
    """Trained minus untuned in one metric of the texts, over all users, or None where no run has it."""
    parts = [one.change for result in results for one in result.writing_changes if one.metric == metric]
    return pool(parts) if parts else None


def _mean(parts: Sequence[WritingNumbers], values: Sequence[float | None]) -> float | None:
    there = [(part.num_completions, value) for part, value in zip(parts, values, strict=True) if value is not None]
    if not there:
        return None
    return sum(num * value for num, value in there) / sum(num for num, _ in there)


def _means(parts: Sequence[WritingNumbers], shares: Sequence[Mapping[str, float]]) -> dict[str, float]:
    if any(set(share) != set(shares[0]) for share in shares):
        raise DataError(
            f"folds of one setting must have the same attributes, got {[sorted(share) for share in shares]}; "
            f"do the runs again"
        )
    return {attribute: _mean(parts, [share[attribute] for share in shares]) or 0.0 for attribute in shares[0]}
