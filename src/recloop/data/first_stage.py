"""The first stage: which items a simple recommender proposes to each user from the knowledge window.

It is fitted on train users only. A train user's items come from a model fitted on the other half of the train
users, so that the items after this user's window are as new to it as those of a test user.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

from recloop.errors import DataError, needs_extra
from recloop.records import Histories, Log

# scipy.sparse and implicit come without types.
# pyright: reportMissingTypeStubs=false
SparseMatrix = Any
USERS_AT_ONCE = 1_000
NEIGHBOURS = 50  # guess: kept per item


def propose_items(log: Log, histories: Histories, train_users: np.ndarray, top: int) -> np.ndarray:
    """The best items for every user, none of the knowledge window: Int64 [U, top], best first, -1 where too few.

    Only positive interactions count, each with weight 1. The model is fitted on all of the train users' and scores a
    user by those in the window; without any, a user gets the most popular items. In a log where users have items more
    than once, those of the window are proposed too. DataError: fewer than two train users.
    """
    if len(train_users) < 2:
        raise DataError(f"a first stage needs two train users or more, got {len(train_users)}; use protocol kar")
    window_UI = _window_matrix(log, histories)
    met_UI = _window_matrix(log, histories, positives_only=False)
    users, items = (log.interactions[name].to_numpy() for name in ("user", "item"))
    comes_again = _matrix(log, users, items).nnz < log.interactions.height
    log_UI = _log_matrix(log)
    proposed = np.full((log.num_users, top), -1, dtype=np.int64)
    halves = (np.sort(train_users)[0::2], np.sort(train_users)[1::2])
    others = np.setdiff1d(np.arange(log.num_users), train_users)
    for fitted_on, scored in ((halves[0], halves[1]), (halves[1], halves[0]), (train_users, others)):
        fit_UI = log_UI[fitted_on]
        score = fit_knn(fit_UI)
        popularity_I = np.asarray(fit_UI.sum(axis=0), dtype=np.float64).ravel()
        for first in range(0, len(scored), USERS_AT_ONCE):
            users = scored[first : first + USERS_AT_ONCE]
            scores_UI = np.where(window_UI[users].getnnz(axis=1)[:, None] > 0, score(window_UI[users]), 0.0)
            # A trace of popularity orders what the model leaves at 0.
            scores_UI += 1e-6 * popularity_I / max(popularity_I.max(), 1.0)
            if not comes_again:
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


def fit_knn(fit_UI: SparseMatrix) -> Callable[[SparseMatrix], np.ndarray]:
    """A function from users' rows to the scores of all items, by the cosines of item neighbours."""
    with needs_extra("retrieval"):
        from implicit.nearest_neighbours import CosineRecommender

    model: Any = CosineRecommender(K=NEIGHBOURS + 1, num_threads=1)  # an item is its own nearest
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # implicit warns of its own conversion to CSR
        model.fit(fit_UI, show_progress=False)
    similarity_II = model.similarity.tocsr()
    return lambda window_UI: np.asarray((window_UI @ similarity_II).todense(), dtype=np.float64)


def _log_matrix(log: Log) -> SparseMatrix:
    """Whether a user has a positive interaction with an item [U, I]."""
    met = log.interactions
    if log.positive_from_rating is not None:
        met = met.filter(met["rating"] >= log.positive_from_rating)
    return _matrix(log, met["user"].to_numpy(), met["item"].to_numpy())


def _window_matrix(log: Log, histories: Histories, positives_only: bool = True) -> SparseMatrix:
    """Whether a user's knowledge window has an item [U, I]."""
    users = np.repeat(np.arange(log.num_users), np.diff(histories.offsets_U1))
    kept = np.ones(len(users), dtype=bool)
    if positives_only and log.positive_from_rating is not None:
        kept = histories.rating >= log.positive_from_rating
    return _matrix(log, users[kept], histories.items[kept])


def _matrix(log: Log, users: np.ndarray, items: np.ndarray) -> SparseMatrix:
    from scipy.sparse import csr_matrix

    matrix = csr_matrix((np.ones(len(users), np.float32), (users, items)), shape=(log.num_users, log.num_items))
    matrix.data[:] = 1.0  # what a user met several times was added up
    return matrix
