"""User groups: disjoint, complete, of the right size."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from recloop.data.splits import REPRODUCTION, SplitConfig, split_users
from recloop.errors import SettingError
from recloop.records import Group


def test_movielens_gets_the_group_sizes_of_the_design():
    groups = split_users(6040, SplitConfig(), seed=0)
    assert {group.value: len(users) for group, users in groups.items()} == {
        "train": 3020,
        "reward": 1510,
        "valid": 302,
        "test": 1208,
    }


def test_reproduction_tests_on_a_tenth_and_stops_on_none_of_it():
    sizes = {group.value: len(users) for group, users in split_users(6040, REPRODUCTION, 0).items()}
    assert sizes == {"train": 5134, "reward": 0, "valid": 302, "test": 604}


@settings(max_examples=50, deadline=None)
@given(num_users=st.integers(20, 500), seed=st.integers(0, 5))
def test_every_user_is_in_exactly_one_group(num_users, seed):
    groups = split_users(num_users, SplitConfig(), seed)
    assert sorted(np.concatenate(list(groups.values()))) == list(range(num_users))
    for group, users in groups.items():
        assert (np.diff(users) > 0).all()
        share = getattr(SplitConfig(), group.value)
        assert abs(len(users) - share * num_users) < 1


def test_the_draw_follows_the_seed():
    one, same, other = (split_users(100, SplitConfig(), seed)[Group.TEST] for seed in (1, 1, 2))
    assert (one == same).all()
    assert (one != other).any()


def test_turns_share_no_test_user_and_keep_every_group_whole():
    folds = [split_users(101, SplitConfig(fold=fold), 0) for fold in range(5)]
    tested = [set(groups[Group.TEST].tolist()) for groups in folds]
    assert sum(map(len, tested)) == len(set().union(*tested)) == 100
    for groups in folds:
        assert sorted(np.concatenate(list(groups.values()))) == list(range(101))
        assert [len(users) for users in groups.values()] == [len(users) for users in folds[0].values()]
    with pytest.raises(ValidationError, match=r"folds up to 4, got 5; lower split\.fold"):
        SplitConfig(fold=5)
    # Rounded up, five test groups of 21 would be more than all.
    with pytest.raises(SettingError, match="21 out of 103 users allow folds up to 3, got 4"):
        split_users(103, SplitConfig(fold=4), 0)


def test_shares_must_add_up():
    with pytest.raises(ValidationError, match=r"add up to 1, got 1\.1"):
        SplitConfig(train=0.6)


def test_a_group_with_a_share_is_never_empty():
    with pytest.raises(SettingError, match="got none for valid out of 4 users"):
        split_users(4, SplitConfig(), 0)
