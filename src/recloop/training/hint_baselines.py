"""Simple ways to choose a hint per session, each fitted on the same cached rewards as the PPO policy.

Axis letters: ``S`` sessions, ``H`` hints (the empty one is number 0), ``D`` vector width. A choice is a hint number
per session asked about.
"""

from __future__ import annotations

from itertools import chain, count, islice
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from jaxtyping import Float, Int64

RIDGES = (0.1, 1.0, 10.0, 100.0, 1000.0)


def always_empty(num_sessions: int) -> Int64[np.ndarray, " S"]:
    """No hint, ever."""
    return np.zeros(num_sessions, dtype=np.int64)


def random_hints(num_sessions: int, num_hints: int, seed: int) -> Int64[np.ndarray, " S"]:
    """A hint by chance, the empty one excepted where there is another."""
    first = min(1, num_hints - 1)
    return np.random.default_rng(seed).integers(first, num_hints, num_sessions)


def best_single(rewards_SH: Float[np.ndarray, "S H"], num_sessions: int) -> Int64[np.ndarray, " S"]:
    """The hint with the best mean over the training sessions, for every session; ties go to the first."""
    return np.full(num_sessions, int(rewards_SH.mean(axis=0).argmax()), dtype=np.int64)


def nearest_neighbours(
    train_SD: Float[np.ndarray, "S D"],
    rewards_SH: Float[np.ndarray, "S H"],
    asked_SD: Float[np.ndarray, "S D"],
    num_neighbours: int,
) -> Int64[np.ndarray, " S"]:
    """The hint with the best mean over the training sessions nearest by cosine."""
    near_SS = _unit(asked_SD) @ _unit(train_SD).T
    nearest = np.argsort(-near_SS, axis=1, kind="stable")[:, :num_neighbours]
    return rewards_SH[nearest].mean(axis=1).argmax(axis=1)


def lin_ucb(
    train_SD: Float[np.ndarray, "S D"],
    rewards_SH: Float[np.ndarray, "S H"],
    asked_SD: Float[np.ndarray, "S D"],
    num_steps: int,
    alpha: float,
    seed: int,
) -> Int64[np.ndarray, " S"]:
    """A linear bandit: sessions come one by one in random order, and only the chosen hint's reward is seen.

    Args:
        num_steps: sessions seen; the PPO policy's number makes the comparison fair.
        alpha: width of the confidence bound while learning; choices afterwards are by the mean alone.

    Source: LinUCB with disjoint models, Li et al. 2010 (arXiv 1003.0146).
    """
    rng = np.random.default_rng(seed)
    train_SD, asked_SD = _with_one(train_SD), _with_one(asked_SD)
    num_hints, width = rewards_SH.shape[1], train_SD.shape[1]
    inverse_HDD = np.tile(np.eye(width), (num_hints, 1, 1))
    sums_HD, weights_HD = np.zeros((2, num_hints, width))
    sessions = chain.from_iterable(rng.permutation(len(train_SD)) for _ in count())
    for session in islice(sessions, num_steps):
        x_D = train_SD[session]
        spread_HD = inverse_HDD @ x_D
        bound_H = weights_HD @ x_D + alpha * np.sqrt(spread_HD @ x_D)
        hint = int(bound_H.argmax())
        u_D = spread_HD[hint]
        inverse_HDD[hint] -= np.outer(u_D, u_D) / (1.0 + x_D @ u_D)  # Sherman and Morrison
        sums_HD[hint] += rewards_SH[session, hint] * x_D
        weights_HD[hint] = inverse_HDD[hint] @ sums_HD[hint]
    return (asked_SD @ weights_HD.T).argmax(axis=1)


def supervised(
    train_SD: Float[np.ndarray, "S D"], rewards_SH: Float[np.ndarray, "S H"], asked_SD: Float[np.ndarray, "S D"]
) -> Int64[np.ndarray, " S"]:
    """The hint with the best reward by ridge regression on all hints' rewards, of the least leave-one-out error."""
    x_SD, mean_H = _with_one(train_SD), rewards_SH.mean(axis=0)
    u_SR, s_R, vt_RD = np.linalg.svd(x_SD, full_matrices=False)
    told_SH = rewards_SH - mean_H
    projected_RH = u_SR.T @ told_SH
    errors: list[float] = []
    for ridge in RIDGES:
        shrink_R = s_R**2 / (s_R**2 + ridge)
        fitted_SH = u_SR @ (shrink_R[:, None] * projected_RH)
        leverage_S = (u_SR**2 @ shrink_R).clip(max=1 - 1e-9)
        errors.append(float((((told_SH - fitted_SH) / (1 - leverage_S)[:, None]) ** 2).mean()))
    ridge = RIDGES[int(np.argmin(errors))]
    weights_DH = vt_RD.T @ ((s_R / (s_R**2 + ridge))[:, None] * projected_RH)
    return (_with_one(asked_SD) @ weights_DH + mean_H).argmax(axis=1)


def _unit(vectors_SD: np.ndarray) -> np.ndarray:
    lengths_S1 = np.linalg.norm(vectors_SD, axis=1, keepdims=True)
    return vectors_SD / np.where(lengths_S1 > 0, lengths_S1, 1)


def _with_one(vectors_SD: np.ndarray) -> np.ndarray:
    return np.concatenate([vectors_SD.astype(np.float64), np.ones((len(vectors_SD), 1))], axis=1)
