"""Is the difference real? Paired sign-flip tests, Holm's correction and bootstrap intervals over users.

Axis letters: ``S`` seeds, ``U`` users, ``C`` columns (one per variant or contrast), ``R`` random draws.
The unit of every test is the user: lists of one user, completions and seeds are averaged before.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

import numpy as np
from pydantic import BaseModel

from recloop.errors import DataError, SettingError
from recloop.settings import setting

if TYPE_CHECKING:
    from jaxtyping import Float64

    from recloop.evaluation.per_user_scores import Mean, VariantScores
    from recloop.rerankers.metrics import Empty

LEVEL = 0.95  # coverage of the bootstrap intervals
ALPHA = 0.05  # largest Holm-adjusted p of a difference called shown
MIN_SEEDS = 3  # fewest seeds, all of one sign, of a difference called shown
MAX_EXACT = 16  # non-zero differences up to which every sign flip is enumerated: 32,768 sums
CELLS_AT_ONCE = 4_000_000  # random numbers held in memory; 32 MB as doubles
ROUNDING = 1e-12  # relative: two values, or two sums of flipped differences, this close count as equal


class StatisticsConfig(BaseModel, frozen=True, extra="forbid"):
    """How many random draws tests and intervals take."""

    num_flips: int = setting(100_000, "random sign flips of a test that is not exact", ge=100)
    num_resamples: int = setting(10_000, "bootstrap resamples of the users", ge=100)


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
class Contrast:
    """`name` minus `against`, user by user.

    p: two-sided sign-flip test of the hypothesis that either variant could have produced either value.
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
    """One table: variants by one metric on the same users, and the contrasts between them.

    estimates: of every variant, by name, in the order of the table.
    """

    metric: str
    mean: Mean
    empty: Empty
    num_users: int
    num_lists: int
    estimates: Mapping[str, Estimate]
    contrasts: tuple[Contrast, ...]
    config: StatisticsConfig

    @property
    def num_seeds(self) -> int:
        """The most seeds any variant has."""
        return max(len(estimate.by_seed) for estimate in self.estimates.values())

    @property
    def is_demonstration(self) -> bool:
        """True when no variant was repeated with a second seed: nothing here may be claimed."""
        return self.num_seeds == 1


def compare(
    variants: Sequence[VariantScores],
    contrasts: Sequence[tuple[str, str]],
    metric: str,
    config: StatisticsConfig,
    seed: int,
) -> Comparison:
    """Every variant with its interval, and every contrast with its test; arguments and source as `compare_variants`.

    All intervals use the same resamples and all random tests the same flips, so that the numbers of one table agree.

    Raises:
        DataError: variants differ in users, lists or conventions.
        SettingError: a contrast names an unknown variant, itself, or variants with different seeds, or appears twice.
    """
    _check_variants(variants)
    by_name = {one.name: one for one in variants}
    _check_contrasts(contrasts, by_name)
    first = variants[0]
    weights_U = first.weights_U
    values_SU = [one.of(metric) for one in variants]
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
    p_C = sign_flip_p(values_UC[:, len(variants) :] * weights_U[:, None], config, flips)
    tested = zip(contrasts, estimates[len(variants) :], p_C.tolist(), holm(p_C).tolist(), strict=True)
    return Comparison(
        metric=metric,
        mean=first.mean,
        empty=first.empty,
        num_users=len(first.user_U),
        num_lists=int(first.num_lists_U.sum()),
        estimates=dict(zip(by_name, estimates, strict=False)),
        contrasts=tuple(
            Contrast(name, against, difference, p, p_holm, _verdict(difference, p_holm))
            for (name, against), difference, p, p_holm in tested
        ),
        config=config,
    )


def _difference(variant: VariantScores, against: VariantScores, metric: str) -> Float64[np.ndarray, "S U"]:
    """One variant minus the other. Where no seed moves either, there is one seed, not many that agree."""
    one_SU, other_SU = variant.of(metric), against.of(metric)
    difference_SU = one_SU - other_SU
    difference_SU[np.abs(difference_SU) <= ROUNDING * (np.abs(one_SU) + np.abs(other_SU))] = 0.0
    is_drawn_once = all(np.allclose(values_SU, values_SU[0], rtol=ROUNDING, atol=0) for values_SU in (one_SU, other_SU))
    return difference_SU[:1] if is_drawn_once else difference_SU


def sign_flip_p(
    differences_UC: Float64[np.ndarray, "U C"], config: StatisticsConfig, generator: np.random.Generator
) -> Float64[np.ndarray, " C"]:
    """Two-sided p of each column: how often random signs give a sum at least this far from 0.

    Columns with few non-zero differences are enumerated; the others share `config.num_flips` random flips,
    the observed one counted among them, so that p is never 0 and the test is valid at every level.
    Multiply by the users' weights first where users weigh differently.
    """
    num_columns = differences_UC.shape[1]
    p_C = np.ones(num_columns)
    is_exact_C = (differences_UC != 0).sum(axis=0) <= MAX_EXACT
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
    tail = (1 - LEVEL) / 2
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


def _verdict(difference: Estimate, p_holm: float) -> Verdict:
    if len(difference.by_seed) < MIN_SEEDS:
        return Verdict.TOO_FEW_SEEDS
    if p_holm <= ALPHA and min(difference.by_seed) > 0:
        return Verdict.BETTER
    if p_holm <= ALPHA and max(difference.by_seed) < 0:
        return Verdict.WORSE
    return Verdict.NOT_SHOWN


def _check_variants(variants: Sequence[VariantScores]) -> None:
    if not variants or len({one.name for one in variants}) < len(variants):
        raise DataError(
            f"a table needs variants of distinct names, got {[one.name for one in variants]}; "
            f"join the seeds of one variant with recloop.evaluation.per_user_scores.join_seeds"
        )
    first = variants[0]
    for one in variants[1:]:
        if (one.mean, one.empty) != (first.mean, first.empty):
            got = " and ".join(f"{v.name!r} with mean={v.mean}, empty={v.empty}" for v in (one, first))
            raise DataError(f"variants of a table must share their conventions, got {got}; score them alike")
        if not one.has_users_of(first):
            sizes = (f"{len(v.user_U)} users, {v.num_lists_U.sum()} lists for {v.name!r}" for v in (one, first))
            got = " and ".join(sizes)
            raise DataError(f"variants of a table must be scored on the same lists, got {got}; score one group")


def _check_contrasts(contrasts: Sequence[tuple[str, str]], by_name: dict[str, VariantScores]) -> None:
    if len({frozenset(contrast) for contrast in contrasts}) < len(contrasts):
        raise SettingError(f"a contrast may appear once, got {list(contrasts)}; drop the repeated ones")
    for name, against in contrasts:
        for wanted in (name, against):
            if wanted not in by_name:
                raise SettingError(
                    f"contrast {name!r} against {against!r} names no variant of the table, got variants "
                    f"{', '.join(by_name)}; check the names"
                )
        if name == against:
            raise SettingError(f"a variant cannot be compared with itself, got {name!r} twice; name two variants")
        if by_name[name].seeds != by_name[against].seeds:
            got = " and ".join(f"{list(by_name[one].seeds)} for {one!r}" for one in (name, against))
            raise SettingError(f"both variants of a contrast must have the same seeds, got {got}; score both alike")
