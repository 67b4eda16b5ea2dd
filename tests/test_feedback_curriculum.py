"""The online curriculum, by hand and by its invariants."""

import random

import pytest

from recloop.errors import DataError
from recloop.feedback.curriculum import CurriculumConfig, Epoch, difficulty, plan_epoch


def test_difficulty_is_the_mean_of_what_is_missing():
    assert difficulty([1.05, 0.05, -0.05]) == pytest.approx((-0.05 + 0.95 + 1.05) / 3)
    with pytest.raises(DataError, match="needs an answer"):
        difficulty([])


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


def test_invariants_of_random_epochs():
    rng = random.Random(5)
    for _ in range(500):
        batch = rng.randint(1, 5)
        known = {number: rng.choice([0.0, 0.05, rng.random()]) for number in range(rng.randint(batch, 20))}
        epoch = plan_epoch(known, batch, CurriculumConfig())
        asked = [known[number] for number in epoch.numbers]
        assert len(asked) % batch == 0
        assert asked
        assert asked == sorted(asked)
        assert len(set(epoch.numbers)) == len(epoch.numbers)
        assert len(asked) + epoch.num_dropped + epoch.num_left_over == len(known)
        num_hard = sum(value >= 0.1 for value in known.values())
        if num_hard >= batch:
            assert sum(value < 0.1 for value in asked) < batch
