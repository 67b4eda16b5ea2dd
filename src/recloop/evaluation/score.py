"""Scores the variants of a table: every list under every completion, averaged over completions, then lists.

A score is the mean over completions of each completion's metric, never the metric of averaged vectors.
Axis letters: ``B`` lists, ``N`` completions, ``S`` seeds, ``U`` users, ``M`` metrics.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

from recloop.errors import ContractError, SettingError
from recloop.evaluation.per_user_scores import Mean, VariantScores
from recloop.records import Group
from recloop.rerankers.metrics import Empty, MetricName, compute_completion_metrics, user_means

if TYPE_CHECKING:
    from jaxtyping import Float32, Float64, Int64

    from recloop.records import Lists, UserVectors
    from recloop.rerankers.protocol import Reranker


class MetricsConfig(BaseModel):
    """What is measured and by which conventions. Nothing here has a default: the field disagrees."""

    model_config = ConfigDict(frozen=True, extra="forbid")

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


def score_variant(
    name: str,
    fitted_by_seed: Mapping[int, Reranker],
    lists: Lists,
    vectors: UserVectors | None,
    metrics: MetricsConfig,
) -> VariantScores:
    """The scores of one variant under each of its fitted rerankers.

    Args:
        name: of the variant, short and stable.
        fitted_by_seed: rerankers fitted alike but for the seed.
        lists: of valid or test users.
        vectors: encoded completions of at least the users of `lists`; None for rerankers without texts.
        metrics: metrics and conventions.

    Raises:
        LeakageError: the lists belong to train or reward users.
        ContractError: a reranker's scores have the wrong shape.
        DataError: no list counts.
    """
    lists.require(Group.VALID, Group.TEST)
    values_by_seed: dict[int, np.ndarray] = {}
    for seed, fitted in fitted_by_seed.items():
        scores_BNL = completion_scores(fitted, lists, vectors)
        values_by_seed[seed] = np.stack(
            [compute_completion_metrics(metric, scores_BNL, lists).mean(axis=1) for metric in metrics.names],
            axis=1,
        )
    return variant_from_lists(name, values_by_seed, lists.user_B, metrics)


def completion_scores(fitted: Reranker, lists: Lists, vectors: UserVectors | None) -> Float32[np.ndarray, "B N L"]:
    """A reranker's scores, their shape checked."""
    scores_BNL = fitted.score(lists, vectors)
    num_completions = 1 if vectors is None else vectors.vectors_UND.shape[1]
    expected = (len(lists), num_completions, lists.items_BL.shape[1])
    if scores_BNL.shape != expected:
        raise ContractError(
            f"a reranker must score [lists, completions, items] = {list(expected)}, got "
            f"{list(scores_BNL.shape)}; check it with recloop.testing.check_reranker"
        )
    return scores_BNL


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
