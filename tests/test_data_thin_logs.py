"""Logs that nothing can be learnt from are refused with the cause, before anything is sampled."""

from dataclasses import replace

import numpy as np
import pytest

from method_cases import do_method
from recloop.data.lists import ProtocolConfig, build_lists
from recloop.data.requests import RequestConfig, make_requests
from recloop.data.sessions import SessionConfig, sessions_of_log
from recloop.data.simulated import SimulatedConfig, simulate_log
from recloop.data.splits import SplitConfig, split_users
from recloop.data.thin_logs import require_teaching_lists
from recloop.errors import DataError, SettingError
from recloop.methods.dpo4rec.config import Dpo4RecConfig
from recloop.records import Group
from simulated_by_hand import dataset_of

ONE_EACH = dataset_of([[(user % 30, 5.0)] for user in range(40)], num_items=30)
ONE_ITEM = dataset_of([[(0, 5.0)] for _ in range(40)], num_items=1)
DISLIKED = dataset_of([[((user + i) % 30, 1.0) for i in range(8)] for user in range(40)], num_items=30)
CASES = (
    (ONE_EACH, "no user has more than one interaction, .* a history; use a log with more interactions a user"),
    (ONE_ITEM, "all interactions are with one item"),
    (DISLIKED, "a liked item has a rating of 4 or more, and they are 1 to 1; lower positive_from_rating"),
)


@pytest.mark.parametrize(("log", "cause"), CASES)
def test_lists_that_teach_nothing_are_refused_with_the_cause(log, cause):
    groups = split_users(log.num_users, SplitConfig(), 0)
    lists = build_lists(log, groups, ProtocolConfig(), 0)
    with pytest.raises(DataError, match=f"got none for train .*test .*: {cause}"):
        require_teaching_lists(log, groups, lists)


def test_only_groups_that_the_run_needs_must_have_such_lists():
    rng = np.random.default_rng(0)
    liked = [[(int(i), 5.0) for i in rng.permutation(30)[:8]] for _ in range(4)]
    log = dataset_of([*liked[:2], [(3, 1.0), (4, 1.0)], liked[3]], num_items=30)
    groups = {group: np.array([user]) for user, group in zip((0, 1, 2, 3), (*Group,), strict=True)}
    groups = {**groups, Group.REWARD: np.array([2]), Group.VALID: np.array([1])}
    lists = build_lists(log, groups, ProtocolConfig(), 0)
    require_teaching_lists(log, groups, lists, needs_reward=False)
    with pytest.raises(DataError, match=r"got none for reward \(of 1 lists\); use a log with more"):
        require_teaching_lists(log, groups, lists)


def test_sessions_and_requests_say_the_cause_too():
    with pytest.raises(SettingError, match=r"got 0 of more than 3 items: no user has .*; lower sessions\.min_items"):
        sessions_of_log(ONE_EACH, SessionConfig(), 0)
    groups = split_users(ONE_ITEM.num_users, SplitConfig(), 0)
    config = RequestConfig(num_candidates=4, near_misses=0)
    with pytest.raises(DataError, match=r"every group needs a request, .*: all interactions are with one item"):
        make_requests(ONE_ITEM, groups, config, 0, noun="films", can_tell=lambda titles: True)


def test_a_run_on_such_a_log_stops_before_it_samples(tmp_path):
    log, _ = simulate_log(SimulatedConfig(num_users=60, num_items=150), 0)
    first = log.interactions.unique("user", keep="first", maintain_order=True)
    with pytest.raises(DataError, match="no user has more than one interaction"):
        do_method("dpo4rec", Dpo4RecConfig(), tmp_path, log=replace(log, interactions=first))
    assert [path.name for path in (tmp_path / "steps").glob("[!.]*")] == []
