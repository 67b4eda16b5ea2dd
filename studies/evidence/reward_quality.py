"""The reward of a finished run: its reliability, how much of it can be predicted, and the pairs."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import numpy as np

from recloop.encoders.sentence import encode_completions
from recloop.methods.dpo4rec.data import Task
from recloop.methods.dpo4rec.evaluate import load_reward_models, reward_model_steps
from recloop.methods.dpo4rec.generate import REWARD, TEST, read_user_texts
from recloop.methods.dpo4rec.names import UNTUNED
from recloop.methods.dpo4rec.reward import COUNTS, PAIRS, REWARDS, read_pairs, read_rewards
from recloop.methods.study import Study as Loop
from recloop.methods.study import derived_seed
from recloop.records import Lists, UserVectors
from recloop.rerankers.metrics import compute_completion_metrics
from recloop.rewards.cross_fit import CrossFittedRewards, cross_fit_rewards
from recloop.rewards.reliability import split_half_reliability
from recloop.rewards.reranker_reward import ListRewards, user_rewards
from studies.evidence.numbers import PredictedNumbers, ReliabilityNumbers, RewardNumbers
from studies.evidence.statistics import Moments, moments_of
from studies.evidence.tables import vectors_of
from studies.evidence.writing import WRITERS

REWARD_KINDS = ("ndcg@5", "ndcg@10", "map@5", "loglik")
LIST_COUNTS = (None, 2, 4, 8, 16, 32)
MIN_USERS = 10  # fewer give a reliability and an R² that mean nothing


@dataclass(frozen=True, slots=True)
class ScoredCompletions:
    """The untuned model's completions for reward users, scored by each of the K frozen reward models."""

    scores_KBNL: tuple[np.ndarray, ...]
    lists: Lists
    vectors: UserVectors
    seed: int

    def rewards(self, metric: str, rows: np.ndarray | None = None) -> ListRewards:
        """One kind of reward of these lists; None: of all."""
        rows = np.arange(len(self.lists)) if rows is None else rows
        lists = self.lists.take(rows)
        values = [compute_completion_metrics(metric, scores_BNL[rows], lists) for scores_BNL in self.scores_KBNL]
        return ListRewards(metric, lists.user_B, np.stack(values))


def scored_completions(loop: Loop, task: Task, seed: int) -> ScoredCompletions | None:
    """The completions and their scores, or None where the run has no reward model or rewards none of them."""
    steps = reward_model_steps(loop, seed)
    if not all(map(loop.run.is_done, steps)) or not num_rewarded_rounds(loop):
        return None
    vectors, lists = vectors_of(loop, UNTUNED, seed).parts[REWARD], task.lists.reward
    scores_KBNL = tuple(one.score(lists, vectors) for one in load_reward_models(loop, steps))
    return ScoredCompletions(scores_KBNL, lists, vectors, seed)


def reliabilities(scored: ScoredCompletions) -> tuple[ReliabilityNumbers, ...]:
    """The reliability of every kind of reward, for users with many lists and with few."""
    lists = scored.lists
    found: list[ReliabilityNumbers] = []
    for metric in REWARD_KINDS:
        has_value_B = np.asarray(np.isfinite(scored.rewards(metric).mean_BN).all(axis=1))
        for num_lists in LIST_COUNTS:
            rows = first_lists(lists, has_value_B, num_lists)
            if len(np.unique(lists.user_B[rows])) < MIN_USERS:
                continue
            one = split_half_reliability(scored.rewards(metric, rows), derived_seed(scored.seed, "reliability"))
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


def predicted_rewards(loop: Loop, scored: ScoredCompletions) -> tuple[PredictedNumbers, ...]:
    """How much of every kind of reward other users' completions predict, and what each variant reached."""
    seed = scored.seed
    written = {
        name: vectors_of(loop, name, seed).parts[TEST] for name in WRITERS if loop.run.is_done(f"sample.{name}.s{seed}")
    }
    found: list[PredictedNumbers] = []
    for metric in REWARD_KINDS:
        cross_fitted = cross_fitted_rewards(scored, metric)
        if cross_fitted is None:
            continue
        is_trained_on = metric == loop.config.reward.metric
        reached = {
            name: moments_of(cross_fitted.predict_gain(vectors, written[UNTUNED]))
            for name, vectors in written.items()
            if is_trained_on and name != UNTUNED
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


def cross_fitted_rewards(scored: ScoredCompletions, metric: str) -> CrossFittedRewards | None:
    """One kind of reward as other users' completions predict it, or None for too few users."""
    rewards = user_rewards(scored.rewards(metric), 0)
    if len(rewards.user_U) < MIN_USERS:
        return None
    return cross_fit_rewards(rewards, scored.vectors, derived_seed(scored.seed, "shared"))


def predicted_by(source: Loop, loop: Loop, task: Task, seed: int) -> dict[str, Moments]:
    """The reward that another run predicts for this run's completions about test users.

    This is one scale for runs that differ in one setting, whatever their own reward models, encoders and rewards are.

    Args:
        source: a run on the same log, with the same groups and seed.
        task: of both.

    Returns:
        By variant, minus the source run's untuned model; empty where the source run has no rewards.
    """
    scored = scored_completions(source, task, seed)
    cross_fitted = cross_fitted_rewards(scored, source.config.reward.metric) if scored else None
    if cross_fitted is None:
        return {}
    untuned = vectors_of(source, UNTUNED, seed).parts[TEST]
    found: dict[str, Moments] = {}
    for name in WRITERS:
        step = f"sample.{name}.s{seed}"
        if name != UNTUNED and loop.run.is_done(step):
            vectors = encode_completions(source.open_encoder(), read_user_texts(loop, name, step).parts[TEST])
            found[name] = moments_of(cross_fitted.predict_gain(vectors, untuned))
    return found


def first_lists(lists: Lists, has_value_B: np.ndarray, num_lists: int | None) -> np.ndarray:
    """Places of the first `num_lists` lists with a value of each user who has so many; None: all, of 2 or more."""
    rows = np.flatnonzero(has_value_B)
    _, first_U, user_B, count_U = np.unique(
        lists.user_B[rows], return_index=True, return_inverse=True, return_counts=True
    )
    place_B = np.arange(len(rows)) - first_U[user_B]
    limit = int(count_U.max(initial=0)) if num_lists is None else num_lists
    return rows[(count_U[user_B] >= (num_lists or 2)) & (place_B < limit)]


def num_rewarded_rounds(loop: Loop) -> int:
    """Rounds in which completions of all reward users were rewarded at once; GRPO rewards them as they are written."""
    return 0 if loop.config.train == "grpo" else loop.config.rounds


def reward_numbers(loop: Loop, task: Task, seed: int) -> tuple[RewardNumbers, ...]:
    """The spread of every round's rewards, and the pairs made of them."""
    found: list[RewardNumbers] = []
    for round in range(num_rewarded_rounds(loop)):
        metric = loop.config.reward.metric
        file = loop.run.folder(f"reward.r{round}.s{seed}") / REWARDS
        rewards_UN = read_rewards(file, task.log, metric).rewards_UN.astype(np.float64)
        folder = loop.run.folder(f"pairs.r{round}.s{seed}")
        counts: dict[str, Any] = json.loads((folder / COUNTS).read_text(encoding="utf-8"))
        counts["num_pairs"] = len(read_pairs(folder / PAIRS, task.log))
        found.append(
            RewardNumbers(
                round=round,
                metric=metric,
                best_less_mean=moments_of(rewards_UN.max(axis=1) - rewards_UN.mean(axis=1)),
                pairs={name: value for name, value in counts.items() if isinstance(value, int)},
            )
        )
    return tuple(found)
