"""Ranking metrics, one value per list, vectorised over lists.

Arguments are alike: `scores_BL`, higher is better and finite at items; `labels_BL`, relevant where positive;
`is_item_BL`, False at padding; the cut-off `k`, at least 1. Ties keep the input order: lists are shuffled when they
are built, so a constant scorer gets chance. A list without a positive label has the value NaN.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, cast, get_args

import numpy as np

from recloop.errors import ContractError, SettingError

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Float64, Int64

    from recloop.records import Lists, UserVectors
    from recloop.rerankers.protocol import Reranker

    Grid = Float[np.ndarray, "B L"]
    Mask = Bool[np.ndarray, "B L"]
    PerList = Float64[np.ndarray, " B"]

Norm = Literal["all", "min", "hits"]
Empty = Literal["drop", "zero"]
MetricKind = Literal["ndcg", "map", "map_min", "map_kar", "mrr", "hr", "loglik"]

MAP_NORMS: dict[str, Norm] = {"map": "all", "map_min": "min", "map_kar": "hits"}
NOT_RANKED = 0  # the rank of an answer that was not named


@dataclass(frozen=True, slots=True)
class MetricName:
    """A metric and its cut-off, written ``ndcg@5``; ``loglik`` has no cut-off (k is None)."""

    kind: MetricKind
    k: int | None

    @classmethod
    def parse(cls, text: str) -> MetricName:
        """Read ``ndcg@5``, ``map@5``, ``map_min@5``, ``map_kar@5``, ``mrr@10``, ``hr@5`` or ``loglik``.

        Raises:
            SettingError: another name, or a cut-off where none belongs, or none where one does.

        Example:
            >>> MetricName.parse("map_min@5")
            MetricName(kind='map_min', k=5)
        """
        choices = get_args(MetricKind)
        match = re.fullmatch(r"([a-z_]+)(?:@([1-9][0-9]*))?", text)
        if match is None or match[1] not in choices or (match[1] == "loglik") != (match[2] is None):
            names = ", ".join("loglik" if kind == "loglik" else f"{kind}@K" for kind in choices)
            raise SettingError(f"a metric is one of {names} with K at least 1, got {text!r}; e.g. ndcg@5")
        return cls(cast(MetricKind, match[1]), int(match[2]) if match[2] else None)

    def __str__(self) -> str:
        return self.kind if self.k is None else f"{self.kind}@{self.k}"


def ndcg(scores_BL: Grid, labels_BL: Grid, is_item_BL: Mask, k: int) -> PerList:
    """Normalised discounted cumulative gain of the first `k`, in [0, 1]; the gain is the grade, as in trec_eval."""
    ranked_BL = _ranked_labels(scores_BL, labels_BL, is_item_BL, k)
    ideal_BL = -np.sort(-np.where(is_item_BL, labels_BL, 0.0), axis=1)
    discount_K = 1.0 / np.log2(np.arange(2, min(k, labels_BL.shape[1]) + 2))
    num_top = len(discount_K)
    return _divide(ranked_BL[:, :num_top] @ discount_K, ideal_BL[:, :num_top] @ discount_K)


def average_precision(scores_BL: Grid, labels_BL: Grid, is_item_BL: Mask, k: int, norm: Norm) -> PerList:
    """Average precision of the first `k`, in [0, 1].

    Args:
        norm: divisor of the sum of precisions: ``all`` relevant items (trec_eval), ``min`` of their number and k, or
            the ``hits`` in the first k (KAR's code; 0 when there is none).
    """
    hits_BL = (_ranked_labels(scores_BL, labels_BL, is_item_BL, k) > 0).astype(np.float64)
    num_relevant_B = hits_BL.sum(axis=1)
    hits_BK = hits_BL[:, :k]
    precision_BK = np.cumsum(hits_BK, axis=1) / np.arange(1, hits_BK.shape[1] + 1)
    total_B = (precision_BK * hits_BK).sum(axis=1)
    match norm:
        case "all":
            return _divide(total_B, num_relevant_B)
        case "min":
            return _divide(total_B, np.minimum(num_relevant_B, k))
        case "hits":
            found_B = np.maximum(hits_BK.sum(axis=1), 1.0)
            return np.where(num_relevant_B > 0, total_B / found_B, np.nan)


def reciprocal_rank(scores_BL: Grid, labels_BL: Grid, is_item_BL: Mask, k: int) -> PerList:
    """One over the rank of the first relevant item, 0 when that is after `k`."""
    hits_BL = _ranked_labels(scores_BL, labels_BL, is_item_BL, k) > 0
    first_B = hits_BL.argmax(axis=1)
    return np.where(hits_BL.any(axis=1), (first_B < k) / (first_B + 1.0), np.nan)


def hit_rate(scores_BL: Grid, labels_BL: Grid, is_item_BL: Mask, k: int) -> PerList:
    """1 when a relevant item is among the first `k`, else 0."""
    hits_BL = _ranked_labels(scores_BL, labels_BL, is_item_BL, k) > 0
    return np.where(hits_BL.any(axis=1), hits_BL[:, :k].any(axis=1).astype(np.float64), np.nan)


def list_log_likelihood(scores_BL: Grid, labels_BL: Grid, is_item_BL: Mask) -> PerList:
    """Mean over relevant items of their log-probability under the softmax of the list's scores.

    Natural logarithm, at most 0. Unlike the other metrics it changes with every score.
    """
    _check(scores_BL, labels_BL, is_item_BL)
    scores_BL = np.where(is_item_BL, scores_BL.astype(np.float64), -np.inf)
    top_B1 = scores_BL.max(axis=1, keepdims=True)
    log_norm_B1 = top_B1 + np.log(np.exp(scores_BL - top_B1).sum(axis=1, keepdims=True))
    is_positive_BL = is_item_BL & (labels_BL > 0)
    logp_BL = np.where(is_positive_BL, scores_BL - log_norm_B1, 0.0)
    return _divide(logp_BL.sum(axis=1), is_positive_BL.sum(axis=1).astype(np.float64))


def compute_metric(name: str | MetricName, scores_BL: Grid, lists: Lists) -> PerList:
    """One metric of every list that was scored, by a name as `MetricName.parse` reads it."""
    metric = MetricName.parse(name) if isinstance(name, str) else name
    k = metric.k or lists.items_BL.shape[1]
    arrays = (scores_BL, lists.labels_BL, lists.is_item_BL)
    match metric.kind:
        case "ndcg":
            return ndcg(*arrays, k)
        case "map" | "map_min" | "map_kar":
            return average_precision(*arrays, k, MAP_NORMS[metric.kind])
        case "mrr":
            return reciprocal_rank(*arrays, k)
        case "hr":
            return hit_rate(*arrays, k)
        case "loglik":
            return list_log_likelihood(*arrays)


def checked_scores(reranker: Reranker, lists: Lists, vectors: UserVectors | None) -> Float[np.ndarray, "B N L"]:
    """What a reranker scores; ContractError when it is not one score per list, completion and item."""
    scores_BNL = np.asarray(reranker.score(lists, vectors))
    expected = (len(lists), 1 if vectors is None else vectors.vectors_UND.shape[1], lists.items_BL.shape[1])
    if scores_BNL.shape != expected:
        raise ContractError(
            f"a reranker must score [lists, completions, items] = {list(expected)}, got {list(scores_BNL.shape)}; "
            f"check it with recloop.testing.check_reranker"
        )
    return scores_BNL


def compute_completion_metrics(
    name: str | MetricName, scores_BNL: Float[np.ndarray, "B N L"], lists: Lists
) -> Float64[np.ndarray, "B N"]:
    """One metric of every list under each of N completions: `compute_metric`, N times."""
    values_NB = [compute_metric(name, scores_BNL[:, completion], lists) for completion in range(scores_BNL.shape[1])]
    return np.stack(values_NB, axis=1)


def metric_of_rank(metric: str, ranks: Int64[np.ndarray, ...]) -> Float64[np.ndarray, ...]:
    """The metric of lists whose one relevant item stands at these ranks, from 1; 0 for `NOT_RANKED`.

    Raises:
        SettingError: a metric that is not ndcg@K, hr@K or mrr@K.

    Example:
        >>> metric_of_rank("mrr@3", np.array([1, 2, 4, 0])).tolist()
        [1.0, 0.5, 0.0, 0.0]
    """
    name = MetricName.parse(metric)
    is_hit = (ranks > NOT_RANKED) & (ranks <= (name.k or 0))
    safe = np.where(is_hit, ranks, 1).astype(np.float64)
    match name.kind:
        case "ndcg":
            return is_hit / np.log2(1 + safe)
        case "hr":
            return is_hit.astype(np.float64)
        case "mrr":
            return is_hit / safe
        case _:
            raise SettingError(f"a session has one answer and is measured by ndcg@K, hr@K or mrr@K, got {metric}")


def user_means(
    values_B: Float[np.ndarray, "B ..."], user_B: Int64[np.ndarray, " B"], empty: Empty
) -> tuple[Int64[np.ndarray, " U"], Float64[np.ndarray, "U ..."]]:
    """Mean over each user's lists.

    Args:
        values_B: one metric value (or one per completion) per list; NaN marks a list without positives.
        user_B: the user of each list.
        empty: ``drop`` leaves such lists out, and a user with no other list too; ``zero`` counts them as 0.

    Returns:
        Users, ascending, and their means.
    """
    values_B = np.asarray(values_B, dtype=np.float64)
    if empty == "zero":
        values_B = np.nan_to_num(values_B, nan=0.0)
    is_kept_B = ~np.isnan(values_B).any(axis=tuple(range(1, values_B.ndim)))
    user_U, row_B, count_U = np.unique(user_B[is_kept_B], return_inverse=True, return_counts=True)
    sums_U = np.zeros((len(user_U), *values_B.shape[1:]))
    np.add.at(sums_U, row_B, values_B[is_kept_B])
    return user_U, sums_U / count_U.reshape(-1, *(1 for _ in values_B.shape[1:]))


def _ranked_labels(scores_BL: Grid, labels_BL: Grid, is_item_BL: Mask, k: int) -> Float64[np.ndarray, "B L"]:
    """Labels from best to worst score, padding (label 0) last."""
    if k < 1:
        raise SettingError(f"k must be at least 1, got {k}; use k={scores_BL.shape[1]} for the whole list")
    _check(scores_BL, labels_BL, is_item_BL)
    order_BL = np.argsort(np.where(is_item_BL, -scores_BL.astype(np.float64), np.inf), axis=1, kind="stable")
    return np.take_along_axis(np.where(is_item_BL, labels_BL, 0.0).astype(np.float64), order_BL, axis=1)


def _check(scores_BL: Grid, labels_BL: Grid, is_item_BL: Mask) -> None:
    if scores_BL.shape != labels_BL.shape or scores_BL.shape != is_item_BL.shape or scores_BL.ndim != 2:
        raise ContractError(
            f"scores, labels and mask must be one [lists, items] shape, got {scores_BL.shape}, "
            f"{labels_BL.shape} and {is_item_BL.shape}; score one completion at a time"
        )
    is_bad_BL = is_item_BL & ~np.isfinite(scores_BL)
    if is_bad_BL.any():
        row, place = np.argwhere(is_bad_BL)[0]
        raise ContractError(
            f"scores of items must be finite, got {scores_BL[row, place]} in list {row} at place {place} "
            f"({int(is_bad_BL.sum())} in all); check the reranker that wrote them"
        )


def _divide(sums_B: np.ndarray, norms_B: np.ndarray) -> PerList:
    return np.divide(sums_B, norms_B, out=np.full(len(sums_B), np.nan), where=norms_B > 0)
