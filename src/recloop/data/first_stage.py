"""The first stage: which items a simple recommender proposes to each user from the knowledge window.

It is fitted on train users only. A train user is served by a model fitted on the other half of the train
users, so that the items met after this user's window are as new to it as those of a test user.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from recloop.errors import DataError
from recloop.records import Histories, Log

# scipy.sparse and implicit come without types.
# pyright: reportMissingTypeStubs=false
SparseMatrix = Any
USERS_AT_ONCE = 1_000


class FirstStageConfig(BaseModel):
    """Who proposes the items."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["item_knn", "als"] = Field(default="item_knn", description="Item neighbours, or factors by ALS.")
    neighbours: int = Field(default=50, ge=1, description="item_knn: neighbours kept per item.")
    factors: int = Field(default=64, ge=1, description="als: width of the factors.")
    iterations: int = Field(default=15, ge=1, description="als: alternations.")
    regularization: float = Field(default=0.05, gt=0, description="als: weight of the squared factors.")


def propose_items(
    dataset: Log, histories: Histories, train_users: np.ndarray, config: FirstStageConfig, top: int
) -> np.ndarray:
    """The best items for every user, none of them from the user's knowledge window.

    Positive interactions only, each of weight 1: of the train users all of them to fit, of the user served
    those in the window. A user without positives in the window gets the most popular items.

    Args:
        dataset: the log.
        histories: the knowledge windows.
        train_users: whose interactions fit the model.
        config: which model.
        top: how many items a user gets.

    Returns:
        Int64 [U, top] of item numbers, best first, padded with -1 where the catalogue is too small.

    Raises:
        DataError: fewer than two train users.
    """
    if len(train_users) < 2:
        raise DataError(f"a first stage needs two train users or more, got {len(train_users)}; use protocol kar")
    window_UI = _window_matrix(dataset, histories)
    met_UI = _window_matrix(dataset, histories, positives_only=False)
    log_UI = _log_matrix(dataset)
    proposed = np.full((dataset.num_users, top), -1, dtype=np.int64)
    halves = (np.sort(train_users)[0::2], np.sort(train_users)[1::2])
    others = np.setdiff1d(np.arange(dataset.num_users), train_users)
    for fitted_on, server in ((halves[0], halves[1]), (halves[1], halves[0]), (train_users, others)):
        fit_UI = log_UI[fitted_on]
        score = fit_knn(fit_UI, config) if config.kind == "item_knn" else _fit_als(fit_UI, config)
        popularity_I = np.asarray(fit_UI.sum(axis=0), dtype=np.float64).ravel()
        for first in range(0, len(server), USERS_AT_ONCE):
            users = server[first : first + USERS_AT_ONCE]
            scores_UI = np.where(window_UI[users].getnnz(axis=1)[:, None] > 0, score(window_UI[users]), 0.0)
            # A trace of popularity orders what the model leaves at 0.
            scores_UI += 1e-6 * popularity_I / max(popularity_I.max(), 1.0)
            scores_UI[met_UI[users].nonzero()] = -np.inf
            proposed[users] = _best(scores_UI, top)
    return proposed


def _best(scores_UI: np.ndarray, top: int) -> np.ndarray:
    """The `top` best items of each row, -1 for those that score -inf and for what is missing."""
    top_UK = np.argpartition(-scores_UI, min(top, scores_UI.shape[1]) - 1, axis=1)[:, :top]
    by_score = np.argsort(-np.take_along_axis(scores_UI, top_UK, axis=1), axis=1, kind="stable")
    order = np.take_along_axis(top_UK, by_score, axis=1)
    best = np.where(np.isfinite(np.take_along_axis(scores_UI, order, axis=1)), order, -1)
    return np.pad(best, ((0, 0), (0, top - best.shape[1])), constant_values=-1)


def fit_knn(fit_UI: SparseMatrix, config: FirstStageConfig) -> Callable[[SparseMatrix], np.ndarray]:
    """Item neighbours by cosine: a function from users' rows to the scores of all items."""
    from implicit.nearest_neighbours import CosineRecommender

    model: Any = CosineRecommender(K=config.neighbours + 1, num_threads=1)  # an item is its own nearest
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # implicit warns of its own conversion to CSR
        model.fit(fit_UI, show_progress=False)
    similarity_II = model.similarity.tocsr()
    return lambda window_UI: np.asarray((window_UI @ similarity_II).todense(), dtype=np.float64)


def _fit_als(fit_UI: SparseMatrix, config: FirstStageConfig) -> Callable[[SparseMatrix], np.ndarray]:
    from implicit.cpu.als import AlternatingLeastSquares
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1, "blas"):
        model: Any = AlternatingLeastSquares(
            factors=config.factors,
            iterations=config.iterations,
            regularization=config.regularization,
            num_threads=1,
            random_state=0,
        )
        model.fit(fit_UI, show_progress=False)

    def score(window_UI: SparseMatrix) -> np.ndarray:
        with threadpool_limits(1, "blas"):
            users_UF = model.recalculate_user(np.arange(window_UI.shape[0]), window_UI)
        return np.asarray(users_UF @ model.item_factors.T, dtype=np.float64)

    return score


def _log_matrix(dataset: Log) -> SparseMatrix:
    from scipy.sparse import csr_matrix

    log = dataset.interactions
    if dataset.positive_from_rating is not None:
        log = log.filter(log["rating"] >= dataset.positive_from_rating)
    shape = (dataset.num_users, dataset.num_items)
    ones = np.ones(log.height, np.float32)
    return csr_matrix((ones, (log["user"].to_numpy(), log["item"].to_numpy())), shape=shape)


def _window_matrix(dataset: Log, histories: Histories, positives_only: bool = True) -> SparseMatrix:
    from scipy.sparse import csr_matrix

    users = np.repeat(np.arange(dataset.num_users), np.diff(histories.offsets_U1))
    kept = np.ones(len(users), dtype=bool)
    if positives_only and dataset.positive_from_rating is not None:
        kept = histories.rating >= dataset.positive_from_rating
    shape = (dataset.num_users, dataset.num_items)
    ones = np.ones(int(kept.sum()), np.float32)
    return csr_matrix((ones, (users[kept], histories.items[kept])), shape=shape)
