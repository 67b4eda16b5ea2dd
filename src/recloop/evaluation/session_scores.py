"""Sessions have one answer: every metric follows from the answer's rank, and is 0 where it was not ranked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from recloop.errors import SettingError
from recloop.evaluation.score import MetricsConfig, variant_from_lists
from recloop.rerankers.metrics import MetricName

if TYPE_CHECKING:
    from jaxtyping import Float64, Int64

    from recloop.evaluation.per_user_scores import VariantScores

NOT_RANKED = 0


def metric_of_rank(metric: str, ranks: Int64[np.ndarray, ...]) -> Float64[np.ndarray, ...]:
    """The metric of lists whose one relevant item stands at these ranks, from 1; 0 for `NOT_RANKED`.

    Raises:
        SettingError: a metric that is not ndcg@K, hr@K or mrr@K.

    Example:
        >>> metric_of_rank("mrr@3", np.array([1, 2, 4, 0])).tolist()
        [1.0, 0.5, 0.0, 0.0]
    """
    name = MetricName.parse(metric)
    assert name.k is not None or name.kind == "loglik"
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


def variant_from_ranks(
    name: str,
    ranks_by_seed: Mapping[int, Int64[np.ndarray, " S"]],
    user_S: Int64[np.ndarray, " S"],
    metrics: MetricsConfig,
) -> VariantScores:
    """The scores of a variant from the ranks of all answers; a user's sessions are that user's lists."""
    order = np.argsort(user_S, kind="stable")
    values = {
        seed: np.stack([metric_of_rank(metric, ranks[order]) for metric in metrics.names], axis=1)
        for seed, ranks in ranks_by_seed.items()
    }
    return variant_from_lists(name, values, user_S[order], metrics)
