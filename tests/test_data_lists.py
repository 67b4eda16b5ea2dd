"""Candidate lists: windows, chunks, negatives, labels, order."""

from collections import defaultdict
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from pydantic import ValidationError
from scipy.stats import chisquare

from recloop.data import lists as lists_module
from recloop.data.lists import ProtocolConfig, build_lists, window_lens
from recloop.data.splits import SplitConfig, split_users
from recloop.errors import DataError, LeakageError, SettingError
from recloop.records import Group
from simulated_by_hand import all_lists, dataset_of, random_dataset

ALL_TEST = {Group.TEST: np.arange(1000)}


def plain_histories(dataset, window_max):
    """Oracle: window and later interactions of every user, by the words of the protocol."""
    own = defaultdict(list)
    for user, item, rating, _ in dataset.interactions.iter_rows():
        own[user].append((item, rating))
    for user, interactions in own.items():
        window = min((len(interactions) + 1) // 2, window_max)
        yield user, interactions[:window], interactions[window:]


@pytest.mark.parametrize(("num", "window"), [(1, 1), (2, 1), (3, 2), (7, 4), (59, 30), (60, 30), (200, 30)])
def test_the_window_is_the_older_half_up_to_the_maximum(num, window):
    assert window_lens(np.array([num]), 30)[0] == window


def test_a_user_of_seven_by_hand():
    # 7 interactions: window (7 + 1) // 2 = 4, then one list of 3 real items and 7 others
    history = [(0, 5), (1, 1), (2, 4), (3, 2), (4, 3), (5, 4), (6, 5)]
    dataset = dataset_of([history, [(7, 5)]], num_items=20)
    made = build_lists(dataset, ALL_TEST, ProtocolConfig(), seed=0)
    items, rating = made.histories.of(0)
    assert items.tolist() == [0, 1, 2, 3]
    assert rating.tolist() == [5, 1, 4, 2]
    assert made.histories.of(1)[0].tolist() == [7]  # one interaction: a history and no list
    assert made.test.user_B.tolist() == [0]
    labels = dict(zip(made.test.items_BL[0].tolist(), made.test.labels_BL[0].tolist(), strict=True))
    assert len(labels) == 10
    assert {item: labels[item] for item in (4, 5, 6)} == {4: 0, 5: 1, 6: 1}
    assert sum(labels.values()) == 2
    assert not set(labels) & {0, 1, 2, 3}
    assert made.test.is_item_BL.all()


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("positive_from_rating", [4.0, None])
@pytest.mark.parametrize(("chunk", "list_len", "window_max"), [(4, 10, 30), (1, 3, 5), (7, 8, 1)])
def test_kar_lists_equal_the_plain_protocol(seed, positive_from_rating, chunk, list_len, window_max):
    dataset = random_dataset(np.random.default_rng(seed), positive_from_rating=positive_from_rating)
    protocol = ProtocolConfig(chunk=chunk, list_len=list_len, window_max=window_max)
    made = build_lists(dataset, ALL_TEST, protocol, seed)
    row = 0
    for user, window, later in plain_histories(dataset, window_max):
        assert made.histories.of(user)[0].tolist() == [item for item, _ in window]
        own = {item for item, _ in window + later}
        for first in range(0, len(later), chunk):
            real = later[first : first + chunk]
            assert made.test.user_B[row] == user
            items = made.test.items_BL[row].tolist()
            assert len(set(items)) == list_len
            assert set(items) & own == {item for item, _ in real}
            positive = {item for item, rating in real if rating is None or rating >= 4}
            assert {items[k] for k in np.flatnonzero(made.test.labels_BL[row])} == positive
            row += 1
    assert row == len(made.test)


def test_negatives_are_uniform_over_what_the_user_never_met():
    dataset = dataset_of([[(0, 5), (1, 5)]] * 6000, num_items=8)
    made = build_lists(dataset, {Group.TEST: np.arange(6000)}, ProtocolConfig(list_len=3, chunk=1), seed=0)
    negatives = made.test.items_BL[made.test.labels_BL == 0]
    assert set(negatives.tolist()) == {2, 3, 4, 5, 6, 7}
    # 12,000 draws without replacement in pairs: less spread than independent ones, so the test is lenient
    assert chisquare(np.bincount(negatives)[2:]).pvalue > 1e-3
    pairs = np.sort(made.test.items_BL[:, :][made.test.labels_BL == 0].reshape(-1, 2), axis=1)
    _, counts = np.unique(pairs[:, 0] * 8 + pairs[:, 1], return_counts=True)
    assert len(counts) == 15
    assert chisquare(counts).pvalue > 1e-3


def test_the_order_inside_a_list_tells_nothing():
    dataset = dataset_of([[(0, 5), (1, 5)]] * 5000, num_items=30)
    made = build_lists(dataset, {Group.TEST: np.arange(5000)}, ProtocolConfig(), seed=0)
    assert chisquare(made.test.labels_BL.sum(axis=0)).pvalue > 1e-3


@pytest.mark.parametrize("draws", [0, 64])
def test_a_user_who_met_nearly_everything_gets_exactly_the_rest(monkeypatch, draws):
    monkeypatch.setattr(lists_module, "DRAWS_BEFORE_SEARCH", draws)
    dataset = dataset_of([[(item, 5) for item in range(6)]], num_items=13)
    made = build_lists(dataset, ALL_TEST, ProtocolConfig(), seed=3)
    assert sorted(made.test.items_BL[0]) == [3, 4, 5, *range(6, 13)]


def test_a_user_who_met_too_much_is_one_clear_error():
    dataset = dataset_of([[(item, 5) for item in range(6)]], num_items=12)
    with pytest.raises(SettingError, match="needs 7 items its user never met, got 6 for user 0"):
        build_lists(dataset, ALL_TEST, ProtocolConfig(), seed=0)


def test_groups_get_their_own_users_and_share_the_histories():
    dataset = random_dataset(np.random.default_rng(0))
    groups = split_users(dataset.num_users, SplitConfig(), 0)
    made = build_lists(dataset, groups, ProtocolConfig(), 0)
    for group, users in groups.items():
        assert set(made.of(group).user_B) <= set(users)
        assert made.of(group).group == group
        assert (np.diff(made.of(group).user_B) >= 0).all()
    together = build_lists(dataset, ALL_TEST, ProtocolConfig(), 0)
    assert sum(len(made.of(group)) for group in Group) == len(together.test)
    assert made.histories.num_users == dataset.num_users


def test_shared_users_are_a_leak():
    dataset = random_dataset(np.random.default_rng(0))
    with pytest.raises(LeakageError, match="got user 3 twice"):
        groups = {Group.TRAIN: np.array([1, 3]), Group.TEST: np.array([3, 4])}
        build_lists(dataset, groups, ProtocolConfig(), 0)


def test_the_seed_decides_everything():
    dataset = random_dataset(np.random.default_rng(0))
    one, same, other = (build_lists(dataset, ALL_TEST, ProtocolConfig(), seed).test for seed in (5, 5, 6))
    assert (one.items_BL == same.items_BL).all()
    assert (one.items_BL != other.items_BL).any()


def test_what_a_text_has_seen_replaces_the_older_half():
    dataset = dataset_of([[(item, 5) for item in range(6)]] * 2, num_items=30)

    def with_seen(*seen):
        texts = pl.DataFrame({"user": [0, 1], "text": ["a", "b"], "num_shown": seen})
        return replace(dataset, user_knowledge=texts)

    made = build_lists(with_seen(5, 6), ALL_TEST, ProtocolConfig(), 0)
    assert made.histories.of(0)[0].tolist() == [0, 1, 2, 3, 4]
    assert made.test.user_B.tolist() == [0]
    with pytest.raises(DataError, match="got 7 of 6 for user 1"):
        build_lists(with_seen(5, 7), ALL_TEST, ProtocolConfig(), 0)


@pytest.mark.parametrize("kind", ["retrieved", "catalogue"])
def test_a_first_stage_fills_lists_with_what_it_proposes(kind):
    dataset = random_dataset(np.random.default_rng(1), num_users=60, num_items=80)
    groups = split_users(dataset.num_users, SplitConfig(), 0)
    protocol = ProtocolConfig(kind=kind, catalogue_top=40)
    made = build_lists(dataset, groups, protocol, 0)
    user_B, items_BL, labels_BL, is_item_BL = all_lists(made)
    found = total = 0
    later_of = {}
    for user, window, later in plain_histories(dataset, 30):
        later_of[user] = later
        positive = {item for item, rating in later if rating >= 4}
        rows = np.flatnonzero(user_B == user)
        listed = {int(i) for row in rows for i in items_BL[row][is_item_BL[row]]}
        assert not listed & {item for item, _ in window}
        labelled = {int(i) for row in rows for i in items_BL[row][labels_BL[row] > 0]}
        assert labelled == (positive & listed)
        if kind == "retrieved":
            assert labelled == positive
            assert len(rows) == -(-len(later) // 4)
        else:
            assert len(rows) == (1 if later else 0)
            assert all(is_item_BL[row].sum() == 40 for row in rows)
            if user in groups[Group.TEST]:
                found += len(labelled)
                total += len(positive)
    assert 0 < made.first_stage_recall < 1
    if kind == "catalogue":
        assert made.first_stage_recall == pytest.approx(found / total)


def test_a_small_catalogue_is_padded_last():
    dataset = dataset_of([[(0, 5), (1, 5), (2, 5)], [(1, 5), (2, 5), (3, 4)], [(0, 5), (3, 5)]], num_items=6)
    groups = {Group.TRAIN: np.array([0, 1]), Group.TEST: np.array([2])}
    made = build_lists(dataset, groups, ProtocolConfig(kind="catalogue", catalogue_top=8), 0)
    assert made.test.is_item_BL.tolist() == [[True] * 5 + [False] * 3]  # 6 items less 1 in the window
    assert (made.test.items_BL[~made.test.is_item_BL] == 0).all()
    assert (made.test.labels_BL[~made.test.is_item_BL] == 0).all()
    assert sorted(made.test.items_BL[0][:5]) == [1, 2, 3, 4, 5]


def test_a_pool_too_small_is_topped_up_uniformly():
    dataset = random_dataset(np.random.default_rng(2))
    groups = split_users(dataset.num_users, SplitConfig(), 0)
    made = build_lists(dataset, groups, ProtocolConfig(kind="retrieved", catalogue_top=2), 0)
    _, items_BL, _, is_item_BL = all_lists(made)
    assert is_item_BL.all()
    assert all(len(set(row)) == 10 for row in items_BL.tolist())


def test_a_chunk_must_leave_room_for_negatives():
    with pytest.raises(ValidationError, match="chunk=10 and list_len=10"):
        ProtocolConfig(chunk=10)


def repeating_dataset(seed, num_items=30):
    """A log whose users meet items again, before and after the window and within a chunk."""
    dataset = random_dataset(np.random.default_rng(seed), num_items=num_items)
    item = dataset.interactions["item"] % 9
    return replace(dataset, interactions=dataset.interactions.with_columns(item=item))


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("kind", ["kar", "retrieved"])
def test_an_item_that_comes_again_is_in_a_list_once_and_liked_if_it_ever_was(seed, kind):
    dataset, row = repeating_dataset(seed), 0
    groups = {Group.TRAIN: np.arange(0, dataset.num_users, 2), Group.TEST: np.arange(1, dataset.num_users, 2)}
    made = build_lists(dataset, groups, ProtocolConfig(kind=kind), seed)
    lists_of = {user: [] for user in range(dataset.num_users)}
    for part in (made.train, made.test):
        for user, items, labels in zip(part.user_B.tolist(), part.items_BL.tolist(), part.labels_BL, strict=True):
            lists_of[user].append((items, labels))
    num_again = 0
    for user, window, later in plain_histories(dataset, 30):
        assert made.histories.of(user)[0].tolist() == [item for item, _ in window]
        own = {item for item, _ in window + later}
        chunks = [later[first : first + 4] for first in range(0, len(later), 4)]
        for real, (items, labels) in zip(chunks, lists_of[user], strict=True):
            assert len(set(items)) == 10
            assert set(items) & own == {item for item, _ in real}
            assert {items[k] for k in np.flatnonzero(labels)} == {item for item, rating in real if rating >= 4}
            num_again += len(real) > len({item for item, _ in real})
            row += 1
    assert row == len(made.train) + len(made.test)
    assert num_again > 3


def test_a_list_has_room_for_the_items_a_user_of_repeats_never_met():
    # 8 interactions with 2 items of 6: a list of one of them and 4 others needs no more than there are
    dataset = dataset_of([[(n % 2, 5) for n in range(8)]], num_items=6)
    made = build_lists(dataset, ALL_TEST, ProtocolConfig(list_len=5, chunk=1), 0)
    assert all(len(set(items)) == 5 for items in made.test.items_BL.tolist())
