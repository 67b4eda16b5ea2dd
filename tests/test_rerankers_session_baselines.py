"""Popularity and item kNN over sessions, worked out by hand."""

import polars as pl

from recloop.data.sessions import Session, SessionTask
from recloop.records import Domain
from recloop.rerankers.session_baselines import item_knn_ranks, likely_next, popularity_ranks

ITEMS = pl.DataFrame({"item": range(6), "item_id": [str(n) for n in range(6)], "title": [f"T{n}" for n in range(6)]})
TRAIN = (
    Session(0, 0, (0,), 1, (1, 2)),
    Session(1, 1, (0, 2), 1, (1, 3)),
    Session(2, 2, (2,), 3, (3, 1)),
    Session(3, 3, (4, 2), 3, (3, 1)),
)
# Held by training sessions: item 0 twice, 1 twice, 2 three times, 3 twice, 4 once, 5 never.


def task(*test: Session) -> SessionTask:
    return SessionTask("small", Domain.MOVIES, ITEMS, (), TRAIN, test)


def test_popularity_counts_training_sessions_and_ties_keep_the_order() -> None:
    first = Session(9, 9, (5,), 3, (5, 4, 3, 2, 1))  # counts 0, 1, 2, 3, 2: answer 3 after 2, before 1
    assert popularity_ranks(task(first)).tolist() == [2]


def test_knn_adds_the_cosines_with_the_items_shown() -> None:
    # Shown 0 (sessions 0, 1). Cosines: 1 (0, 1): 2/2 = 1; 2 (1, 2, 3): 1/sqrt(6); 3 (2, 3): 0; 4: 0.
    asked = [Session(9, 9, (0,), answer, (3, 4, 2, 1)) for answer in (1, 2, 3, 4)]
    assert item_knn_ranks(task(*asked)).tolist() == [1, 2, 3, 4]


def test_likely_items_are_near_then_popular_and_never_shown() -> None:
    assert likely_next(task(), [0], 5) == [1, 2, 3, 4, 5]
    assert likely_next(task(), [5], 3) == [2, 0, 1]
