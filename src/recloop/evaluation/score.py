"""Scores of users, and their comparison: every list under every completion, averaged over completions, then lists.

A score is the mean over completions of each completion's metric, never the metric of averaged vectors.
Axis letters: ``B`` lists, ``N`` completions, ``S`` seeds or sessions, ``U`` users, ``M`` metrics.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, TypedDict, Unpack

import numpy as np
import polars as pl
from pydantic import BaseModel, Field, model_validator

from recloop.errors import SettingError
from recloop.evaluation.labels import CHANCE
from recloop.evaluation.per_user_scores import Mean, VariantScores
from recloop.evaluation.significance import StatisticsConfig, compare
from recloop.records import CandidateLists, Group
from recloop.rerankers.metrics import (
    Empty,
    MetricName,
    checked_scores,
    compute_completion_metrics,
    compute_metric,
    metric_of_rank,
    user_means,
)
from recloop.settings import validate

if TYPE_CHECKING:
    from jaxtyping import Float32, Float64, Int64

    from recloop.records import Lists, UserVectors
    from recloop.rerankers.protocol import Reranker

CHANCE_ORDERS = 20
TIE = 1e-12  # means this close are equal but for rounding


class MetricsConfig(BaseModel, frozen=True, extra="forbid"):
    """What is measured and by which conventions. Nothing here has a default: the field disagrees."""

    names: tuple[str, ...] = Field(min_length=1, description="e.g. ndcg@5, map_min@5, mrr@10, loglik")
    empty: Empty = Field(description="lists without a positive: left out (drop) or worth 0 (zero)")
    mean: Mean = Field(description="every user weighs the same (user), or every list does (list, as KAR)")

    @model_validator(mode="after")
    def _check_metrics(self) -> MetricsConfig:
        for metric in self.names:
            MetricName.parse(metric)
        if len(set(self.names)) < len(self.names):
            raise ValueError(f"metrics.names must differ, got {', '.join(self.names)}; drop the repeated ones")
        if "loglik" in self.names and self.empty == "zero":
            raise ValueError(
                "loglik has no value on a list without a positive, and 0 would be its best; "
                "use empty=drop or leave loglik out"
            )
        return self


class Options(TypedDict, total=False):
    """What `evaluate` has a default for."""

    mean: str
    name: str


def evaluate(
    reranker: Reranker | Mapping[int, Reranker],
    lists: Lists,
    vectors: UserVectors | None = None,
    *,
    metrics: Sequence[str],
    empty: str,
    **options: Unpack[Options],
) -> VariantScores:
    """The scores of each user of some lists under a reranker: `values_SUM` by seed, user and metric.

    Args:
        reranker: fitted; several that differ by their seed alone as a mapping by seed.
        lists: of valid or test users.
        vectors: encoded texts of these users, for a reranker that reads texts.
        metrics: e.g. ``("ndcg@5", "map@5")``. There is no default, since the field disagrees.
        empty: what a list without a positive is worth: it is left out (``drop``) or counts as 0 (``zero``).
        mean: every user weighs the same (``user``, the default), or every list does (``list``).
        name: of the variant, in comparisons.

    Raises:
        LeakageError: the lists belong to train or reward users.
        ContractError: a reranker's scores have the wrong shape.
        SettingError: an unknown metric or convention.
        DataError: no list counts.

    Example:
        scores = recloop.evaluate(model, lists.test, vectors, metrics=("ndcg@5",), empty="drop")
        scores.of("ndcg@5").mean()
    """
    name = options.pop("name", "variant")
    names = (metrics,) if isinstance(metrics, str) else tuple(metrics)
    config = validate(MetricsConfig, {"mean": "user", **options, "names": names, "empty": empty})
    if isinstance(reranker, type):
        raise SettingError(f"a reranker must be an object, got the class {reranker.__name__}; make one of it")
    if isinstance(lists, CandidateLists):
        raise SettingError("lists must be those of one group, got all four; pass one, e.g. lists.test")
    by_seed = reranker if isinstance(reranker, Mapping) else {0: reranker}
    values_by_seed = {
        seed: completion_values(checked_scores(fitted, lists, vectors), lists, config.names)
        for seed, fitted in by_seed.items()
    }
    return variant_from_completions(name, values_by_seed, lists.user_B, config)


def compare_variants(
    variants: Sequence[VariantScores], contrasts: Sequence[tuple[str, str]], metric: str, *, seed: int = 0
) -> pl.DataFrame:
    """Each contrast of two variants, user by user, with its 95% interval, p, and p corrected by Holm.

    Args:
        variants: evaluated on the same lists with the same conventions.
        contrasts: pairs of names; each is tested as the first minus the second.
        metric: one of the metrics they were evaluated with.
        seed: of the bootstrap resamples and the random sign flips.

    Returns:
        Columns ``variant, against, metric, value, low, high, p, p_holm, verdict``, as `Results.contrasts`.

    Raises:
        DataError: variants differ in users, lists or conventions.
        SettingError: an unknown name or metric.

    Source: paired sign-flip test over users (Fisher 1935), Holm 1979, percentile bootstrap (Efron 1979).
    """
    rows: list[dict[str, object]] = []
    for one in compare(variants, contrasts, metric, StatisticsConfig(), seed).contrasts:
        gain = one.difference
        interval = {"value": gain.value, "low": gain.low, "high": gain.high}
        tested = {"p": one.p, "p_holm": one.p_holm, "verdict": one.verdict.value}
        rows.append({"variant": one.name, "against": one.against, "metric": metric, **interval, **tested})
    return pl.DataFrame(rows)


def completion_values(
    scores_BNL: Float32[np.ndarray, "B N L"], lists: Lists, metrics: Iterable[str]
) -> dict[str, Float64[np.ndarray, "B N"]]:
    """Each metric of every list under each completion; LeakageError where the lists are of train or reward users."""
    lists.require(Group.VALID, Group.TEST)
    return {metric: compute_completion_metrics(metric, scores_BNL, lists) for metric in metrics}


def variant_from_completions(
    name: str,
    values_by_seed: Mapping[int, Mapping[str, Float64[np.ndarray, "B N"]]],
    user_B: Int64[np.ndarray, " B"],
    metrics: MetricsConfig,
) -> VariantScores:
    """The scores of a variant from `completion_values` under the reranker of each seed."""
    values = {
        seed: np.stack([values_BN[metric].mean(axis=1) for metric in metrics.names], axis=1)
        for seed, values_BN in values_by_seed.items()
    }
    return variant_from_lists(name, values, user_B, metrics)


def variant_from_ranks(
    name: str,
    ranks_by_seed: Mapping[int, Int64[np.ndarray, " S"]],
    user_S: Int64[np.ndarray, " S"],
    metrics: MetricsConfig,
) -> VariantScores:
    """The scores of a variant on sessions, which have one answer each: every metric follows from the answer's rank.

    A user's sessions are that user's lists; an answer that was not ranked is worth 0.
    """
    order = np.argsort(user_S, kind="stable")
    values = {
        seed: np.stack([metric_of_rank(metric, ranks[order]) for metric in metrics.names], axis=1)
        for seed, ranks in ranks_by_seed.items()
    }
    return variant_from_lists(name, values, user_S[order], metrics)


def chance_scores(
    num_candidates_S: Int64[np.ndarray, " S"], seeds: Sequence[int], user_S: Int64[np.ndarray, " S"],
    metrics: MetricsConfig,
) -> VariantScores:  # fmt: skip
    """What a random order of all candidates scores on sessions, which have one answer each: the expected values.

    Example:
        >>> metrics = MetricsConfig(names=("hr@1", "mrr@2"), empty="zero", mean="user")
        >>> chance_scores(np.array([4]), [0], np.array([0]), metrics).values_SUM.tolist()
        [[[0.25, 0.375]]]
    """
    order = np.argsort(user_S, kind="stable")
    num_S = num_candidates_S[order]
    expected = {n: [metric_of_rank(m, np.arange(1, n + 1)).mean() for m in metrics.names] for n in set(num_S.tolist())}
    values = np.array([expected[n] for n in num_S.tolist()])
    return variant_from_lists(CHANCE, dict.fromkeys(seeds, values), user_S[order], metrics)


def chance_of_lists(lists: Lists, metric: str, metrics: MetricsConfig, seed: int) -> float:
    """The mean of a metric with the candidates in random order, over `CHANCE_ORDERS` orders drawn by `seed`."""
    rng = np.random.default_rng([seed, 0xC4A9CE])
    drawn = (rng.random(lists.items_BL.shape, dtype=np.float32) for _ in range(CHANCE_ORDERS))
    values = {number: compute_metric(metric, scores_BL, lists)[:, None] for number, scores_BL in enumerate(drawn)}
    only = metrics.model_copy(update={"names": (metric,)})
    return variant_from_lists(CHANCE, values, lists.user_B, only).average(metric)


def variant_from_lists(
    name: str,
    values_by_seed: Mapping[int, Float64[np.ndarray, "B M"]],
    user_B: Int64[np.ndarray, " B"],
    metrics: MetricsConfig,
) -> VariantScores:
    """The scores of a variant from its values per list; NaN marks a list without positives.

    Raises:
        SettingError: there is no seed.
        DataError: no list counts.
    """
    if not values_by_seed:
        raise SettingError(f"variant {name!r} needs at least one fitted reranker, got none; fit one per seed")
    values_BSM = np.stack(list(values_by_seed.values()), axis=1)
    user_U, means_USM = user_means(values_BSM, user_B, metrics.empty)
    counts_B = np.full(len(user_B), True) if metrics.empty == "zero" else ~np.isnan(values_BSM[:, 0, 0])
    return VariantScores(
        name=name,
        mean=metrics.mean,
        empty=metrics.empty,
        metrics=metrics.names,
        seeds=tuple(values_by_seed),
        user_U=user_U,
        num_lists_U=np.unique(user_B[counts_B], return_counts=True)[1].astype(np.int64),
        values_SUM=np.moveaxis(means_USM, 0, 1),
    )


def best_of_n(
    name: str,
    values_by_seed: Mapping[int, Mapping[str, Float64[np.ndarray, "B N"]]],
    user_B: Int64[np.ndarray, " B"],
    metrics: MetricsConfig,
    choose_by: str,
) -> VariantScores:
    """The scores of cross-validated best-of-N, on the same users as `variant_from_completions`.

    An upper bound for what choosing among the same completions could give, honest because no list helps to choose
    the completion it is scored with. A user's lists are dealt in turn into two halves, in time order; a half is
    scored with the completion that was best on the other. Completions that tie for best share the score. A user
    with one list offers nothing to choose on and scores the mean over completions.

    Args:
        values_by_seed: `completion_values` of the metrics and of `choose_by`.
        choose_by: the metric by which a completion is best, e.g. the reward's.
    """
    values: dict[int, np.ndarray] = {}
    for seed, values_BN in values_by_seed.items():
        shares_BN = chosen_shares(values_BN[choose_by], user_B)
        values[seed] = np.stack([(values_BN[metric] * shares_BN).sum(axis=1) for metric in metrics.names], axis=1)
    return variant_from_lists(name, values, user_B, metrics)


def chosen_shares(values_BN: Float64[np.ndarray, "B N"], user_B: Int64[np.ndarray, " B"]) -> Float64[np.ndarray, "B N"]:
    """What share of each list's score each completion gets, assessed by the user's other half of lists.

    Args:
        values_BN: what the choice goes by; NaN where a list has no positive, which then chooses nothing.
        user_B: ascending; the lists of one user in time order.

    Returns:
        Rows sum to 1.
    """
    has_value_B = np.asarray(np.isfinite(values_BN).all(axis=1))
    user_U, first_U, own_user_B = np.unique(user_B, return_index=True, return_inverse=True)
    before_B = np.cumsum(has_value_B) - has_value_B  # earlier lists with a value, of all users
    half_B = (before_B - before_B[first_U][own_user_B]) % 2
    own_B = 2 * own_user_B + half_B
    num_halves = 2 * len(user_U)
    sums_HN = np.zeros((num_halves, values_BN.shape[1]))
    np.add.at(sums_HN, own_B[has_value_B], values_BN[has_value_B])
    sizes_H = np.bincount(own_B[has_value_B], minlength=num_halves)

    other_B = own_B ^ 1
    means_BN = sums_HN[other_B] / np.maximum(sizes_H[other_B], 1)[:, None]
    is_best_BN = means_BN >= means_BN.max(axis=1, keepdims=True) - TIE
    return is_best_BN / is_best_BN.sum(axis=1, keepdims=True)
