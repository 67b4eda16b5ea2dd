"""The hint policy: its environment, its file, and that it learns where there is something to learn."""

from pathlib import Path

import numpy as np
import pytest

from recloop.errors import DataError, TrainingError
from recloop.training.hint_policy import (
    HintPolicy,
    PolicyConfig,
    learn_policy,
    load_policy,
    save_policy,
    session_environment,
    standardise,
)
from test_training_hint_baselines import simulated

QUICK = PolicyConfig(steps=2048, lr=1e-3, width=16)


def policy_by_hand() -> HintPolicy:
    """Two places, one hidden layer of two: score of hint h is tanh of place h, centred at (1, 0)."""
    eye = np.eye(2)
    return HintPolicy(np.array([1.0, 0.0]), np.array([1.0, 2.0]), ((eye, np.zeros(2)), (eye, np.zeros(2))))


def test_scores_by_hand() -> None:
    # (2, 2) becomes (1, 1); (0, 4) becomes (-1, 2).
    scores = policy_by_hand().scores(np.array([[2.0, 2.0], [0.0, 4.0]]))
    assert scores == pytest.approx(np.tanh([[1.0, 1.0], [-1.0, 2.0]]))
    assert policy_by_hand().choose(np.array([[3.0, 0.0], [0.0, 4.0]])).tolist() == [0, 1]


def test_a_policy_is_read_back_and_something_else_is_refused(tmp_path: Path) -> None:
    save_policy(tmp_path / "policy.safetensors", policy_by_hand())
    back = load_policy(tmp_path / "policy.safetensors")
    asked = np.random.default_rng(0).normal(size=(5, 2))
    assert (back.scores(asked) == policy_by_hand().scores(asked)).all()
    (tmp_path / "policy.safetensors").write_bytes(b"nothing")
    with pytest.raises(DataError, match="must hold a hint policy"):
        load_policy(tmp_path / "policy.safetensors")


def test_a_place_that_never_changes_is_not_scaled() -> None:
    mean_D, scale_D = standardise(np.array([[1.0, 5.0], [3.0, 5.0]]))
    assert mean_D.tolist() == [2.0, 5.0]
    assert scale_D.tolist() == [1.0, 1.0]


def test_nonsense_is_refused() -> None:
    with pytest.raises(TrainingError, match="two hints"):
        learn_policy(np.zeros((3, 2)), np.zeros((3, 1)), QUICK, 0)
    with pytest.raises(TrainingError, match="finite"):
        learn_policy(np.full((3, 2), np.nan), np.zeros((3, 2)), QUICK, 0)


@pytest.mark.slow
def test_the_environment_is_one_step_per_session_and_keeps_gymnasiums_contract() -> None:
    from gymnasium.utils.env_checker import check_env

    states_SD = np.arange(6, dtype=np.float32).reshape(3, 2)
    rewards_SH = np.array([[0.0, 1.0], [0.0, 2.0], [0.0, 3.0]])
    check_env(session_environment(states_SD, rewards_SH), skip_render_check=True)
    env = session_environment(states_SD, rewards_SH)
    met: list[float] = []
    for _ in range(3):
        state, _ = env.reset()
        _, reward, is_over, _, _ = env.step(np.int64(1))
        assert is_over
        assert reward == 1.0 + state[0] / 2  # the reward of the session that was shown
        met.append(reward)
    assert sorted(met) == [1.0, 2.0, 3.0]  # each session before one comes again


@pytest.mark.slow
def test_it_learns_the_line_where_there_is_one_and_nothing_where_there_is_none() -> None:
    gains: list[float] = []
    for signal in (True, False):
        train_SD, rewards_SH = simulated(200, 0, signal=signal)
        asked_SD, asked_SH = simulated(400, 1, signal=signal)
        policy, points = learn_policy(train_SD, rewards_SH, QUICK, seed=5)
        gains.append(float(asked_SH[np.arange(400), policy.choose(asked_SD)].mean()))
        assert [point.step for point in points] == [0, 512, 1024, 1536, 2048]
        assert points[-1].entropy < points[0].entropy <= np.log(3) + 1e-6
    assert gains[0] > 0.8 * 0.5  # 80% of what the right hint earns everywhere
    assert gains[1] < 0.125 + 0.06  # see test_tuning_hint_rivals


@pytest.mark.slow
def test_a_point_is_the_policy_that_so_many_episodes_made() -> None:
    train_SD, rewards_SH = simulated(64, 0, signal=True)
    config = QUICK.model_copy(update={"rollout": 64, "lr": 1e-2})
    short, points = learn_policy(train_SD, rewards_SH, config.model_copy(update={"steps": 64}), 1)
    longer, more = learn_policy(train_SD, rewards_SH, config.model_copy(update={"steps": 128}), 1)
    assert [point.step for point in more] == [0, 64, 128]
    assert points == more[:2]
    for policy, point in ((short, more[1]), (longer, more[2])):
        chances_SH = np.exp(policy.scores(train_SD))
        chances_SH /= chances_SH.sum(axis=1, keepdims=True)
        assert point.reward == pytest.approx(rewards_SH[np.arange(64), policy.choose(train_SD)].mean())
        assert point.entropy == pytest.approx(-(chances_SH * np.log(chances_SH)).sum(axis=1).mean())
    assert len({point.entropy for point in more}) == 3


@pytest.mark.slow
def test_the_matrices_are_the_network_and_the_seed_decides() -> None:
    train_SD, rewards_SH = simulated(64, 0, signal=True)
    config = QUICK.model_copy(update={"steps": 64, "rollout": 64})
    one, again, other = (learn_policy(train_SD, rewards_SH, config, seed)[0] for seed in (1, 1, 2))
    assert (one.scores(train_SD) == again.scores(train_SD)).all()
    assert (one.scores(train_SD) != other.scores(train_SD)).any()
    assert [weight.shape for weight, _ in one.layers] == [(16, 4), (16, 16), (3, 16)]
