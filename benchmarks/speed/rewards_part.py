"""Rewards of all completions of all users, against a pass per completion that adapts at every position."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.speed.bench import Bench
from benchmarks.speed.figures import Check, Figure, Findings, Growth, Target
from benchmarks.speed.measuring import growth_line, products_of, profile, race, repeat
from benchmarks.speed.per_list_alternative import score_per_list
from benchmarks.speed.rerank_task import RerankTask, rerank_task, with_completions
from benchmarks.speed.training_part import SEED, fit_once, settings, teachable
from recloop.records import Group, Lists
from recloop.rerankers.fitted import FittedReranker
from recloop.rewards.reranker_reward import reranker_reward

if TYPE_CHECKING:
    from jaxtyping import Float32

    from recloop.records import UserVectors

NUM_COMPLETIONS, NUM_DISTINCT = 10, 3  # SmolLM2's first sentences on Amazon Scientific: 2.4 of ten differ
BATCH = 512  # lists in one forward pass of the alternative
RACED_LISTS, COUNTED_LISTS = 3_000, 1_000
METRIC = "ndcg@5"
ALLOWED = 1e-5
WANTED_RATIO, WANTED_S = 10.0, 60.0


class PerListRewardModel:
    """A fitted reranker that scores as the alternative does."""

    def __init__(self, reranker: FittedReranker) -> None:
        self._reranker = reranker

    def score(self, lists: Lists, vectors: UserVectors | None, /) -> Float32[np.ndarray, "B N L"]:
        return score_per_list(self._reranker.network, self._reranker.tensors(lists, vectors), BATCH)


def measure(bench: Bench) -> Findings:
    """Time a part of the lists for the ratio, and all lists for the time."""
    task = rerank_task(bench.config)
    reward_model = quick_reward_model(task)
    lists = replace(task.train, group=Group.REWARD)
    vectors = with_completions(task.vectors, NUM_COMPLETIONS, seed=1)
    figures: list[Figure] = []
    with bench.progress.stage("rewards", 3 * bench.repetitions, "repetitions") as step:
        some = lists.take(np.arange(min(bench.amount(RACED_LISTS, 100), len(lists))))
        figures.append(_ratio(f"{NUM_COMPLETIONS} completions", reward_model, some, vectors, bench, step))
        few = replace(vectors, vectors_UND=vectors.vectors_UND[:, np.arange(NUM_COMPLETIONS) % NUM_DISTINCT])
        name = f"{NUM_COMPLETIONS} completions, {NUM_DISTINCT} different"
        figures.append(_ratio(name, reward_model, some, few, bench, step))
        figures.append(_all_lists(reward_model, lists, vectors, task, bench))
        step(bench.repetitions)
    some = lists.take(np.arange(min(bench.amount(4_000, 100), len(lists))))
    return Findings(
        figures=tuple(figures),
        growths=tuple(_growths(reward_model, some, vectors)),
        profiles=(
            profile(
                "rewards of ten completions", lambda: reranker_reward([reward_model], some, vectors, metric=METRIC)
            ),
        ),
        bound=(
            "Matrix products of the backbone: attention and the scoring network run for every list with every "
            "completion. What does not depend on the completion (item side) is computed once per list, and what "
            "does not depend on the position (adapted text) once per completion. Equal texts of a user are scored once."
        ),
    )


def quick_reward_model(task: RerankTask) -> FittedReranker:
    """PRM with texts and item knowledge after a few steps, enough for scores that differ."""
    train = teachable(task.train)
    config = settings("prm", with_items=True)
    return fit_once(task, train.take(np.arange(min(len(train), 2_000))), config, SEED)


def _ratio(
    name: str, reward_model: FittedReranker, lists: Lists, vectors: UserVectors, bench: Bench, step: Any
) -> Figure:
    amount = len(lists) * NUM_COMPLETIONS
    plain = PerListRewardModel(reward_model)
    found = race(
        ("reranker_reward", amount, lambda: reranker_reward([reward_model], lists, vectors, metric=METRIC)),
        ("a pass per completion, uncached", amount, lambda: reranker_reward([plain], lists, vectors, metric=METRIC)),
        bench.repetitions,
        step,
    )
    scores, their_scores = (
        one.score(lists, vectors)[
            np.broadcast_to(lists.is_item_BL[:, None], (len(lists), NUM_COMPLETIONS, lists.items_BL.shape[1]))
        ]
        for one in (reward_model, plain)
    )
    rewards, their_rewards = found.our_result.rewards_UN, found.their_result.rewards_UN
    few = lists.take(np.arange(min(len(lists), COUNTED_LISTS)))
    figure = Figure(
        name=f"rewards, {name}",
        unit="list scorings",
        ours=found.ours,
        against=found.against,
        checks=(
            Check(what="largest difference of a score", value=_gap(scores, their_scores), most=1e-4),
            Check(
                what="difference of the mean reward",
                value=_gap(rewards.mean(), their_rewards.mean()),
                most=ALLOWED,
            ),
        ),
        notes=(f"{len(lists):,} lists; both with the same vectorised metric",),
        products=products_of(
            lambda: reranker_reward([reward_model], few, vectors, metric=METRIC),
            lambda: reranker_reward([plain], few, vectors, metric=METRIC),
            len(few) * NUM_COMPLETIONS,
        ),
    )
    return figure.with_ratio_target(WANTED_RATIO)


def _all_lists(
    reward_model: FittedReranker, lists: Lists, vectors: UserVectors, task: RerankTask, bench: Bench
) -> Figure:
    amount = len(lists) * NUM_COMPLETIONS
    side, _ = repeat(
        "reranker_reward",
        amount,
        lambda: reranker_reward([reward_model], lists, vectors, metric=METRIC),
        min(2, bench.repetitions),
    )
    wall_s = float(np.median(side.wall_s))
    target = Target(what="time", wanted="at most", limit=WANTED_S, value=wall_s, unit="s")
    return Figure(
        name=f"rewards, {NUM_COMPLETIONS} completions, all users' lists",
        unit="list scorings",
        ours=side,
        targets=(target,),
        notes=(f"{task.name}: {amount:,} list scorings in {wall_s:.1f} s",),
    )


def _growths(reward_model: FittedReranker, lists: Lists, vectors: UserVectors) -> list[Growth]:
    users = np.unique(lists.user_B)

    def by_users(num: int) -> Any:
        few = lists.take(lists.user_B <= users[num - 1])
        return lambda: reranker_reward([reward_model], few, vectors, metric=METRIC)

    def by_completions(num: int) -> Any:
        fewer = replace(vectors, vectors_UND=vectors.vectors_UND[:, :num])
        return lambda: reranker_reward([reward_model], lists, fewer, metric=METRIC)

    def by_len(num: int) -> Any:
        cut = replace(
            lists,
            items_BL=lists.items_BL[:, :num],
            labels_BL=np.ones((len(lists), num), np.float32),
            is_item_BL=lists.is_item_BL[:, :num],
        )
        return lambda: reranker_reward([reward_model], cut, vectors, metric=METRIC)

    user_sizes = tuple(max(1, len(users) // part) for part in (8, 4, 2, 1))
    return [
        Growth(
            title=f"Rewards: cost by {label}",
            x_label=label,
            y_label="seconds",
            lines=(growth_line("recloop", tuple(sorted(set(xs))), work_of),),
        )
        for label, xs, work_of in (
            ("users", user_sizes, by_users),
            ("completions (N)", (1, 2, 5, 10), by_completions),
            ("items in a list (L)", (3, 5, 10), by_len),
        )
    ]


def _gap(one: Any, other: Any) -> float:
    return float(np.abs(np.asarray(one) - np.asarray(other)).max())
