"""Several fits as one reranker."""

import numpy as np
import pytest

from ranking_by_hand import random_problem
from recloop.errors import SettingError
from recloop.ranking.ensemble import Ensemble
from test_ranking_fit import fit

PROBLEM = random_problem()
MEMBERS = tuple(fit(PROBLEM, PROBLEM.vectors, seed=seed, max_epochs=2) for seed in range(8))


def by_hand(members, row, draft):
    """Oracle: the mean of the members' log-probabilities of one list, item by item."""
    logps = []
    for member in members:
        scores = member.score(PROBLEM.test, PROBLEM.vectors)[row, draft][PROBLEM.test.is_item_BL[row]]
        odds = [np.exp(score) for score in scores.astype(float)]
        logps.append([np.log(one / sum(odds)) for one in odds])
    return np.mean(logps, axis=0)


def test_members_score_by_the_mean_of_their_log_probabilities():
    scores_BNL = Ensemble(MEMBERS[:3]).score(PROBLEM.test, PROBLEM.vectors)
    assert scores_BNL.dtype == np.float32
    np.testing.assert_array_equal(
        np.isneginf(scores_BNL), np.broadcast_to(~PROBLEM.test.is_item_BL[:, None], scores_BNL.shape)
    )
    for row in range(len(PROBLEM.test)):
        got = scores_BNL[row, 1][PROBLEM.test.is_item_BL[row]]
        np.testing.assert_allclose(got, by_hand(MEMBERS[:3], row, 1), rtol=1e-4, atol=1e-5)


def test_one_member_scores_as_it_does_alone():
    alone = MEMBERS[0].score(PROBLEM.test, PROBLEM.vectors)
    np.testing.assert_array_equal(Ensemble(MEMBERS[:1]).score(PROBLEM.test, PROBLEM.vectors), alone)


def test_ensembles_agree_better_than_their_members():
    def preferences(members):
        scores_BNL = Ensemble(members).score(PROBLEM.test, PROBLEM.vectors)
        is_item_BNL = np.broadcast_to(PROBLEM.test.is_item_BL[:, None], scores_BNL.shape)
        centred = np.where(is_item_BNL, scores_BNL, 0.0)
        return (centred - centred.mean(axis=1, keepdims=True))[is_item_BNL]

    def agreement(one, other):
        return np.corrcoef(preferences(one), preferences(other))[0, 1]

    single = np.mean([agreement(MEMBERS[k : k + 1], MEMBERS[k + 4 : k + 5]) for k in range(4)])
    assert agreement(MEMBERS[:4], MEMBERS[4:]) > single


def test_an_ensemble_is_read_back(tmp_path):
    for number, member in enumerate(MEMBERS[:2]):
        member.save(tmp_path / str(number))
    again = Ensemble.load([tmp_path / "0", tmp_path / "1"])
    expected = Ensemble(MEMBERS[:2]).score(PROBLEM.test, PROBLEM.vectors)
    np.testing.assert_array_equal(again.score(PROBLEM.test, PROBLEM.vectors), expected)


def test_no_member_is_an_error():
    with pytest.raises(SettingError, match="needs a member"):
        Ensemble(())
