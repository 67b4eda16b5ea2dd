"""Simple choices of a hint, by hand and in a simulated log where a line through the states parts the hints."""

import numpy as np
import pytest

from recloop.training.hint_baselines import (
    always_empty,
    best_single,
    lin_ucb,
    nearest_neighbours,
    random_hints,
    supervised,
)


def simulated(num: int, seed: int, *, signal: bool) -> tuple[np.ndarray, np.ndarray]:
    """States and rewards: with signal hint 1 helps where the first place is positive, hint 2 elsewhere."""
    rng = np.random.default_rng(seed)
    states_SD = rng.normal(size=(num, 4))
    right_S = np.where(states_SD[:, 0] > 0, 1, 2) if signal else rng.integers(1, 3, num)
    rewards_SH = np.zeros((num, 3))
    rewards_SH[np.arange(num), right_S] = 0.5
    rewards_SH[np.arange(num), 3 - right_S] = -0.25
    return states_SD, rewards_SH


def test_empty_random_and_best_single() -> None:
    assert always_empty(3).tolist() == [0, 0, 0]
    drawn = random_hints(300, 4, seed=1)
    assert set(drawn.tolist()) == {1, 2, 3}
    assert random_hints(2, 1, seed=1).tolist() == [0, 0]
    rewards_SH = np.array([[0, 0.2, 0.4], [0, 0.4, 0.1]])  # means 0, .3, .25
    assert best_single(rewards_SH, 2).tolist() == [1, 1]
    assert best_single(np.array([[0, -0.1]]), 1).tolist() == [0]


def test_neighbours_by_hand() -> None:
    train_SD = np.array([[1.0, 0.0], [2.0, 0.1], [0.0, 1.0]])
    rewards_SH = np.array([[0, 1.0, 0], [0, 0.0, 0.8], [0, 0, 3.0]])
    # The two nearest to (5, 0) by cosine are the first two: means 0, .5, .4.
    assert nearest_neighbours(train_SD, rewards_SH, np.array([[5.0, 0.0]]), 2).tolist() == [1]
    assert nearest_neighbours(train_SD, rewards_SH, np.array([[5.0, 0.0]]), 9).tolist() == [2]


@pytest.mark.parametrize("baseline", ["neighbours", "supervised", "lin_ucb"])
def test_learnt_choices_find_the_line_where_there_is_one_and_nothing_where_there_is_none(baseline: str) -> None:
    gains: list[float] = []
    for signal in (True, False):
        train_SD, rewards_SH = simulated(300, 0, signal=signal)
        asked_SD, asked_SH = simulated(400, 1, signal=signal)
        match baseline:
            case "neighbours":
                chosen = nearest_neighbours(train_SD, rewards_SH, asked_SD, 20)
            case "supervised":
                chosen = supervised(train_SD, rewards_SH, asked_SD)
            case _:
                chosen = lin_ucb(train_SD, rewards_SH, asked_SD, 1500, 1.0, seed=2)
        gains.append(float(asked_SH[np.arange(400), chosen].mean()))
    assert gains[0] > 0.35  # the right hint everywhere earns .5, either hint for all .125
    # Any choice of hints 1 and 2 earns .125 on average there, with a standard error of .019.
    assert gains[1] < 0.125 + 0.06


def test_the_ridge_that_is_chosen_has_the_least_error_left_out() -> None:
    train_SD, rewards_SH = simulated(40, 3, signal=True)
    chosen = supervised(train_SD, rewards_SH, train_SD)
    x = np.concatenate([train_SD, np.ones((40, 1))], axis=1)
    errors: dict[float, float] = {}
    told = rewards_SH - rewards_SH.mean(axis=0)
    for ridge in (0.1, 1.0, 10.0, 100.0, 1000.0):
        errors[ridge] = 0.0
        for left_out in range(40):  # slow and plain: one fit for each session left out
            keep = np.arange(40) != left_out
            w = np.linalg.solve(x[keep].T @ x[keep] + ridge * np.eye(5), x[keep].T @ told[keep])
            errors[ridge] += float(((told[left_out] - x[left_out] @ w) ** 2).sum())
    best = min(errors, key=errors.__getitem__)
    weights = np.linalg.solve(x.T @ x + best * np.eye(5), x.T @ told)
    assert chosen.tolist() == (x @ weights + rewards_SH.mean(axis=0)).argmax(axis=1).tolist()
