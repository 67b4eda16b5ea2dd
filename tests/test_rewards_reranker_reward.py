"""Rewards and their reliability against slow plain-Python versions and hand-derived cases."""

import math
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recloop.errors import ContractError, DataError, LeakageError, SettingError
from recloop.records import Group, Lists, UserVectors
from recloop.rewards.reliability import reward_model_agreement, spearman_brown, split_half_reliability
from recloop.rewards.reranker_reward import reranker_reward, reward_lists


@dataclass(frozen=True)
class TableRewardModel:
    """Scores given in advance."""

    scores_BNL: np.ndarray

    def score(self, lists, vectors):
        return self.scores_BNL


@dataclass(frozen=True)
class DotRewardModel:
    """Score of an item: one coordinate of the completion's vector, chosen by the item number."""

    def score(self, lists, vectors):
        completions_BND = vectors.vectors_UND[vectors.rows_of(lists.user_B)]
        return np.take_along_axis(completions_BND, lists.items_BL[:, None, :], axis=2)


def make_lists(users, labels, group=Group.REWARD, items=None):
    labels_BL = np.asarray(labels, np.float32)
    num_lists, num_items = labels_BL.shape
    items_BL = np.tile(np.arange(num_items), (num_lists, 1)) if items is None else np.asarray(items)
    return Lists(group, np.asarray(users, np.int64), items_BL, labels_BL, np.ones_like(labels_BL, bool))


def make_vectors(vectors_UND, users=None):
    vectors_UND = np.asarray(vectors_UND, np.float32)
    users = np.arange(len(vectors_UND)) if users is None else np.asarray(users)
    return UserVectors(users, vectors_UND)


def test_reward_is_the_mean_over_lists_and_users_without_positives_drop_out():
    # Three items; completion 0 puts item 0 first, completion 1 puts it last.
    # User 3, list a: item 0 is positive -> MRR 1 and 1/3. List b: item 2 is positive -> 1/3 and 1.
    # List c has no positive. Mean over a and b: 2/3 each.
    # User 7: one list, item 0 positive -> 1 and 1/3. User 9 has no positive at all.
    scores_N = [[3.0, 2.0, 1.0], [1.0, 2.0, 3.0]]
    lists = make_lists([3, 3, 3, 7, 9], [[1, 0, 0], [0, 0, 1], [0, 0, 0], [1, 0, 0], [0, 0, 0]])
    reward_model = TableRewardModel(np.tile(np.asarray(scores_N, np.float32), (5, 1, 1)))
    rewards = reranker_reward(
        [reward_model], lists, make_vectors(np.zeros((3, 2, 4)), [3, 7, 9]), metric="mrr@3", round=1
    )
    assert rewards.user_U.tolist() == [3, 7]
    np.testing.assert_allclose(rewards.rewards_UN, [[2 / 3, 2 / 3], [1, 1 / 3]], atol=1e-6)
    assert (rewards.round, rewards.metric) == (1, "mrr@3")


def test_log_likelihood_reward_equals_plain_python():
    rng = np.random.default_rng(3)
    users = np.sort(rng.integers(0, 6, 20))
    labels_BL = (rng.random((20, 5)) < 0.3).astype(np.float32)
    scores_BNL = rng.standard_normal((20, 4, 5)).astype(np.float32)
    vectors = make_vectors(np.zeros((6, 4, 2)))
    rewards = reranker_reward([TableRewardModel(scores_BNL)], make_lists(users, labels_BL), vectors, metric="loglik")
    for row, user in enumerate(rewards.user_U):
        for completion in range(4):
            per_list = []
            for b in np.flatnonzero(users == user):
                positives = [item for item in range(5) if labels_BL[b, item]]
                norm = math.log(sum(math.exp(float(s)) for s in scores_BNL[b, completion]))
                if positives:
                    per_list.append(sum(float(scores_BNL[b, completion, i]) - norm for i in positives) / len(positives))
            assert rewards.rewards_UN[row, completion] == pytest.approx(sum(per_list) / len(per_list), abs=1e-5)


def test_several_reward_models_pay_the_mean_of_what_each_would():
    cases = [random_case(9, 3, 1.0, seed) for seed in range(3)]
    _, lists, vectors = cases[0]
    reward_models = [reward_model for (reward_model,), _, _ in cases]
    alone = [
        reranker_reward([reward_model], lists, vectors, metric="ndcg@5").rewards_UN for reward_model in reward_models
    ]
    together = reranker_reward(reward_models, lists, vectors, metric="ndcg@5").rewards_UN
    np.testing.assert_allclose(together, np.mean(alone, axis=0), rtol=1e-6)
    with pytest.raises(SettingError, match="need a reward model"):
        reranker_reward([], lists, vectors, metric="ndcg@5")


def test_reward_models_that_see_the_same_through_noise_of_their_own_are_more_reliable_together():
    one = random_case(150, 4, 3.0, 0)
    rng = np.random.default_rng(1)
    clean_BNL = random_case(150, 4, 0.0, 0)[0][0].scores_BNL
    reward_models = [TableRewardModel(clean_BNL + 3.0 * rng.standard_normal(clean_BNL.shape)) for _ in range(6)]
    alone, together = (
        split_half_reliability(reward_lists(some, *one[1:], "ndcg@5"), seed=0).reliability
        for some in (reward_models[:1], reward_models)
    )
    assert together > alone + 0.1


def test_agreement_of_reward_models_equals_numpy_and_foretells_that_of_their_means():
    rng = np.random.default_rng(2)
    (one,), lists, vectors = random_case(300, 4, 0.0, 0)
    reward_models = [
        TableRewardModel(one.scores_BNL + 3.0 * rng.standard_normal(one.scores_BNL.shape)) for _ in range(8)
    ]

    def effects(some):
        values_UN = reranker_reward(some, lists, vectors, metric="ndcg@5").rewards_UN
        return (values_UN - values_UN.mean(axis=1, keepdims=True)).ravel()

    four = reward_model_agreement(reward_lists(reward_models[:4], lists, vectors, "ndcg@5"))
    table = np.corrcoef([effects([reward_model]) for reward_model in reward_models[:4]])
    assert four.correlation == pytest.approx(table[np.triu_indices(4, 1)].mean(), abs=1e-6)
    seen = np.corrcoef(effects(reward_models[:4]), effects(reward_models[4:]))[0, 1]
    assert four.correlation + 0.1 < four.reliability == pytest.approx(seen, abs=0.05)
    assert reward_model_agreement(reward_lists(reward_models[:1], lists, vectors, "ndcg@5")) is None
    same = reward_model_agreement(reward_lists([one, one], lists, vectors, "ndcg@5"))
    assert same.correlation == same.reliability == pytest.approx(1.0)


def test_only_reward_users_earn_rewards():
    for group in (Group.TRAIN, Group.VALID, Group.TEST):
        with pytest.raises(LeakageError, match=f"those of reward users, got {group} users"):
            reranker_reward(
                [DotRewardModel()], make_lists([0], [[1, 0]], group), make_vectors(np.ones((1, 2, 2))), metric="ndcg@5"
            )


def test_a_reward_model_that_breaks_its_promise_is_named():
    lists, vectors = make_lists([0, 4], [[1, 0], [0, 1]]), make_vectors(np.ones((2, 3, 2)), [0, 4])
    with pytest.raises(ContractError, match=r"= \[2, 3, 2\], got \[2, 1, 2\]"):
        reranker_reward([TableRewardModel(np.zeros((2, 1, 2)))], lists, vectors, metric="ndcg@5")
    scores_BNL = np.zeros((2, 3, 2))
    scores_BNL[1, 2, 0] = np.nan
    with pytest.raises(ContractError, match="got nan in list 1 at place 0"):
        reranker_reward([TableRewardModel(scores_BNL)], lists, vectors, metric="ndcg@5")
    with pytest.raises(DataError, match="got none among 1 lists"):
        reranker_reward([DotRewardModel()], make_lists([0], [[0, 0]]), vectors, metric="ndcg@5")


def test_padding_may_score_anything():
    lists = make_lists([0], [[1, 0, 0]])
    padded = Lists(lists.group, lists.user_B, lists.items_BL, lists.labels_BL, np.asarray([[True, True, False]]))
    scores_BNL = np.asarray([[[1.0, 2.0, np.nan]]])
    rewards = reranker_reward([TableRewardModel(scores_BNL)], padded, make_vectors(np.ones((1, 1, 1))), metric="mrr@3")
    assert rewards.rewards_UN.tolist() == [[0.5]]


def plain_half_correlation(values_BN, user_B):
    """Pooled correlation of within-user centred completion effects in odd and even lists, in plain Python."""
    odd, even = [], []
    for user in sorted(set(user_B)):
        rows = [values for values, owner in zip(values_BN, user_B, strict=True) if owner == user]
        if len(rows) < 2:
            continue
        for part, into in ((rows[0::2], odd), (rows[1::2], even)):
            means = [sum(row[n] for row in part) / len(part) for n in range(len(part[0]))]
            centre = sum(means) / len(means)
            into.extend(value - centre for value in means)
    top = sum(a * b for a, b in zip(odd, even, strict=True))
    return top / math.sqrt(sum(a * a for a in odd) * sum(b * b for b in even))


def random_case(num_users, lists_per_user, noise, seed, num_completions=6, num_items=10):
    """Users whose completions truly differ in worth; more `noise` hides it."""
    rng = np.random.default_rng(seed)
    users = np.repeat(np.arange(num_users), lists_per_user)
    labels_BL = np.zeros((len(users), num_items))
    labels_BL[np.arange(len(users)), rng.integers(0, num_items, len(users))] = 1
    worth_UN = rng.standard_normal((num_users, num_completions))
    scores_BNL = labels_BL[:, None, :] * worth_UN[users][:, :, None]
    scores_BNL = scores_BNL + noise * rng.standard_normal(scores_BNL.shape)
    return (
        [TableRewardModel(scores_BNL)],
        make_lists(users, labels_BL),
        make_vectors(np.zeros((num_users, num_completions, 1))),
    )


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10_000), lists_per_user=st.integers(2, 5))
def test_half_correlation_equals_plain_python(seed, lists_per_user):
    reward_models, lists, vectors = random_case(7, lists_per_user, 0.5, seed)
    measured = reward_lists(reward_models, lists, vectors, "loglik")
    found = split_half_reliability(measured, seed=1)
    expected = plain_half_correlation(measured.mean_BN.tolist(), lists.user_B.tolist())
    assert found.half_correlation == pytest.approx(expected, abs=1e-9)
    assert found.low <= found.reliability <= found.high


def test_reliability_tells_signal_from_noise():
    signal = split_half_reliability(reward_lists(*random_case(150, 4, 0.3, 0), "ndcg@5"), seed=0)
    nothing = split_half_reliability(reward_lists(*random_case(150, 4, 50.0, 0), "ndcg@5"), seed=0)
    assert signal.low > 0.5
    assert not signal.is_noise
    assert nothing.is_noise
    assert nothing.high < 0.35
    assert "noise" in str(nothing)


@pytest.mark.slow
def test_the_interval_covers_the_truth():
    # Noise drawn afresh: the true correlation is 0, so about 95 of 100 intervals must hold it.
    found = [split_half_reliability(reward_lists(*random_case(40, 2, 1e6, s), "loglik"), seed=s) for s in range(60)]
    held = [one.low <= 0 <= one.high for one in found]
    assert sum(held) >= 51  # binomial(60, .95): below 51 in fewer than 1 of 500 runs


def test_few_users_cannot_call_a_reward_repeatable():
    """Of one user every resample is that user: an interval without width, whatever it says."""
    for num_users in (1, 2, 9):
        found = split_half_reliability(reward_lists(*random_case(num_users, 2, 0.01, 0), "loglik"), seed=0)
        assert found.low > 0
        assert found.is_noise
        assert "too few users" in str(found)
    assert not split_half_reliability(reward_lists(*random_case(10, 2, 0.01, 0), "loglik"), seed=0).is_noise


def test_rewards_that_never_differ_have_reliability_zero():
    reward_model = TableRewardModel(np.tile(np.asarray([1.0, 2.0, 3.0]), (4, 5, 1)))
    lists = make_lists([0, 0, 1, 1], [[1, 0, 0]] * 4)
    found = split_half_reliability(
        reward_lists([reward_model], lists, make_vectors(np.zeros((2, 5, 1))), "loglik"), seed=0
    )
    assert (found.half_correlation, found.reliability, found.low, found.high) == (0, 0, 0, 0)
    assert found.is_noise


def test_users_with_one_usable_list_are_counted_and_left_out():
    (reward_model,), lists, vectors = random_case(5, 2, 0.1, 0)
    labels_BL = lists.labels_BL.copy()
    labels_BL[1] = 0  # the second list of user 0
    lists = make_lists(lists.user_B, labels_BL)
    found = split_half_reliability(reward_lists([reward_model], lists, vectors, "loglik"), seed=0)
    assert (found.num_users, found.num_users_left_out) == (4, 1)
    with pytest.raises(DataError, match="at least two lists"):
        one = np.asarray([0, 2, 4, 6, 8])
        left = [TableRewardModel(reward_model.scores_BNL[one])]
        split_half_reliability(reward_lists(left, lists.take(one), vectors, "loglik"), seed=0)


def test_spearman_brown_by_hand():
    # 2 * .6 / 1.6 = .75; 4 * .2 / 1.6 = .5; a negative correlation stays.
    assert spearman_brown(np.asarray(0.2), parts=4) == pytest.approx(0.5)
    np.testing.assert_allclose(spearman_brown(np.asarray([0.6, 0.0, 1.0, -0.4])), [0.75, 0.0, 1.0, -0.4])
