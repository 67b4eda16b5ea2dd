"""A user without a language model: the mean of the vectors of items that the user rated."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from recloop.records import UserVectors

if TYPE_CHECKING:
    from jaxtyping import Float32, Int64

    from recloop.records import Histories


def rating_weighted_means(
    histories: Histories, item_vectors_ID: Float32[np.ndarray, "I D"], user_U: Int64[np.ndarray, " U"]
) -> UserVectors:
    """Mean of the vectors of a user's window, each weighted by its rating.

    Weights are positive, so the mean tells first what a user watches, then what of it was liked: in lists
    with random negatives that is most of what can be known. On a scale that reaches 0 or below the lowest
    rating weighs 1. Without ratings all items weigh the same. A user without history gets the catalogue's
    mean.

    Args:
        histories: knowledge windows.
        item_vectors_ID: one row per item.
        user_U: users wanted, ascending.

    Returns:
        One completion per user.
    """
    user_n = np.repeat(np.arange(histories.num_users), np.diff(histories.offsets_U1))
    is_rated_n = ~np.isnan(histories.rating)
    lowest = float(histories.rating[is_rated_n].min()) if is_rated_n.any() else 1.0
    weight_n = np.where(is_rated_n, histories.rating + (1 - lowest if lowest <= 0 else 0.0), 1.0)
    sums_UD = np.zeros((histories.num_users, item_vectors_ID.shape[1]))
    np.add.at(sums_UD, user_n, weight_n[:, None] * item_vectors_ID[histories.items])
    norm_U = np.bincount(user_n, weights=weight_n, minlength=histories.num_users)
    means_UD = np.divide(
        sums_UD,
        norm_U[:, None],
        out=np.tile(item_vectors_ID.mean(axis=0, dtype=np.float64), (histories.num_users, 1)),
        where=norm_U[:, None] > 0,
    )
    return UserVectors(user_U, means_UD[user_U][:, None].astype(np.float32))
