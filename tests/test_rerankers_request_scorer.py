"""One request at a time: the scores of the whole lists, without computing the catalogue again."""

from functools import cache

import numpy as np
import pytest

from ranking_by_hand import random_problem
from recloop.errors import ContractError, DataError
from recloop.records import UserVectors
from recloop.rerankers.request_scorer import prepare_requests
from test_rerankers_train import KINDS, fit

PROBLEM = random_problem()
ONE_TEXT = UserVectors(PROBLEM.vectors.user_U, PROBLEM.vectors.vectors_UND[:, :1])


@cache
def reranker_of(kind, *, has_history=True):
    settings = {"use_id_history": has_history, "use_item_knowledge": has_history}
    return fit(PROBLEM, PROBLEM.vectors, kind=kind, max_epochs=1, **settings)


@pytest.mark.parametrize("has_history", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_a_request_is_scored_as_its_list(kind, has_history):
    fitted, lists = reranker_of(kind, has_history=has_history), PROBLEM.test
    expected_BNL = fitted.score(lists, ONE_TEXT)
    ready = prepare_requests(fitted, lists.user_B, PROBLEM.vectors)
    for row in range(len(lists)):
        is_item_L = lists.is_item_BL[row]
        scores_L = ready.score(int(lists.user_B[row]), lists.items_BL[row][is_item_L])
        np.testing.assert_allclose(scores_L, expected_BNL[row, 0][is_item_L], rtol=1e-4, atol=1e-5)


def test_a_reranker_without_texts_takes_requests_too():
    fitted = fit(PROBLEM, None, kind="prm", max_epochs=1)
    ready = prepare_requests(fitted, PROBLEM.test.user_B, None)
    is_item_L, user = PROBLEM.test.is_item_BL[0], int(PROBLEM.test.user_B[0])
    scores_L = ready.score(user, PROBLEM.test.items_BL[0][is_item_L])
    expected_L = fitted.score(PROBLEM.test, None)[0, 0][is_item_L]
    np.testing.assert_allclose(scores_L, expected_L, rtol=1e-4, atol=1e-5)


def test_what_was_not_prepared_is_refused():
    fitted = reranker_of("prm")
    ready = prepare_requests(fitted, PROBLEM.test.user_B[:1], PROBLEM.vectors)
    user = int(PROBLEM.test.user_B[0])
    with pytest.raises(DataError, match="user 9999 must be prepared, got 1 others"):
        ready.score(9999, [0])
    for items in ([], [-1], [fitted.shape.num_items]):
        with pytest.raises(DataError, match="candidates must be items from 0 to"):
            ready.score(user, items)
    with pytest.raises(ContractError, match="fitted with user vectors, got none"):
        prepare_requests(fitted, PROBLEM.test.user_B, None)
