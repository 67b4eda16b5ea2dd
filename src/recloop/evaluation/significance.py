"""Is the difference real? Paired sign-flip tests, Holm's correction and bootstrap intervals over users.

Axis letters: ``S`` seeds, ``U`` users, ``C`` columns (one per row or contrast), ``R`` random draws.
The unit of every test is the user: lists of one user, completions and seeds are averaged before.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from recloop.errors import DataError, SettingError

if TYPE_CHECKING:
    from jaxtyping import Float64

    from recloop.evaluation.per_user_scores import Mean, VariantScores
    from recloop.rerankers.metrics import Empty

CELLS_AT_ONCE = 4_000_000  # random numbers held in memory; 32 MB as doubles
ROUNDING = 1e-12  # relative: two values, or two sums of flipped differences, this close count as equal


class StatisticsConfig(BaseModel):
    """How differences are tested."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    level: float = Field(default=0.95, gt=0, lt=1, description="coverage of the bootstrap intervals")
    alpha: float = Field(default=0.05, gt=0, lt=1, description="largest Holm-adjusted p of a difference called shown")
    min_seeds: int = Field(default=3, ge=1, description="fewest seeds, all of one sign, of a difference called shown")
    num_flips: int = Field(default=100_000, ge=100, description="random sign flips of a test that is not exact")
    max_exact: int = Field(default=16, ge=0, le=24, description="test exactly up to this many non-zero differences")
    num_resamples: int = Field(default=10_000, ge=100, description="bootstrap resamples of the users")


class Verdict(StrEnum):
    """What a contrast allows to be said."""

    BETTER = "better"  # adjusted p at most alpha, enough seeds, every seed above 0
    WORSE = "worse"  # the same, every seed below 0
    NOT_SHOWN = "not shown"
    TOO_FEW_SEEDS = "too few seeds"  # for any claim, whatever p


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean over users (then seeds) with its bootstrap interval, and the mean of each seed."""

    value: float
    low: float
    high: float
    by_seed: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class RowEstimate:
    """One row of the table."""

    name: str
    estimate: Estimate


@dataclass(frozen=True, slots=True)
class Contrast:
    """`name` minus `against`, user by user.

    p: two-sided sign-flip test of the hypothesis that either row could have produced either value.
    p_holm: the same, corrected for all contrasts of the table.
    """

    name: str
    against: str
    difference: Estimate
    p: float
    p_holm: float
    verdict: Verdict

    @property
    def num_seeds(self) -> int:
        return len(self.difference.by_seed)


@dataclass(frozen=True, slots=True)
class Comparison:
    """One table: rows of one metric on the same users, and the contrasts between them."""

    metric: str
    mean: Mean
    empty: Empty
    num_users: int
    num_lists: int
    rows: tuple[RowEstimate, ...]
    contrasts: tuple[Contrast, ...]
    config: StatisticsConfig

    @property
    def num_seeds(self) -> int:
        """The most seeds any row has."""
        return max(len(row.estimate.by_seed) for row in self.rows)

    @property
    def is_demonstration(self) -> bool:
        """True when no row was repeated with a second seed: nothing here may be claimed."""
        return self.num_seeds == 1

    def row(self, name: str) -> RowEstimate:
        """The row of this name; SettingError when the table has none."""
        for row in self.rows:
            if row.name == name:
                return row
        raise SettingError(
            f"no row {name!r} in the table, got {', '.join(row.name for row in self.rows)}; check the name"
        )


def compare(
    rows: Sequence[VariantScores],
    contrasts: Sequence[tuple[str, str]],
    metric: str,
    config: StatisticsConfig,
    seed: int,
) -> Comparison:
    """Estimate every row with an interval and test every contrast.

    All intervals use the same resamples and all random tests the same flips, so that the numbers of one
    table agree with each other.

    Args:
        rows: scored on the same lists with the same conventions.
        contrasts: pairs of row names ``(name, against)``; each is tested as name minus against.
        metric: one of the metrics the rows were scored with.
        config: levels and numbers of draws.
        seed: of the resamples and flips.

    Raises:
        DataError: rows differ in users, lists or conventions.
        SettingError: a contrast names an unknown row, itself, or rows with different seeds, or appears twice.

    Source: sign-flip (one-sample permutation) test: Fisher 1935; Holm 1979; percentile bootstrap: Efron 1979.
    """
    _check_rows(rows)
    by_name = {row.name: row for row in rows}
    _check_contrasts(contrasts, by_name)
    weights_U = rows[0].weights_U
    values_SU = [row.of(metric) for row in rows]
    values_SU += [_difference(by_name[name], by_name[against], metric) for name, against in contrasts]
    values_UC = np.stack([value_SU.mean(axis=0) for value_SU in values_SU], axis=1)
    flips, resamples = np.random.default_rng(seed).spawn(2)

    low_C, high_C = bootstrap_interval(values_UC, weights_U, config, resamples)
    estimates = [
        Estimate(
            value=float(weights_U @ values_UC[:, c] / weights_U.sum()),
            low=float(low_C[c]),
            high=float(high_C[c]),
            by_seed=tuple((value_SU @ weights_U / weights_U.sum()).tolist()),
        )
        for c, value_SU in enumerate(values_SU)
    ]
    p_C = sign_flip_p(values_UC[:, len(rows) :] * weights_U[:, None], config, flips)
    differences = estimates[len(rows) :]
    return Comparison(
        metric=metric,
        mean=rows[0].mean,
        empty=rows[0].empty,
        num_users=len(rows[0].user_U),
        num_lists=int(rows[0].num_lists_U.sum()),
        rows=tuple(RowEstimate(row.name, estimates[r]) for r, row in enumerate(rows)),
        contrasts=tuple(
            Contrast(name, against, difference, p, p_holm, _verdict(difference, p_holm, config))
            for (name, against), difference, p, p_holm in zip(
                contrasts, differences, p_C.tolist(), holm(p_C).tolist(), strict=True
            )
        ),
        config=config,
    )


def _difference(row: VariantScores, against: VariantScores, metric: str) -> Float64[np.ndarray, "S U"]:
    """Row less row. Two rows that no seed moves were drawn once: one seed, not many that agree."""
    one_SU, other_SU = row.of(metric), against.of(metric)
    difference_SU = one_SU - other_SU
    difference_SU[np.abs(difference_SU) <= ROUNDING * (np.abs(one_SU) + np.abs(other_SU))] = 0.0
    is_drawn_once = all(np.allclose(values_SU, values_SU[0], rtol=ROUNDING, atol=0) for values_SU in (one_SU, other_SU))
    return difference_SU[:1] if is_drawn_once else difference_SU


def sign_flip_p(
    differences_UC: Float64[np.ndarray, "U C"], config: StatisticsConfig, generator: np.random.Generator
) -> Float64[np.ndarray, " C"]:
    """Two-sided p of each column: how often would random signs give a sum at least this far from 0?

    Columns with few non-zero differences are enumerated; the others share `config.num_flips` random flips,
    the observed one counted among them, so that p is never 0 and the test is valid at every level.
    Multiply by the users' weights first where users weigh differently.
    """
    num_columns = differences_UC.shape[1]
    p_C = np.ones(num_columns)
    is_exact_C = (differences_UC != 0).sum(axis=0) <= config.max_exact
    for c in np.flatnonzero(is_exact_C):
        p_C[c] = _exact_p(differences_UC[:, c])
    random_C = np.flatnonzero(~is_exact_C)
    if len(random_C):
        p_C[random_C] = _random_p(differences_UC[:, random_C], config.num_flips, generator)
    return p_C


def holm(p_C: Float64[np.ndarray, " C"]) -> Float64[np.ndarray, " C"]:
    """Holm's step-down adjustment: reject where the result is at most alpha.

    With the p-values in ascending order, the k-th of m (from 0) is worth the largest of
    ``(m - j) p_j`` over ``j <= k``, and at most 1.
    """
    order = np.argsort(p_C, kind="stable")
    stepped = np.maximum.accumulate(p_C[order] * np.arange(len(p_C), 0, -1))
    adjusted = np.empty_like(p_C)
    adjusted[order] = np.minimum(stepped, 1.0)
    return adjusted


def bootstrap_interval(
    values_UC: Float64[np.ndarray, "U C"],
    weights_U: Float64[np.ndarray, " U"],
    config: StatisticsConfig,
    generator: np.random.Generator,
) -> tuple[Float64[np.ndarray, " C"], Float64[np.ndarray, " C"]]:
    """Ends of the percentile interval of each column's weighted mean, users resampled with their weights."""
    num_users = len(weights_U)
    columns = np.concatenate([values_UC * weights_U[:, None], weights_U[:, None]], axis=1)
    means: list[np.ndarray] = []
    for num in _chunks(config.num_resamples, num_users):
        drawn = generator.integers(0, num_users, (num, num_users))
        drawn += np.arange(num)[:, None] * num_users
        counts_RU = np.bincount(drawn.ravel(), minlength=num * num_users).reshape(num, num_users)
        sums_RC = counts_RU.astype(np.float64) @ columns
        means.append(sums_RC[:, :-1] / sums_RC[:, -1:])
    tail = (1 - config.level) / 2
    low_C, high_C = np.quantile(np.concatenate(means), [tail, 1 - tail], axis=0)
    return low_C, high_C


def _exact_p(difference_U: Float64[np.ndarray, " U"]) -> float:
    sizes = np.abs(difference_U[difference_U != 0])
    if len(sizes) == 0:
        return 1.0
    sums_R = sizes[:1]  # the first sign stays +: flipping all signs leaves the distance from 0
    for size in sizes[1:]:
        sums_R = np.concatenate((sums_R + size, sums_R - size))
    observed = abs(difference_U.sum()) - ROUNDING * sizes.sum()
    return float((np.abs(sums_R) >= observed).mean())


def _random_p(differences_UC: np.ndarray, num_flips: int, generator: np.random.Generator) -> np.ndarray:
    total_C = differences_UC.sum(axis=0)
    observed_C = np.abs(total_C) - ROUNDING * np.abs(differences_UC).sum(axis=0)
    num_users = len(differences_UC)
    hits_C = np.ones(len(total_C))  # the observed signs are one of the flips
    for num in _chunks(num_flips, num_users):
        coins = np.frombuffer(generator.bytes((num * num_users + 7) // 8), np.uint8)
        keeps_RU = np.unpackbits(coins, count=num * num_users).reshape(num, num_users)
        sums_RC = 2 * (keeps_RU.astype(np.float64) @ differences_UC) - total_C
        hits_C += (np.abs(sums_RC) >= observed_C).sum(axis=0)
    return hits_C / (num_flips + 1)


def _chunks(num_draws: int, num_users: int) -> list[int]:
    at_once = max(1, CELLS_AT_ONCE // num_users)
    full, rest = divmod(num_draws, at_once)
    return [at_once] * full + ([rest] if rest else [])


def _verdict(difference: Estimate, p_holm: float, config: StatisticsConfig) -> Verdict:
    if len(difference.by_seed) < config.min_seeds:
        return Verdict.TOO_FEW_SEEDS
    if p_holm <= config.alpha and min(difference.by_seed) > 0:
        return Verdict.BETTER
    if p_holm <= config.alpha and max(difference.by_seed) < 0:
        return Verdict.WORSE
    return Verdict.NOT_SHOWN


def _check_rows(rows: Sequence[VariantScores]) -> None:
    if not rows or len({row.name for row in rows}) < len(rows):
        raise DataError(
            f"a table needs rows of distinct names, got {[row.name for row in rows]}; "
            f"join the seeds of one row with recloop.evaluation.per_user_scores.join_seeds"
        )
    first = rows[0]
    for row in rows[1:]:
        if (row.mean, row.empty) != (first.mean, first.empty):
            raise DataError(
                f"rows of a table must share their conventions, got {row.name!r} with mean={row.mean}, "
                f"empty={row.empty} and {first.name!r} with mean={first.mean}, empty={first.empty}; "
                f"score them alike"
            )
        same_users = np.array_equal(row.user_U, first.user_U)
        if not same_users or not np.array_equal(row.num_lists_U, first.num_lists_U):
            raise DataError(
                f"rows of a table must be scored on the same lists, got {len(row.user_U)} users and "
                f"{row.num_lists_U.sum()} lists for {row.name!r}, {len(first.user_U)} users and "
                f"{first.num_lists_U.sum()} lists for {first.name!r}; score every row on the same group"
            )


def _check_contrasts(contrasts: Sequence[tuple[str, str]], by_name: dict[str, VariantScores]) -> None:
    if len({frozenset(contrast) for contrast in contrasts}) < len(contrasts):
        raise SettingError(f"a contrast may appear once, got {list(contrasts)}; drop the repeated ones")
    for name, against in contrasts:
        for wanted in (name, against):
            if wanted not in by_name:
                raise SettingError(
                    f"contrast {name!r} against {against!r} names no row of the table, "
                    f"got rows {', '.join(by_name)}; check the names"
                )
        if name == against:
            raise SettingError(f"a row cannot be compared with itself, got {name!r} twice; name two rows")
        if by_name[name].seeds != by_name[against].seeds:
            raise SettingError(
                f"both rows of a contrast must have the same seeds, got {list(by_name[name].seeds)} for "
                f"{name!r} and {list(by_name[against].seeds)} for {against!r}; score both with the same seeds"
            )
