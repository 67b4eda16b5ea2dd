"""Requests as they come: the scores of the whole lists, without computing the catalogue again."""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from ranking_by_hand import random_problem
from recloop.errors import ContractError, DataError
from recloop.records import UserVectors
from recloop.rerankers.request_scorer import ListRequest, prepare_requests
from test_rerankers_train import KINDS, fit

PROBLEM = random_problem()
ONE_TEXT = UserVectors(PROBLEM.vectors.user_U, PROBLEM.vectors.vectors_UND[:, :1])


@cache
def reranker_of(kind, *, has_history=True):
    settings = {"use_id_history": has_history, "use_item_knowledge": has_history}
    return fit(PROBLEM, PROBLEM.vectors, kind=kind, max_epochs=1, **settings)


def requests(ready, *, with_texts=True):
    """The test lists, whose lengths differ, under the first text of their users, with the users' histories."""
    lists = PROBLEM.test
    rows_B = ONE_TEXT.rows_of(lists.user_B)
    return [
        ListRequest(
            lists.items_BL[b][lists.is_item_BL[b]],
            ready.adapt(ONE_TEXT.vectors_UND[rows_B[b], 0]) if with_texts else None,
            PROBLEM.histories.of(int(lists.user_B[b])),
        )
        for b in range(len(lists))
    ]


@pytest.mark.parametrize("has_history", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_requests_are_scored_as_their_lists_one_by_one_and_together(kind, has_history):
    fitted = reranker_of(kind, has_history=has_history)
    ready = prepare_requests(fitted)
    asked = requests(ready)
    expected_BL = fitted.score(PROBLEM.test, ONE_TEXT)[:, 0]
    for row, together_L in enumerate(ready.score(asked)):
        expected_L = expected_BL[row][PROBLEM.test.is_item_BL[row]]
        np.testing.assert_allclose(ready.score([asked[row]])[0], expected_L, rtol=1e-6, atol=1e-6)
        np.testing.assert_allclose(together_L, expected_L, rtol=1e-6, atol=1e-6)


def test_a_history_that_the_log_does_not_have_is_read():
    ready = prepare_requests(reranker_of("mir"))
    one, *_ = requests(ready)
    items, ratings = one.history
    other = replace(one, history=((items + 1) % PROBLEM.features.num_items, ratings[::-1].copy()))
    assert np.abs(ready.score([one])[0] - ready.score([other])[0]).max() > 1e-3


def test_a_reranker_without_texts_takes_requests_too():
    fitted = fit(PROBLEM, None, kind="prm", max_epochs=1)
    ready = prepare_requests(fitted)
    one, *_ = requests(ready, with_texts=False)
    expected_L = fitted.score(PROBLEM.test, None)[0, 0][PROBLEM.test.is_item_BL[0]]
    np.testing.assert_allclose(ready.score([one])[0], expected_L, rtol=1e-6, atol=1e-6)
    with pytest.raises(ContractError, match="fitted without user vectors, got one"):
        ready.adapt(ONE_TEXT.vectors_UND[0, 0])


def test_what_cannot_be_scored_is_refused():
    fitted = reranker_of("prm")
    ready = prepare_requests(fitted)
    one, other, *_ = requests(ready)
    for items in ([], [-1], [fitted.shape.num_items]):
        with pytest.raises(DataError, match="candidates must be items from 0 to"):
            ready.score([one, replace(other, items_L=np.array(items, dtype=np.int64))])
    with pytest.raises(ContractError, match="every request needs a text, got 1"):
        ready.score([one, replace(other, adapted_A=None)])
