"""Best-of-N without peeking: the completion is chosen on half of a user's lists and scored on the other half.

An upper bound for what choosing among the same completions could give, honest because no list helps to choose
the completion it is scored with. Axis letters: ``B`` lists, ``N`` completions, ``S`` seeds, ``U`` users.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from recloop.evaluation.score import MetricsConfig, completion_scores, variant_from_lists
from recloop.records import Group
from recloop.rerankers.metrics import compute_completion_metrics

if TYPE_CHECKING:
    from jaxtyping import Float64, Int64

    from recloop.evaluation.per_user_scores import VariantScores
    from recloop.records import Lists, UserVectors
    from recloop.rerankers.protocol import Reranker

TIE = 1e-12  # means this close are equal but for rounding


def cross_validated_best(
    name: str,
    fitted_by_seed: Mapping[int, Reranker],
    lists: Lists,
    vectors: UserVectors,
    metrics: MetricsConfig,
    choose_by: str,
) -> VariantScores:
    """The scores of cross-validated best-of-N, on the same users as `score_variant`.

    A user's lists are dealt in turn into two halves, in time order; a half is scored with the completion that was
    best on the other. Completions that tie for best share the score. A user with one list offers nothing to
    choose on and scores the mean over completions.

    Args:
        name, fitted_by_seed, lists, metrics: as for `score_variant`.
        vectors: encoded completions, N per user.
        choose_by: the metric by which a completion is best, e.g. the reward's.

    Raises:
        LeakageError: the lists belong to train or reward users.
        ContractError: a reranker's scores have the wrong shape.
        DataError: no list counts.
    """
    lists.require(Group.VALID, Group.TEST)
    values_by_seed: dict[int, np.ndarray] = {}
    for seed, fitted in fitted_by_seed.items():
        scores_BNL = completion_scores(fitted, lists, vectors)
        shares_BN = chosen_shares(compute_completion_metrics(choose_by, scores_BNL, lists), lists.user_B)
        values_MBN = [compute_completion_metrics(metric, scores_BNL, lists) for metric in metrics.names]
        values_by_seed[seed] = np.stack([(values_BN * shares_BN).sum(axis=1) for values_BN in values_MBN], axis=1)
    return variant_from_lists(name, values_by_seed, lists.user_B, metrics)


def chosen_shares(values_BN: Float64[np.ndarray, "B N"], user_B: Int64[np.ndarray, " B"]) -> Float64[np.ndarray, "B N"]:
    """What share of each list's score each completion gets, assessed by the user's other half of lists.

    Args:
        values_BN: what the choice goes by; NaN where a list has no positive, which then chooses nothing.
        user_B: ascending; the lists of one user in time order.

    Returns:
        Rows sum to 1.
    """
    has_value_B = np.asarray(np.isfinite(values_BN).all(axis=1))
    user_U, own_user_B = np.unique(user_B, return_inverse=True)
    half_B = _place_within_user(own_user_B, has_value_B) % 2
    own_B = 2 * own_user_B + half_B
    num_halves = 2 * len(user_U)
    sums_HN = np.zeros((num_halves, values_BN.shape[1]))
    np.add.at(sums_HN, own_B[has_value_B], values_BN[has_value_B])
    sizes_H = np.bincount(own_B[has_value_B], minlength=num_halves)

    other_B = own_B ^ 1
    means_BN = sums_HN[other_B] / np.maximum(sizes_H[other_B], 1)[:, None]
    is_best_BN = means_BN >= means_BN.max(axis=1, keepdims=True) - TIE
    return is_best_BN / is_best_BN.sum(axis=1, keepdims=True)


def _place_within_user(own_user_B: Int64[np.ndarray, " B"], has_value_B: np.ndarray) -> Int64[np.ndarray, " B"]:
    """How many earlier lists of the same user have a value."""
    before_B = np.cumsum(has_value_B) - has_value_B
    _, first_U = np.unique(own_user_B, return_index=True)
    return before_B - before_B[first_U][own_user_B]
