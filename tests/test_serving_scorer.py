"""Lists scored with what is known of items computed once: the scores of the fitted reranker itself."""

from functools import cache

import numpy as np
import pytest

from ranking_by_hand import random_problem
from recloop.errors import ContractError
from recloop.records import UserVectors
from recloop.rerankers.fitted import FittedReranker
from recloop.serving.scorer import ListQuery, ListScorer
from test_rerankers_train import KINDS, fit

pytestmark = pytest.mark.slow  # a short fit each
PROBLEM = random_problem()


@cache
def reranker_of(kind: str) -> FittedReranker:
    return fit(PROBLEM, PROBLEM.vectors, kind=kind, use_id_history=True, use_item_knowledge=True, max_epochs=1)


def queries(scorer: ListScorer, vectors: UserVectors) -> list[ListQuery]:
    """The test lists, whose lengths differ, under the first text of their users, with the users' histories."""
    lists = PROBLEM.test
    rows_B = vectors.rows_of(lists.user_B)
    return [
        ListQuery(
            lists.items_BL[b][lists.is_item_BL[b]],
            scorer.adapt(vectors.vectors_UND[rows_B[b], 0]),
            PROBLEM.histories.of(int(lists.user_B[b])),
        )
        for b in range(len(lists))
    ]


@pytest.mark.parametrize("kind", KINDS)
def test_scores_are_those_of_the_reranker_one_by_one_and_together(kind: str) -> None:
    fitted = reranker_of(kind)
    scorer = ListScorer.of(fitted)
    asked = queries(scorer, PROBLEM.vectors)
    expected_BL = fitted.score(PROBLEM.test, PROBLEM.vectors)[:, 0]
    alone = [scorer.score([query])[0] for query in asked]
    for row, (one, together) in enumerate(zip(alone, scorer.score(asked), strict=True)):
        expected_L = expected_BL[row][PROBLEM.test.is_item_BL[row]]
        np.testing.assert_allclose(one, expected_L, atol=1e-6, rtol=1e-6)
        np.testing.assert_allclose(together, expected_L, atol=1e-6, rtol=1e-6)


def test_a_history_changes_the_scores_of_a_reranker_that_reads_it() -> None:
    scorer = ListScorer.of(reranker_of("mir"))
    one, *_ = queries(scorer, PROBLEM.vectors)
    items, ratings = one.history
    other = ListQuery(one.items_L, one.adapted_A, ((items + 1) % PROBLEM.features.num_items, ratings[::-1].copy()))
    assert np.abs(scorer.score([one])[0] - scorer.score([other])[0]).max() > 1e-3


def test_a_reranker_without_texts_is_refused() -> None:
    with pytest.raises(ContractError, match="ranks by texts"):
        ListScorer.of(fit(PROBLEM, None, kind="prm", max_epochs=1))
