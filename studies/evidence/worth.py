"""What the feedback of a finished run is worth: its reliability, what of it can be predicted, its pairs."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import numpy as np

from recloop.encoders.sentence import encode_completions
from recloop.methods.context import Loop, derived_seed
from recloop.methods.dpo4rec.data import Task
from recloop.methods.dpo4rec.evaluate import UNTUNED, Remembered, reward_model_stages, load_reward_models
from recloop.methods.dpo4rec.generate import REWARD, TEST, read_user_texts
from recloop.methods.dpo4rec.reward import COUNTS, PAIRS, REWARDS, read_pairs, read_rewards
from recloop.records import Lists, UserVectors
from recloop.rewards.cross_fit import CrossFittedRewards, cross_fit_rewards
from recloop.rewards.reliability import split_half_reliability
from recloop.rewards.reranker_reward import reward_completions, reward_lists
from studies.evidence.measuring import vectors_of
from studies.evidence.moments import Moments, moments_of
from studies.evidence.numbers import PredictedNumbers, ReliabilityNumbers, RewardNumbers
from studies.evidence.writing import WRITERS

REWARD_KINDS = ("ndcg@5", "ndcg@10", "map@5", "loglik")
LIST_COUNTS = (None, 2, 4, 8, 16, 32)
MIN_USERS = 10  # below it neither measure says anything


@dataclass(frozen=True, slots=True)
class Judged:
    """The untuned model's completions for reward users, as the frozen reward models score them; K reward models."""

    scores_KBNL: tuple[np.ndarray, ...]
    lists: Lists
    vectors: UserVectors
    seed: int

    @property
    def reward_models(self) -> list[Remembered]:
        """One per fit."""
        return [Remembered(s_BNL) for s_BNL in self.scores_KBNL]


def judged_completions(loop: Loop, task: Task, seed: int) -> Judged | None:
    """None where the run has no reward model or asked for no feedback."""
    reward_model = reward_model_stages(loop, seed)
    if not all(map(loop.run.is_done, reward_model)) or not loop.config.rounds:
        return None
    vectors, lists = vectors_of(loop, UNTUNED, seed).parts[REWARD], task.lists.reward
    scores_KBNL = tuple(one.score(lists, vectors) for one in load_reward_models(loop, reward_model))
    return Judged(scores_KBNL, lists, vectors, seed)


def reliabilities(assessed: Judged) -> tuple[ReliabilityNumbers, ...]:
    """Of every kind of reward, for users with many lists and with few."""
    lists, vectors = assessed.lists, assessed.vectors
    found: list[ReliabilityNumbers] = []
    for metric in REWARD_KINDS:
        values_BN = reward_lists(assessed.reward_models, lists, vectors, metric)
        has_value_B = np.asarray(np.isfinite(values_BN).all(axis=1))
        for num_lists in LIST_COUNTS:
            rows = first_lists(lists, has_value_B, num_lists)
            if len(np.unique(lists.user_B[rows])) < MIN_USERS:
                continue
            one = split_half_reliability(
                [Remembered(s_BNL[rows]) for s_BNL in assessed.scores_KBNL],
                lists.take(rows),
                vectors,
                metric,
                derived_seed(assessed.seed, "reliability"),
            )
            found.append(
                ReliabilityNumbers(
                    metric=metric,
                    num_lists=num_lists,
                    reliability=one.reliability,
                    low=one.low,
                    high=one.high,
                    num_users=one.num_users,
                )
            )
    return tuple(found)


def predicted_rewards(loop: Loop, assessed: Judged) -> tuple[PredictedNumbers, ...]:
    """Of every kind of reward, the part that other users' completions predicts; and who reached what was paid."""
    seed = assessed.seed
    written = {
        row: vectors_of(loop, row, seed).parts[TEST] for row in WRITERS if loop.run.is_done(f"sample.{row}.s{seed}")
    }
    found: list[PredictedNumbers] = []
    for metric in REWARD_KINDS:
        cross_fitted = cross_fitted_rewards(assessed, metric)
        if cross_fitted is None:
            continue
        is_paid = metric == loop.config.reward.metric
        reached = {
            row: moments_of(cross_fitted.foretell(completions, written[UNTUNED]))
            for row, completions in written.items()
            if is_paid and row != UNTUNED
        }
        found.append(
            PredictedNumbers(
                metric=metric,
                explained=cross_fitted.explained,
                gained=moments_of(cross_fitted.gained_U),
                reached=reached,
            )
        )
    return tuple(found)


def cross_fitted_rewards(assessed: Judged, metric: str) -> CrossFittedRewards | None:
    """What other users' completions predicts of one kind of reward; None for too few users."""
    rewards = reward_completions(assessed.reward_models, assessed.lists, assessed.vectors, metric, 0)
    if len(rewards.user_U) < MIN_USERS:
        return None
    return cross_fit_rewards(rewards, assessed.vectors, derived_seed(assessed.seed, "cross_fit"))


def predicted_by(source: Loop, loop: Loop, task: Task, seed: int) -> dict[str, Moments]:
    """What this run's completions about test users are predicted to earn by another run's feedback.

    That is one scale for runs that differ in one thing, whatever their own reward models, encoders and rewards are.

    Args:
        source run: a run on the same log, groups and seed.
        task: of both.

    Returns:
        By row, over the source run's untuned model; empty where the source run asked for no feedback.
    """
    assessed = judged_completions(source, task, seed)
    cross_fitted = cross_fitted_rewards(assessed, source.config.reward.metric) if assessed else None
    if cross_fitted is None:
        return {}
    population_rates = vectors_of(source, UNTUNED, seed).parts[TEST]
    found: dict[str, Moments] = {}
    for row in WRITERS:
        stage = f"sample.{row}.s{seed}"
        if row != UNTUNED and loop.run.is_done(stage):
            completions = encode_completions(source.open_encoder(), read_user_texts(loop, row, stage).parts[TEST])
            found[row] = moments_of(cross_fitted.foretell(completions, population_rates))
    return found


def first_lists(lists: Lists, has_value_B: np.ndarray, num_lists: int | None) -> np.ndarray:
    """Rows of the first lists with a value, of the users who have so many; None: all lists, of 2 or more."""
    rows = np.flatnonzero(has_value_B)
    _, first_U, user_B, count_U = np.unique(
        lists.user_B[rows], return_index=True, return_inverse=True, return_counts=True
    )
    place_B = np.arange(len(rows)) - first_U[user_B]
    limit = int(count_U.max(initial=0)) if num_lists is None else num_lists
    return rows[(count_U[user_B] >= (num_lists or 2)) & (place_B < limit)]


def reward_numbers(loop: Loop, task: Task, seed: int) -> tuple[RewardNumbers, ...]:
    """What the feedback of every round had to offer, and the pairs made of it."""
    found: list[RewardNumbers] = []
    for round in range(loop.config.rounds):
        metric = loop.config.reward.metric
        file = loop.run.folder(f"reward.r{round}.s{seed}") / REWARDS
        rewards_UN = read_rewards(file, task, metric).rewards_UN.astype(np.float64)
        folder = loop.run.folder(f"pairs.r{round}.s{seed}")
        counts: dict[str, Any] = json.loads((folder / COUNTS).read_text(encoding="utf-8"))
        counts["num_pairs"] = len(read_pairs(folder / PAIRS, task))
        found.append(
            RewardNumbers(
                round=round,
                metric=metric,
                best_less_mean=moments_of(rewards_UN.max(axis=1) - rewards_UN.mean(axis=1)),
                pairs={name: value for name, value in counts.items() if isinstance(value, int)},
            )
        )
    return tuple(found)
