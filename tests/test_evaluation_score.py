"""Rows of a table against a slow re-implementation, and best-of-N that does not peek."""

from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from recloop.errors import ContractError, DataError, LeakageError, SettingError
from recloop.evaluation.per_user_scores import VariantScores
from recloop.evaluation.score import (
    MetricsConfig,
    best_of_n,
    chance_of_lists,
    chosen_shares,
    completion_values,
    evaluate,
)
from recloop.records import Group, Lists, UserVectors

METRICS = ("ndcg@5", "map_kar@3", "mrr@10")


class NoisyTaste:
    """Completion n of user u earns `lift_UN[u, n]` on the positives of every list, plus noise per list."""

    def __init__(self, lift_UN: np.ndarray, noise: float, seed: int) -> None:
        self.lift_UN, self.noise, self.seed = lift_UN, noise, seed

    def score(self, lists: Lists, user_vectors: UserVectors | None) -> np.ndarray:
        rng = np.random.default_rng(self.seed)
        lift_BN = self.lift_UN[lists.user_B]
        noise_BNL = rng.normal(0, self.noise, (*lift_BN.shape, lists.items_BL.shape[1]))
        return (lift_BN[:, :, None] * lists.labels_BL[:, None, :] + noise_BNL).astype(np.float32)


def make_lists(
    num_users: int, lists_each: int, seed: int = 0, *, group: Group = Group.TEST, share: float = 0.2
) -> Lists:
    rng = np.random.default_rng(seed)
    user_B = np.repeat(np.arange(num_users), lists_each)
    shape = (len(user_B), 10)
    labels_BL = (rng.random(shape) < share).astype(np.float32)
    return Lists(group, user_B, rng.integers(0, 99, shape), labels_BL, np.ones(shape, bool))


def vectors_of(num_users: int, num_completions: int) -> UserVectors:
    return UserVectors(np.arange(num_users), np.zeros((num_users, num_completions, 2), np.float32))


def score_variant(
    name: str, rerankers: dict[int, Any], lists: Lists, vectors: UserVectors, metrics: MetricsConfig
) -> VariantScores:
    conventions = {"metrics": metrics.names, "empty": metrics.empty, "mean": metrics.mean}
    return evaluate(rerankers, lists, vectors, name=name, **conventions)


def score_best(name: str, rerankers: dict[int, Any], lists: Lists, metrics: MetricsConfig) -> VariantScores:
    values = {
        seed: completion_values(reranker.score(lists, None), lists, metrics.names)
        for seed, reranker in rerankers.items()
    }
    return best_of_n(name, values, lists.user_B, metrics, "ndcg@5")


def plain_ndcg(scores: list[float], labels: list[float], k: int) -> float | None:
    if not any(labels):
        return None
    order = sorted(range(len(scores)), key=lambda place: -scores[place])
    gained = sum(labels[place] / np.log2(rank + 2) for rank, place in enumerate(order[:k]))
    return gained / sum(1 / np.log2(rank + 2) for rank in range(min(k, int(sum(labels)))))


@pytest.mark.parametrize("empty", ["drop", "zero"])
@pytest.mark.parametrize("mean", ["user", "list"])
def test_row_equals_loops(empty: str, mean: str) -> None:
    lists = make_lists(30, 3, share=0.08).take(np.random.default_rng(5).random(90) < 0.8)
    rerankers = {seed: NoisyTaste(np.zeros((30, 4)), 1.0, seed) for seed in (3, 8)}
    metrics = MetricsConfig(names=METRICS, empty=empty, mean=mean)
    row = score_variant("variant", rerankers, lists, vectors_of(30, 4), metrics)

    for s, (seed, reranker) in enumerate(rerankers.items()):
        scores_BNL = reranker.score(lists, None)
        by_user: dict[int, list[float]] = {}
        for b, user in enumerate(lists.user_B):
            completions = [plain_ndcg(list(scores_BNL[b, n]), list(lists.labels_BL[b]), 5) for n in range(4)]
            if completions[0] is not None or empty == "zero":
                by_user.setdefault(int(user), []).append(0.0 if completions[0] is None else float(np.mean(completions)))
        users = [np.mean(values) for values in by_user.values()]
        every = [value for values in by_user.values() for value in values]
        assert row.seeds[s] == seed
        assert list(row.user_U) == list(by_user)
        assert list(row.num_lists_U) == [len(values) for values in by_user.values()]
        np.testing.assert_allclose(row.of("ndcg@5")[s], users, atol=1e-9)
        assert row.seed_means("ndcg@5")[s] == pytest.approx(np.mean(users if mean == "user" else every))


def test_score_is_the_mean_over_completions_not_of_averaged_scores() -> None:
    # one list, one positive; completion 0 ranks it first, completion 1 last: NDCG@1 is 1 and 0
    lists = Lists(Group.TEST, np.array([0]), np.array([[1, 2]]), np.array([[1, 0]], np.float32), np.ones((1, 2), bool))

    class TwoMinds:
        def score(self, lists: Lists, user_vectors: UserVectors | None) -> np.ndarray:
            return np.array([[[9.0, 0.0], [0.0, 1.0]]], np.float32)

    metrics = MetricsConfig(names=("ndcg@1",), empty="drop", mean="user")
    assert score_variant("variant", {0: TwoMinds()}, lists, vectors_of(1, 2), metrics).average("ndcg@1") == 0.5


def test_labels_of_other_groups_and_wrong_shapes_are_refused() -> None:
    metrics = MetricsConfig(names=METRICS, empty="drop", mean="user")
    reranker = NoisyTaste(np.zeros((3, 2)), 1.0, 0)
    for group in (Group.TRAIN, Group.REWARD):
        lists = make_lists(3, 2, group=group)
        with pytest.raises(LeakageError):
            score_variant("variant", {0: reranker}, lists, vectors_of(3, 2), metrics)
        with pytest.raises(LeakageError):
            score_best("variant", {0: reranker}, lists, metrics)
    lists = make_lists(3, 2)
    with pytest.raises(ContractError, match=r"\[6, 3, 10\], got \[6, 2, 10\]"):
        score_variant("variant", {0: reranker}, lists, vectors_of(3, 3), metrics)
    with pytest.raises(SettingError, match="at least one fitted reranker"):
        score_variant("variant", {}, lists, vectors_of(3, 2), metrics)
    no_positives = make_lists(3, 2, share=0.0)
    for score in (
        lambda: score_variant("variant", {0: reranker}, no_positives, vectors_of(3, 2), metrics),
        lambda: score_best("variant", {0: reranker}, no_positives, metrics),
    ):
        with pytest.raises(DataError, match="any list with a positive label"):
            score()


def test_measure_refuses_what_has_no_meaning() -> None:
    with pytest.raises(ValidationError, match="0 would be its best"):
        MetricsConfig(names=("loglik",), empty="zero", mean="user")
    with pytest.raises(ValidationError, match="must differ"):
        MetricsConfig(names=("ndcg@5", "ndcg@5"), empty="zero", mean="user")
    with pytest.raises(ValidationError, match="a metric is one of"):
        MetricsConfig(names=("ndcg",), empty="zero", mean="user")
    with pytest.raises(ValidationError, match="Field required"):
        MetricsConfig(names=("ndcg@5",))


# Best of N


def test_shares_by_hand() -> None:
    nan = np.nan
    values_BN = np.array(
        [
            [0.9, 0.1],  # user 0, half A (lists 0 and 3), assessed by half B (list 2): completion 1
            [nan, nan],  # no positive: reward models nothing, and falls into the half of the next list
            [0.2, 0.4],  # half B, assessed by A: means .6 and .1, completion 0
            [0.3, 0.1],  # half A
            [0.5, 0.5],  # user 4, half A, assessed by B: completion 0
            [0.8, 0.7],  # half B, assessed by A, a tie: both
            [0.1, 0.9],  # user 5 has one list: nothing to choose on
        ]
    )
    expected = [[0, 1], [1, 0], [1, 0], [0, 1], [1, 0], [0.5, 0.5], [0.5, 0.5]]
    np.testing.assert_array_equal(chosen_shares(values_BN, np.array([0, 0, 0, 0, 4, 4, 5])), expected)


def test_shares_never_see_the_list_they_are_for() -> None:
    rng = np.random.default_rng(2)
    user_B = np.sort(rng.integers(0, 12, 60))
    values_BN = rng.random((60, 5))
    before = chosen_shares(values_BN, user_B)
    np.testing.assert_array_equal(before.sum(axis=1), 1.0)
    for b in range(60):
        changed = values_BN.copy()
        changed[b] = rng.random(5)
        np.testing.assert_array_equal(chosen_shares(changed, user_B)[b], before[b])


@pytest.mark.slow
def test_best_of_n_wins_with_signal_and_earns_the_mean_without() -> None:
    num_users = 1_500
    lists, vectors = make_lists(num_users, 4), vectors_of(num_users, 6)
    metrics = MetricsConfig(names=("ndcg@5",), empty="drop", mean="user")
    lift_UN = np.random.default_rng(0).normal(0.5, 1.0, (num_users, 6))
    for lift, low, high in ((lift_UN, 0.05, 1.0), (np.full_like(lift_UN, 0.5), -0.01, 0.01)):
        rerankers = {seed: NoisyTaste(lift, 1.0, seed) for seed in range(3)}
        mean = score_variant("mean", rerankers, lists, vectors, metrics)
        best = score_best("best", rerankers, lists, metrics)
        np.testing.assert_array_equal(best.user_U, mean.user_U)
        np.testing.assert_array_equal(best.num_lists_U, mean.num_lists_U)
        gain_S = best.seed_means("ndcg@5") - mean.seed_means("ndcg@5")
        assert (low < gain_S).all()
        assert (gain_S < high).all()
        # a peeking choice "wins" even where completions do not differ: what cross-validation is for
        peeking = max_over_completions(rerankers[0], lists)
        assert peeking - mean.seed_means("ndcg@5")[0] > 0.05


def max_over_completions(reranker: NoisyTaste, lists: Lists) -> float:
    from recloop.rerankers.metrics import compute_completion_metrics, user_means

    values_BN = compute_completion_metrics("ndcg@5", reranker.score(lists, None), lists)
    return float(user_means(values_BN, lists.user_B, "drop")[1].max(axis=1).mean())


def test_chance_is_what_random_orders_score() -> None:
    labels_BL = np.array([[1, 0, 0, 0]] * 400, np.float32)
    lists = Lists(Group.TEST, np.arange(400), np.tile(np.arange(4), (400, 1)), labels_BL, np.ones((400, 4), bool))
    config = MetricsConfig(names=("hr@1", "ndcg@5"), empty="drop", mean="user")
    expected = np.mean(1 / np.log2(np.arange(4) + 2))
    assert chance_of_lists(lists, "hr@1", config, 0) == pytest.approx(0.25, abs=0.02)
    assert chance_of_lists(lists, "ndcg@5", config, 0) == pytest.approx(expected, abs=0.01)
