"""Reasoning-aware advantages: by hand, by a slow plain oracle, and as GRPO's where nothing is penalised."""

import math
import random

import numpy as np
import pytest

from recloop.errors import DataError
from recloop.prompts.request_answer import read_answer
from recloop.rewards.advantages import (
    PENALTY_FLOOR,
    AdvantageConfig,
    Penalty,
    penalised,
    token_advantages,
    tokens_in,
    wrong_spans,
)

TITLES = ["Iron Tide", "Paper Crown", "Velvet Harbour"]
TEXT = 'Wanted: war.\n\n"Iron Tide": war. Yes.\n\n"Paper Crown": drama. No.\n\n\\boxed{Iron Tide}'


def oracle(rewards, wrong, lengths, config):
    """Plain Python, straight from the definition; rows of floats."""
    paid = []
    for reward, marks, length in zip(rewards, wrong, lengths, strict=True):
        row = []
        for mark in marks[:length]:
            value = reward
            if mark and config.penalty == "published":
                value = reward * (1 - config.penalty_weight)
            if mark and config.penalty == "lowered":
                size = reward if reward > 0 else -reward
                value = reward - config.penalty_weight * max(size, PENALTY_FLOOR)
            row.append(value)
        paid.append(row)
    flat = [value for row in paid for value in row]
    if not flat:
        return [[] for _ in paid]
    if max(flat) == min(flat):
        return [[0.0] * len(row) for row in paid]
    bare = [reward for reward, row in zip(rewards, paid, strict=True) for _ in row]
    mean = math.fsum(flat if config.penalty == "published" else bare) / len(flat)
    variance = math.fsum((value - mean) ** 2 for value in flat) / len(flat)
    std = math.sqrt(variance * len(rewards) / (len(rewards) - 1))
    return [[(value - mean) / (std + config.std_floor) for value in row] for row in paid]


def test_paragraphs_that_name_the_wrong_choice_are_found():
    answer = read_answer(TEXT, TITLES, is_finished=True)
    assert [TEXT[start:end] for start, end in wrong_spans(answer, right=1)] == [
        '"Iron Tide": war. Yes.\n\n',
    ]
    again = read_answer(TEXT + "\n\nIron Tide!\n\n\\boxed{Iron Tide}", TITLES, is_finished=True)
    assert wrong_spans(again, right=1) == wrong_spans(answer, right=1)  # nothing after the box
    assert wrong_spans(answer, right=0) == ()  # the choice is right
    nothing = read_answer("Iron Tide, surely.", TITLES, is_finished=True)
    assert wrong_spans(nothing, right=1) == ()  # nothing was chosen
    endless = read_answer(TEXT, TITLES, is_finished=False)
    assert wrong_spans(endless, right=1) == ()
    found = wrong_spans(endless, right=1, undecided=True)
    assert [TEXT[start:end] for start, end in found] == ['"Iron Tide": war. Yes.\n\n', "\\boxed{Iron Tide}"]
    assert wrong_spans(answer, right=1, undecided=True) == wrong_spans(answer, right=1)  # one was chosen


def test_a_token_belongs_to_the_paragraph_of_its_first_character():
    starts_T = np.array([0, 4, 9, 10, 15])
    assert tokens_in([(4, 10), (15, 16)], starts_T).tolist() == [False, True, True, False, True]
    assert tokens_in([], starts_T).tolist() == [False] * 5


def test_advantages_by_hand():
    # Two answers of two tokens, rewards 1 and 0; the second answer's first token lies in a wrong paragraph:
    # lowered to 0 - 0.3 * 0.1 = -0.03. Token rewards 1, 1, -0.03, 0 about the mean reward, 0.5:
    # squares 3 * 0.25 + 0.2809 = 1.0309, over 4 times 2 / 1: 0.51545.
    is_wrong_GT = np.array([[False, False], [True, False]])
    tokens_GT = np.ones((2, 2), bool)
    expected = np.array([[0.5, 0.5], [-0.53, -0.5]]) / (math.sqrt(0.51545) + 0.1)
    found = token_advantages(np.array([1.0, 0.0]), is_wrong_GT, tokens_GT, AdvantageConfig())
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    # Rewards 1 and 0.5, as published: 1, 1, 0.35, 0.5 about their mean, 0.7125:
    # squares 2 * 0.08265625 + 0.13140625 + 0.04515625 = 0.341875, over 4 times 2: 0.1709375.
    expected = np.array([[0.2875, 0.2875], [-0.3625, -0.2125]]) / (math.sqrt(0.1709375) + 0.1)
    found = token_advantages(np.array([1.0, 0.5]), is_wrong_GT, tokens_GT, AdvantageConfig(penalty=Penalty.PUBLISHED))
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_a_penalty_gives_nothing_to_the_rest_of_a_wrong_answer():
    """All wrong alike: only the wrong paragraph is pushed; as published the rest is pulled."""
    rewards_G, tokens_GT = np.array([0.05, 0.05]), np.ones((2, 3), bool)
    is_wrong_GT = np.array([[False, True, False], [False, False, False]])
    ours = token_advantages(rewards_G, is_wrong_GT, tokens_GT, AdvantageConfig())
    assert ours[0, 1] < 0
    assert np.abs(ours[~is_wrong_GT]).max() < 1e-12
    published = token_advantages(rewards_G, is_wrong_GT, tokens_GT, AdvantageConfig(penalty=Penalty.PUBLISHED))
    assert (published[~is_wrong_GT] > 0.02).all()


def test_the_published_penalty_rewards_a_wrong_paragraph_when_the_reward_is_negative_and_ours_does_not():
    rewards_G = np.array([1.0, -0.05])
    is_wrong_GT = np.array([[False, False], [True, False]])
    tokens_GT = np.ones((2, 2), bool)
    published = token_advantages(rewards_G, is_wrong_GT, tokens_GT, AdvantageConfig(penalty=Penalty.PUBLISHED))
    ours = token_advantages(rewards_G, is_wrong_GT, tokens_GT, AdvantageConfig())
    assert published[1, 0] > published[1, 1]
    assert ours[1, 0] < ours[1, 1]
    zero = np.array([1.0, 0.0])
    published = token_advantages(zero, is_wrong_GT, tokens_GT, AdvantageConfig(penalty=Penalty.PUBLISHED))
    assert published[1, 0] == published[1, 1]


@pytest.mark.parametrize("penalty", list(Penalty))
def test_without_wrong_paragraphs_and_with_equal_lengths_it_is_the_advantage_of_grpo(penalty):
    rng = np.random.default_rng(1)
    config = AdvantageConfig(penalty=penalty, std_floor=1e-4)  # TRL's
    for _ in range(50):
        num_answers, num_tokens = rng.integers(2, 9), rng.integers(1, 6)
        rewards_G = rng.normal(size=num_answers)
        nothing_GT = np.zeros((num_answers, num_tokens), bool)
        found_GT = token_advantages(rewards_G, nothing_GT, ~nothing_GT, config)
        grpo_G = (rewards_G - rewards_G.mean()) / (rewards_G.std(ddof=1) + 1e-4)
        np.testing.assert_allclose(found_GT, np.repeat(grpo_G[:, None], num_tokens, axis=1), rtol=1e-9)


def test_among_wrong_answers_alone_little_is_at_stake() -> None:
    """A tied group of wrong answers differs in its penalties alone, by 0.03 of a reward that spans 1."""
    rewards_G = np.array([0.05, 0.05])
    is_wrong_GT = np.array([[False, True], [False, False]])
    tokens_GT = np.ones((2, 2), bool)
    ours_GT = token_advantages(rewards_G, is_wrong_GT, tokens_GT, AdvantageConfig())
    trl_GT = token_advantages(rewards_G, is_wrong_GT, tokens_GT, AdvantageConfig(std_floor=1e-4))
    assert np.abs(ours_GT).max() < 0.25
    assert np.abs(trl_GT).max() > 1


def test_padding_gets_nothing_and_changes_nothing():
    rewards_G = np.array([1.0, 0.0, 0.2])
    is_token_GT = np.array([[1, 1, 0], [1, 0, 0], [1, 1, 1]], bool)
    is_wrong_GT = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0]], bool)
    narrow = token_advantages(rewards_G, is_wrong_GT, is_token_GT, AdvantageConfig())
    pad = ((0, 0), (0, 4))
    wide = token_advantages(
        rewards_G, np.pad(is_wrong_GT, pad, constant_values=True), np.pad(is_token_GT, pad), AdvantageConfig()
    )
    np.testing.assert_array_equal(wide[:, :3], narrow)
    assert not wide[:, 3:].any()
    assert not narrow[~is_token_GT].any()


def test_equal_rewards_teach_nothing():
    mask = np.ones((3, 2), bool)
    assert not token_advantages(np.full(3, 0.05), ~mask, mask, AdvantageConfig()).any()
    assert not token_advantages(np.array([1.0, 0.0]), mask[:2], ~mask[:2], AdvantageConfig()).any()


def test_what_is_no_group_is_refused():
    mask = np.ones((2, 3), bool)
    with pytest.raises(DataError, match="two answers or more"):
        token_advantages(np.array([1.0]), mask[:1], mask[:1], AdvantageConfig())
    with pytest.raises(DataError, match="masks alike"):
        token_advantages(np.array([1.0, 0.0]), mask, mask[:, :2], AdvantageConfig())
    with pytest.raises(DataError, match="finite"):
        token_advantages(np.array([1.0, math.nan]), mask, mask, AdvantageConfig())


@pytest.mark.slow
def test_advantages_equal_a_plain_oracle_on_10_000_random_groups():
    rng = random.Random(0)
    for _ in range(10_000):
        num_answers, width = rng.randint(2, 5), rng.randint(1, 6)
        config = AdvantageConfig(
            penalty=rng.choice(list(Penalty)),
            penalty_weight=rng.random(),
        )
        rewards = [rng.choice([0.0, 1.05, -0.05, rng.gauss(0, 1)]) for _ in range(num_answers)]
        lengths = [rng.randint(0, width) for _ in rewards]
        wrong = [[rng.random() < 0.4 for _ in range(width)] for _ in rewards]
        is_token_GT = np.array([[place < length for place in range(width)] for length in lengths])
        found_GT = token_advantages(np.array(rewards), np.array(wrong), is_token_GT, config)
        for row, length, expected in zip(found_GT, lengths, oracle(rewards, wrong, lengths, config), strict=True):
            # A group whose tokens all earn the same has a variance of rounding errors.
            assert np.allclose(row[:length], expected, rtol=1e-6, atol=1e-8)
            assert not row[length:].any()


def test_penalties_are_what_they_say():
    config = AdvantageConfig(penalty=Penalty.NONE)
    assert penalised(0.4, config) == 0.4
    assert penalised(1.0, AdvantageConfig(penalty_weight=0.5)) == 0.5
    assert penalised(-1.0, AdvantageConfig(penalty_weight=0.5)) == -1.5
