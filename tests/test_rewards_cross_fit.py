"""Rewards as other users' completions predicts them."""

import numpy as np
import pytest

from recloop.errors import DataError
from recloop.records import Rewards, UserVectors
from recloop.rewards.cross_fit import FOLDS, cross_fit_rewards


def make(num_users=60, num_completions=6, width=4, noise=0.0, weight=(1.0, 0.0, 0.0, 0.0), seed=0):
    """Rewards that are a user's mean, a weight of the vector, and noise; vectors of two more users."""
    rng = np.random.default_rng(seed)
    vectors_UND = rng.normal(size=(num_users + 2, num_completions, width)).astype(np.float32)
    user_U = np.arange(num_users + 2) * 3
    mean_U1 = rng.normal(size=(num_users, 1))
    own_UN = noise * rng.normal(size=(num_users, num_completions))
    told_UN = vectors_UND[1:-1] @ np.asarray(weight)
    rewards = Rewards(0, "loglik", user_U[1:-1], (mean_U1 + told_UN + own_UN).astype(np.float32))
    return rewards, UserVectors(user_U, vectors_UND), told_UN


def about_mean(values_UN):
    return values_UN - values_UN.mean(axis=1, keepdims=True)


def test_what_vectors_explain_comes_back_whole():
    rewards, vectors, told_UN = make()
    found = cross_fit_rewards(rewards, vectors, seed=0)
    assert found.explained > 0.99
    assert about_mean(found.rewards.rewards_UN) == pytest.approx(about_mean(told_UN), abs=0.2)
    assert found.rewards.rewards_UN.mean(axis=1) == pytest.approx(rewards.rewards_UN.mean(axis=1), abs=1e-5)
    assert (found.rewards.user_U == rewards.user_U).all()
    assert found.rewards.metric == "loglik"


def test_a_better_completion_is_found_under_what_only_its_user_pays():
    """Noise three times the signal: of what a user's best completion seems to earn hardly any is its own."""
    rewards, vectors, told_UN = make(num_users=400, noise=3.0)
    found = cross_fit_rewards(rewards, vectors, seed=0)
    every = np.arange(len(told_UN))
    by_own = told_UN[every, rewards.rewards_UN.argmax(axis=1)].mean()
    by_shared = told_UN[every, found.rewards.rewards_UN.argmax(axis=1)].mean()
    assert by_shared > 2 * by_own
    assert found.explained == pytest.approx(0.1, abs=0.05)  # 1 of 1 + 9
    by_hand_U = about_mean(rewards.rewards_UN)[every, found.rewards.rewards_UN.argmax(axis=1)]
    assert found.gained_U == pytest.approx(by_hand_U, abs=1e-5)
    assert found.gained_U.mean() == pytest.approx(by_shared - told_UN.mean(), abs=0.3)  # noise averages out
    assert f"{found.gained_U.mean():+.4f} over its user's mean" in str(found)


def test_other_completions_are_foretold_over_the_usual_ones():
    rewards, vectors, told_UN = make(num_users=300, noise=0.5)
    found = cross_fit_rewards(rewards, vectors, seed=0)
    reference = UserVectors(np.arange(2), np.zeros((2, 3, 4), dtype=np.float32))
    one_up = np.zeros((2, 5, 4), dtype=np.float32)
    one_up[1, :, 0] = 1.0
    assert found.predict_gain(UserVectors(reference.user_U, one_up), reference) == pytest.approx([0, 1], abs=0.1)
    own = UserVectors(vectors.user_U[1:-1], vectors.vectors_UND[1:-1])
    assert found.predict_gain(own, own) == pytest.approx(np.zeros(300))
    best = UserVectors(own.user_U, np.take_along_axis(own.vectors_UND, told_UN.argmax(1)[:, None, None], axis=1))
    won = told_UN.max(axis=1).mean() - told_UN.mean()
    assert found.predict_gain(best, own).mean() == pytest.approx(won, rel=0.1)
    with pytest.raises(DataError, match="of the same users, got 2 and 300 users"):
        found.predict_gain(reference, own)


def test_the_square_of_a_component_counts():
    """Mentioned on either side: the component is 1 or -1, and 0 where a completion is silent."""
    rng = np.random.default_rng(1)
    sides_UND = rng.choice([-1, 0, 1], size=(80, 5, 3)).astype(np.float32)
    paid_UN = np.abs(sides_UND[..., 0]).astype(np.float32)
    users = np.arange(80)
    found = cross_fit_rewards(Rewards(0, "ndcg@5", users, paid_UN), UserVectors(users, sides_UND), seed=0)
    assert found.explained > 0.95


def test_no_user_tells_his_own_reward():
    """One user's rewards change; what is predicted of him stays, about his mean."""
    rewards, vectors, _ = make(noise=1.0)
    before = cross_fit_rewards(rewards, vectors, seed=3).rewards.rewards_UN
    changed_UN = rewards.rewards_UN.copy()
    changed_UN[7] = changed_UN[7][::-1]
    after = cross_fit_rewards(Rewards(0, "loglik", rewards.user_U, changed_UN), vectors, seed=3).rewards.rewards_UN
    assert about_mean(after)[7] == pytest.approx(about_mean(before)[7], abs=1e-6)
    assert not np.allclose(about_mean(after)[8:], about_mean(before)[8:], atol=1e-6)


def test_noise_is_called_noise():
    """The best of seven strengths is above 0 in 45% of the cases, so it cannot be the verdict."""
    called = 0
    for seed in range(60):
        rewards, vectors, _ = make(num_users=200, weight=(0, 0, 0, 0), noise=1.0, seed=seed)
        found = cross_fit_rewards(rewards, vectors, seed=0)
        assert abs(found.explained) < 0.02
        called += found.is_noise
    assert called >= 54  # binomial(60, .945): below 54 in 5 of 1,000
    silent = UserVectors(vectors.user_U, np.zeros_like(vectors.vectors_UND))
    nothing = cross_fit_rewards(rewards, silent, seed=0)
    assert nothing.explained == 0
    assert "within-user reward 0.0%;" in str(nothing)
    assert "may be noise" in str(nothing)
    rewards, vectors, _ = make(num_users=200, noise=1.0)
    assert not cross_fit_rewards(rewards, vectors, seed=0).is_noise


def test_too_few_users_and_missing_vectors_are_refused():
    rewards, vectors, _ = make(num_users=FOLDS - 1)
    with pytest.raises(DataError, match="at least 5 users, got 4"):
        cross_fit_rewards(rewards, vectors, seed=0)
    rewards, vectors, _ = make()
    with pytest.raises(DataError, match="5 vectors a user, and 0 users without"):
        cross_fit_rewards(rewards, UserVectors(vectors.user_U, vectors.vectors_UND[:, :5]), seed=0)
    with pytest.raises(DataError, match="1 users without"):
        cross_fit_rewards(rewards, UserVectors(vectors.user_U[2:], vectors.vectors_UND[2:]), seed=0)
