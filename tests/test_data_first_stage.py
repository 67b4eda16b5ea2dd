"""The first stage: fitted on train users, blind to what it must not see."""

from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from recloop.data.first_stage import propose_items
from recloop.data.lists import ProtocolConfig, build_lists
from recloop.data.simulated import SimulatedConfig, simulate_log
from recloop.errors import DataError
from recloop.records import Group
from simulated_by_hand import random_dataset

TRAIN = np.arange(0, 30)


def histories_of(dataset):
    return build_lists(dataset, {Group.TRAIN: TRAIN}, ProtocolConfig(), 0).histories


def change_later_rating(dataset, histories, users):
    """The dataset with the ratings after the window of these users turned round."""
    window_U = np.diff(histories.offsets_U1)
    user = dataset.interactions["user"].to_numpy()
    position = np.arange(len(user)) - np.searchsorted(user, user)
    turned = np.isin(user, users) & (position >= window_U[user])
    rating = dataset.interactions["rating"].to_numpy()
    log = dataset.interactions.with_columns(rating=pl.Series(np.where(turned, 6 - rating, rating), dtype=pl.Float32))
    assert turned.any()
    return type(dataset)(dataset.name, dataset.domain, dataset.users, dataset.items, dataset.attributes, log, 4.0)


def test_item_neighbours_equal_plain_cosines():
    dataset = random_dataset(np.random.default_rng(0), num_users=45, num_items=35, most=20)
    histories = histories_of(dataset)
    proposed = propose_items(dataset, histories, TRAIN, top=35)
    positive = dataset.interactions.filter(pl.col("rating") >= 4)
    liked_UI = np.zeros((45, 35))
    liked_UI[positive["user"], positive["item"]] = 1
    for user in (3, 4, 40):  # two train users of different halves, one other
        fitted = {3: TRAIN[0::2], 4: TRAIN[1::2]}.get(user, TRAIN)
        columns = liked_UI[fitted]
        norms = np.maximum(np.linalg.norm(columns, axis=0), 1e-12)
        cosine_II = columns.T @ columns / norms / norms[:, None]
        items, rating = histories.of(user)
        score_I = cosine_II[items[rating >= 4]].sum(axis=0)
        if not (rating >= 4).any():
            score_I = np.zeros(35)
        popularity_I = columns.sum(axis=0)
        score_I = score_I + 1e-6 * popularity_I / popularity_I.max()
        expected = [item for item in np.argsort(-score_I) if item not in items]
        got = [item for item in proposed[user] if item >= 0]
        assert set(got) == set(expected)
        assert np.allclose(score_I[got], score_I[expected], atol=1e-6)


def test_where_items_come_again_those_of_the_window_are_proposed_and_each_counts_once():
    dataset = random_dataset(np.random.default_rng(0), num_users=45, num_items=35, most=20)
    log = dataset.interactions
    again = log.filter(pl.col("user").is_in([1, 40])).with_columns(time=pl.col("time") + 1_000_000)
    twice = replace(dataset, interactions=pl.concat([log, again]).sort("user", "time", "item"))
    histories = histories_of(dataset)
    before, after = (propose_items(one, histories, TRAIN, 35) for one in (dataset, twice))
    assert all(set(row) == set(range(35)) for row in after.tolist())
    positive = log.filter(pl.col("rating") >= 4)
    liked_UI = np.zeros((45, 35))
    liked_UI[positive["user"], positive["item"]] = 1
    columns = liked_UI[TRAIN]
    norms = np.maximum(np.linalg.norm(columns, axis=0), 1e-12)
    popularity_I = 1e-6 * columns.sum(axis=0) / columns.sum(axis=0).max()
    for user in (40, 44):
        items, rating = histories.of(user)
        assert not set(before[user]) & set(items)
        score_I = (columns.T @ columns / norms / norms[:, None])[items[rating >= 4]].sum(axis=0) + popularity_I
        assert np.allclose(score_I[after[user]], np.sort(score_I)[::-1], atol=1e-6)


def test_labels_of_other_users_change_nothing():
    dataset = random_dataset(np.random.default_rng(1))
    histories = histories_of(dataset)
    before = propose_items(dataset, histories, TRAIN, 10)
    others = np.arange(30, 40)
    after = propose_items(change_later_rating(dataset, histories, others), histories, TRAIN, 10)
    assert (before == after).all()


def test_a_train_users_own_labels_do_not_reach_its_own_proposals():
    dataset = random_dataset(np.random.default_rng(2))
    histories = histories_of(dataset)
    user = 7
    before = propose_items(dataset, histories, TRAIN, 10)
    after = propose_items(change_later_rating(dataset, histories, [user]), histories, TRAIN, 10)
    assert (before[user] == after[user]).all()
    assert (before != after).any()  # but they do teach the model of the others


@pytest.mark.slow
def test_it_finds_more_than_chance_where_there_is_something_to_find():
    # Users share tastes in genres, so neighbours in the window predict what is met later.
    dataset, _ = simulate_log(SimulatedConfig(num_users=200), 0)
    groups = {Group.TRAIN: np.arange(150), Group.TEST: np.arange(150, 200)}
    protocol = ProtocolConfig(kind="catalogue", catalogue_top=60)
    recall = build_lists(dataset, groups, protocol, 0).first_stage_recall
    chance = 60 / (300 - 20)
    assert recall > 1.25 * chance


def test_it_needs_train_users():
    dataset = random_dataset(np.random.default_rng(3))
    with pytest.raises(DataError, match="two train users or more, got 1"):
        propose_items(dataset, histories_of(dataset), np.array([0]), 5)
