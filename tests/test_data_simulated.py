"""Simulated simulated logs: what is true in them, and what the dial does."""

from functools import cache

import numpy as np
import pytest
from pydantic import ValidationError

from recloop.data.lists import ProtocolConfig, build_lists
from recloop.data.simulated import SimulatedConfig, simulate_log
from recloop.data.splits import SplitConfig, split_users
from recloop.records import Domain, Group
from simulated_by_hand import all_lists


def ndcg_at_5(scores_BL, labels_BL):
    """Mean over lists with positives; linear gain."""
    order = np.argsort(-scores_BL, axis=1, kind="stable")[:, :5]
    discount = 1 / np.log2(np.arange(2, 7))
    dcg = (np.take_along_axis(labels_BL, order, axis=1) * discount).sum(axis=1)
    ideal = (-np.sort(-labels_BL, axis=1)[:, :5] * discount).sum(axis=1)
    return float((dcg[ideal > 0] / ideal[ideal > 0]).mean())


@cache
def simulated(seed=0, **changes):
    return simulate_log(SimulatedConfig(**changes), seed)


@cache
def attribute_scores(seed=0, **changes):
    """NDCG@5 of a scorer that knows the true tastes in one attribute, for each attribute, and of a constant one."""
    dataset, truth = simulated(seed, **changes)
    groups = split_users(dataset.num_users, SplitConfig(), seed)
    user_B, items_BL, labels_BL, _ = all_lists(build_lists(dataset, groups, ProtocolConfig(), seed))
    scores = {
        attribute: ndcg_at_5(truth.score(attribute, user_B, items_BL), labels_BL) for attribute in truth.attributes
    }
    return scores | {"constant": ndcg_at_5(np.zeros(labels_BL.shape), labels_BL)}


@pytest.mark.slow
def test_at_full_signal_only_the_useful_attribute_tells():
    scores = attribute_scores(signal=1.0)
    assert scores["genre"] > scores["constant"] + 0.4
    assert abs(scores["era"] - scores["constant"]) < 0.03
    assert abs(scores["director"] - scores["constant"]) < 0.03


@pytest.mark.slow
def test_without_signal_no_attribute_tells():
    scores = attribute_scores(signal=0.0)
    assert max(scores.values()) - min(scores.values()) < 0.04


@pytest.mark.slow
def test_the_dial_is_monotone():
    useful = [attribute_scores(signal=signal)["genre"] for signal in (0.0, 0.5, 1.0)]
    assert (np.diff(useful) > 0.15).all()


@pytest.mark.slow
def test_another_attribute_can_be_the_useful_one():
    scores = attribute_scores(useful_attributes=("director",))
    assert scores["director"] > scores["constant"] + 0.4
    assert abs(scores["genre"] - scores["constant"]) < 0.03


@pytest.mark.slow
def test_two_attributes_can_be_useful_together():
    scores = attribute_scores(useful_attributes=("era", "genre"), num_items=400)
    assert scores["era"] > scores["constant"] + 0.1
    assert scores["genre"] > scores["constant"] + 0.1
    assert abs(scores["director"] - scores["constant"]) < 0.03


@pytest.mark.slow
@pytest.mark.parametrize("signal", [0.0, 1.0])
def test_the_rating_of_the_window_show_every_taste(signal):
    dataset, truth = simulated(signal=signal)
    histories = build_lists(dataset, {}, ProtocolConfig(), 0).histories
    wrong = tastes = 0
    for user in range(dataset.num_users):
        items, rating = histories.of(user)
        for column, taste_UV in enumerate(truth.taste_UV):
            for value in np.flatnonzero(taste_UV[user]):
                carries = truth.value_IF[items, column] == value
                assert carries.sum() >= 2
                excess = float((rating[carries] - rating.mean()).sum())
                tastes += 1
                wrong += excess * taste_UV[user, value] <= 0
    assert tastes == 400 * 2 * (2 + 2 + 3)
    assert wrong / tastes < 0.03


@pytest.mark.slow
@pytest.mark.parametrize("signal", [0.0, 1.0])
def test_popularity_tells_nothing(signal):
    dataset, _ = simulated(signal=signal)
    groups = split_users(dataset.num_users, SplitConfig(train=0.6, reward=0.0, valid=0.0, test=0.4), 0)
    made = build_lists(dataset, groups, ProtocolConfig(), 0)
    counts_I = np.bincount(made.train.items_BL.ravel(), minlength=dataset.num_items)
    positives_I = np.bincount(made.train.items_BL.ravel(), made.train.labels_BL.ravel(), minlength=dataset.num_items)
    items_BL, labels_BL = made.test.items_BL, made.test.labels_BL
    constant = ndcg_at_5(np.zeros(labels_BL.shape), labels_BL)
    for score_I in (positives_I, positives_I / counts_I):
        assert abs(ndcg_at_5(score_I[items_BL], labels_BL) - constant) < 0.05


def test_the_share_of_positives_is_the_same_at_every_signal():
    for signal in (0.0, 1.0):
        dataset, _ = simulated(signal=signal)
        made = build_lists(dataset, {Group.TEST: np.arange(400)}, ProtocolConfig(), 0)
        num_later = dataset.interactions.height - len(made.histories.items)
        assert made.test.labels_BL.sum() / num_later == pytest.approx(0.6, abs=0.02)


def test_a_world_is_a_dataset_like_any_other():
    dataset, truth = simulated(signal=1.0)
    assert (dataset.num_users, dataset.num_items) == (400, 300)
    assert dataset.attributes == truth.attributes == ("era", "genre", "director")
    assert dataset.items["title"].n_unique() == 300
    log = dataset.interactions
    assert log.select("user", "time", "item").equals(log.select("user", "time", "item").sort("user", "time", "item"))
    assert log.select("user", "item").is_duplicated().sum() == 0
    assert log["rating"].is_between(1, 5).all()
    count_U = np.bincount(log["user"])
    assert count_U.min() >= 36
    assert count_U.max() <= 44
    for column, attribute in enumerate(dataset.attributes):
        names = [truth.values[column][value] for value in truth.value_IF[:, column]]
        assert dataset.items[attribute].to_list() == [[name] for name in names]
        sizes = np.bincount(truth.value_IF[:, column])
        assert sizes.max() - sizes.min() <= 1
        liked = (truth.taste_UV[column] > 0).sum(axis=0)
        assert liked.max() - liked.min() <= 3


@pytest.mark.parametrize("domain", [Domain.BOOKS, Domain.PRODUCTS])
def test_other_domains_have_their_own_attributes(domain):
    config = SimulatedConfig(
        domain=domain, num_users=20, useful_attributes=("author" if domain == Domain.BOOKS else "brand",)
    )
    dataset, _ = simulate_log(config, 0)
    assert dataset.domain == domain
    assert set(config.useful_attributes) < set(dataset.attributes)


def test_the_seed_decides_the_world():
    config = SimulatedConfig(num_users=30)
    one, same, other = (simulate_log(config, seed)[0] for seed in (1, 1, 2))
    assert one.interactions.equals(same.interactions)
    assert one.items.equals(same.items)
    assert not one.interactions.equals(other.interactions)


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        (
            {"useful_attributes": ("plot",)},
            "useful_attributes must be different ones of era, genre, director, got plot",
        ),
        ({"domain": "generic"}, "a simulated log is of movies, books, products, got generic"),
        ({"num_items": 60}, "needs three items per interaction"),
        ({"signal": 1.5}, "less than or equal to 1"),
    ],
)
def test_an_impossible_simulation_is_refused(changes, complaint):
    with pytest.raises(ValidationError, match=complaint):
        SimulatedConfig(**changes)
