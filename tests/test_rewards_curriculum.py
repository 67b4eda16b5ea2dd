"""The online curriculum, by hand and by its invariants."""

import random

import pytest

from recloop.errors import DataError, SettingError
from recloop.rewards.curriculum import CurriculumConfig, Epoch, difficulty, plan_epoch
from recloop.settings import validate


def test_difficulty_is_the_mean_of_what_is_missing():
    assert difficulty([1.05, 0.05, -0.05]) == pytest.approx((-0.05 + 0.95 + 1.05) / 3)


def test_easy_requests_are_dropped_and_the_rest_goes_from_easy_to_hard():
    known = {1: 0.5, 2: 0.05, 3: 0.9, 4: 0.1, 5: -0.07, 6: 0.5}
    # 0.1 is not below the threshold; ties go by number.
    assert plan_epoch(known, 2, CurriculumConfig()) == Epoch((4, 1, 6, 3), 2, 0, 0)


def test_the_last_batch_is_filled_with_the_hardest_of_the_easy():
    known = {1: 0.5, 2: 0.05, 3: 0.9, 4: 0.01, 5: 0.4}
    assert plan_epoch(known, 2, CurriculumConfig()) == Epoch((2, 5, 1, 3), 1, 1, 0)


def test_all_return_when_less_than_a_batch_is_left():
    known = {1: 0.05, 2: 0.01, 3: 0.9, 4: 0.02}
    assert plan_epoch(known, 2, CurriculumConfig()) == Epoch((2, 4, 1, 3), 0, 3, 0)


def test_what_fills_no_batch_is_left_over():
    assert plan_epoch({1: 0.5, 2: 0.6, 3: 0.9}, 2, CurriculumConfig()) == Epoch((1, 2), 0, 0, 1)
    with pytest.raises(DataError, match="batch of 4"):
        plan_epoch({1: 0.5}, 4, CurriculumConfig())


def test_requests_that_nothing_met_sit_out_one_epoch():
    known = {1: 0.5, 2: 0.95, 3: 0.2, 4: 1.05, 5: 0.01}
    assert plan_epoch(known, 2, CurriculumConfig()) == Epoch((3, 1), 1, 0, 0, num_resting=2)
    # The next epoch asks the two again.
    assert plan_epoch(known, 2, CurriculumConfig(), not_asked={2, 4, 5}) == Epoch((3, 1, 2, 4), 1, 0, 0)
    assert plan_epoch(known, 2, CurriculumConfig(too_hard=None)) == Epoch((3, 1, 2, 4), 1, 0, 0)


def test_nobody_sits_out_when_less_than_a_batch_would_be_left():
    assert plan_epoch({1: 0.95, 2: 1.0, 3: 0.5}, 2, CurriculumConfig()) == Epoch((3, 1), 0, 0, 1)


def test_a_request_is_too_hard_before_it_is_too_easy():
    with pytest.raises(SettingError, match="too_hard must be above"):
        validate(CurriculumConfig, {"threshold": 0.5, "too_hard": 0.5})


def test_invariants_of_random_epochs():
    rng = random.Random(5)
    for _ in range(500):
        batch = rng.randint(1, 5)
        known = {number: rng.choice([0.0, 0.05, rng.random()]) for number in range(rng.randint(batch, 20))}
        not_asked = {number for number in known if rng.random() < 0.3}
        epoch = plan_epoch(known, batch, CurriculumConfig(), not_asked)
        asked = [known[number] for number in epoch.numbers]
        assert len(asked) % batch == 0
        assert asked
        assert asked == sorted(asked)
        assert len(set(epoch.numbers)) == len(epoch.numbers)
        assert len(asked) + epoch.num_dropped + epoch.num_left_over + epoch.num_resting == len(known)
        if epoch.num_resting:
            assert all(known[number] <= 0.9 or number in not_asked for number in epoch.numbers)
        num_hard = sum(value >= 0.1 for value in known.values()) - epoch.num_resting
        if num_hard >= batch:
            assert sum(value < 0.1 for value in asked) < batch
