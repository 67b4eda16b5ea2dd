"""What the feedback of a finished run is worth: its reliability, what of it can be foretold, its pairs."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import numpy as np

from recloop.encoders.sentence import encode_drafts
from recloop.methods.context import Loop, derived_seed
from recloop.methods.dpo4rec.data import Task
from recloop.methods.dpo4rec.evaluate import UNTUNED, Remembered, judge_stages, load_judges
from recloop.methods.dpo4rec.generate import FEEDBACK, TEST, read_knowledge
from recloop.methods.dpo4rec.reward import COUNTS, PAIRS, REWARDS, read_pairs, read_rewards
from recloop.records import Lists, UserVectors
from recloop.rewards.cross_fit import SharedRewards, share_rewards
from recloop.rewards.reliability import split_half_reliability
from recloop.rewards.reranker_reward import reward_drafts, reward_lists
from studies.evidence.measuring import vectors_of
from studies.evidence.moments import Moments, moments_of
from studies.evidence.numbers import ForetoldNumbers, ReliabilityNumbers, RewardNumbers
from studies.evidence.writing import WRITERS

REWARD_KINDS = ("ndcg@5", "ndcg@10", "map@5", "loglik")
LIST_COUNTS = (None, 2, 4, 8, 16, 32)
MIN_USERS = 10  # below it neither measure says anything


@dataclass(frozen=True, slots=True)
class Judged:
    """The untuned model's drafts for feedback users, as the frozen judges score them; K judges."""

    scores_KBNL: tuple[np.ndarray, ...]
    lists: Lists
    vectors: UserVectors
    seed: int

    @property
    def judges(self) -> list[Remembered]:
        """One per fit."""
        return [Remembered(s_BNL) for s_BNL in self.scores_KBNL]


def judged_drafts(loop: Loop, task: Task, seed: int) -> Judged | None:
    """None where the run has no judge or asked for no feedback."""
    judge = judge_stages(loop, seed)
    if not all(map(loop.run.is_done, judge)) or not loop.config.rounds:
        return None
    vectors, lists = vectors_of(loop, UNTUNED, seed).parts[FEEDBACK], task.lists.feedback
    scores_KBNL = tuple(one.score(lists, vectors) for one in load_judges(loop, judge))
    return Judged(scores_KBNL, lists, vectors, seed)


def reliabilities(judged: Judged) -> tuple[ReliabilityNumbers, ...]:
    """Of every kind of reward, for users with many lists and with few."""
    lists, vectors = judged.lists, judged.vectors
    found: list[ReliabilityNumbers] = []
    for metric in REWARD_KINDS:
        values_BN = reward_lists(judged.judges, lists, vectors, metric)
        has_value_B = np.asarray(np.isfinite(values_BN).all(axis=1))
        for num_lists in LIST_COUNTS:
            rows = first_lists(lists, has_value_B, num_lists)
            if len(np.unique(lists.user_B[rows])) < MIN_USERS:
                continue
            one = split_half_reliability(
                [Remembered(s_BNL[rows]) for s_BNL in judged.scores_KBNL],
                lists.take(rows),
                vectors,
                metric,
                derived_seed(judged.seed, "reliability"),
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


def foretold_rewards(loop: Loop, judged: Judged) -> tuple[ForetoldNumbers, ...]:
    """Of every kind of reward, the part that other users' drafts foretell; and who reached what was paid."""
    seed = judged.seed
    written = {
        row: vectors_of(loop, row, seed).parts[TEST] for row in WRITERS if loop.run.is_done(f"sample.{row}.s{seed}")
    }
    found: list[ForetoldNumbers] = []
    for metric in REWARD_KINDS:
        shared = shared_rewards(judged, metric)
        if shared is None:
            continue
        is_paid = metric == loop.config.reward.metric
        reached = {
            row: moments_of(shared.foretell(drafts, written[UNTUNED]))
            for row, drafts in written.items()
            if is_paid and row != UNTUNED
        }
        found.append(
            ForetoldNumbers(
                metric=metric,
                explained=shared.explained,
                gained=moments_of(shared.gained_U),
                reached=reached,
            )
        )
    return tuple(found)


def shared_rewards(judged: Judged, metric: str) -> SharedRewards | None:
    """What other users' drafts foretell of one kind of reward; None for too few users."""
    rewards = reward_drafts(judged.judges, judged.lists, judged.vectors, metric, 0)
    if len(rewards.user_U) < MIN_USERS:
        return None
    return share_rewards(rewards, judged.vectors, derived_seed(judged.seed, "shared"))


def foretold_by(giver: Loop, loop: Loop, task: Task, seed: int) -> dict[str, Moments]:
    """What this run's drafts about test users are foretold to earn by another run's feedback.

    That is one scale for runs that differ in one thing, whatever their own judges, encoders and rewards are.

    Args:
        giver: a run on the same log, groups and seed.
        task: of both.

    Returns:
        By row, over the giver's untuned model; empty where the giver asked for no feedback.
    """
    judged = judged_drafts(giver, task, seed)
    shared = shared_rewards(judged, giver.config.reward.metric) if judged else None
    if shared is None:
        return {}
    usual = vectors_of(giver, UNTUNED, seed).parts[TEST]
    found: dict[str, Moments] = {}
    for row in WRITERS:
        stage = f"sample.{row}.s{seed}"
        if row != UNTUNED and loop.run.is_done(stage):
            drafts = encode_drafts(giver.open_encoder(), read_knowledge(loop, row, stage).parts[TEST])
            found[row] = moments_of(shared.foretell(drafts, usual))
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
