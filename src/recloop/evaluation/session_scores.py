"""Sessions have one answer: every metric follows from the answer's rank, and is 0 where it was not ranked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from recloop.evaluation.score import MetricsConfig, variant_from_lists
from recloop.rerankers.metrics import metric_of_rank
from recloop.rerankers.session_baselines import item_knn_ranks, popularity_ranks

if TYPE_CHECKING:
    from jaxtyping import Int64

    from recloop.data.sessions import SessionTask
    from recloop.evaluation.per_user_scores import VariantScores

POPULARITY, ITEM_KNN, SASREC = "popularity", "item_knn", "sasrec"


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


def baseline_ranks(
    task: SessionTask, sasrec_by_seed: Mapping[int, Int64[np.ndarray, " S"]]
) -> dict[str, dict[int, Int64[np.ndarray, " S"]]]:
    """The answer's rank in every test session by each baseline without a language model, by name and seed.

    Args:
        sasrec_by_seed: ranks by the self-attentive baseline; the others are the same for every seed.
    """
    return {
        POPULARITY: dict.fromkeys(sasrec_by_seed, popularity_ranks(task)),
        ITEM_KNN: dict.fromkeys(sasrec_by_seed, item_knn_ranks(task)),
        SASREC: dict(sasrec_by_seed),
    }
