"""Rankings of a session's candidates that need no language model, learnt from the training sessions alone.

Equal scores are ranked in the order of the candidates, which is random.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from recloop.data.sessions import Session, SessionTask

if TYPE_CHECKING:
    from jaxtyping import Float, Int64

POPULARITY, ITEM_KNN, SASREC = "popularity", "item_knn", "sasrec"


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


def popularity_ranks(task: SessionTask) -> Int64[np.ndarray, " S"]:
    """The answer's rank, from 1, when candidates stand by how many training sessions hold them."""
    count_I = _holds(task).sum(axis=0)
    return np.array(
        [rank_of_answer(session, count_I[list(session.candidates)]) for session in task.test], dtype=np.int64
    )


def item_knn_ranks(task: SessionTask) -> Int64[np.ndarray, " S"]:
    """The answer's rank, from 1, by the summed cosine between a candidate and the items shown.

    The cosine is that of the columns which say, training session by training session, who held the item.
    """
    columns_SI = _unit_columns(_holds(task))
    ranks: list[int] = []
    for session in task.test:
        shown_S = columns_SI[:, list(session.items)].sum(axis=1)
        ranks.append(rank_of_answer(session, shown_S @ columns_SI[:, list(session.candidates)]))
    return np.array(ranks, dtype=np.int64)


def likely_next(task: SessionTask, shown: Sequence[int], num: int) -> list[int]:
    """The `num` items most like those shown by the training sessions, the popular ones where none is."""
    holds_SI = _holds(task)
    count_I = holds_SI.sum(axis=0)
    columns_SI = _unit_columns(holds_SI)
    score_I = columns_SI[:, list(shown)].sum(axis=1) @ columns_SI
    score_I[list(shown)] = -np.inf
    order = np.lexsort((-count_I, -score_I))
    return [item for item in order.tolist() if item not in set(shown)][:num]


def _holds(task: SessionTask) -> Float[np.ndarray, "S I"]:
    holds_SI = np.zeros((len(task.train), task.items.height), dtype=np.float32)
    for row, session in enumerate(task.train):
        holds_SI[row, [*session.items, session.answer]] = 1
    return holds_SI


def _unit_columns(holds_SI: Float[np.ndarray, "S I"]) -> Float[np.ndarray, "S I"]:
    return holds_SI / np.sqrt(np.maximum(holds_SI.sum(axis=0), 1))


def rank_of_answer(session: Session, scores_C: np.ndarray) -> int:
    """From 1, of a session's right candidate by the scores of all."""
    order = np.argsort(-scores_C, kind="stable")
    return int(np.flatnonzero(order == session.answer_place)[0]) + 1
