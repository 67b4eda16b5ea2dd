"""From a finished run folder to its numbers: tables on test and valid users, rewards, costs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from recloop.errors import SettingError
from recloop.evaluation.compare import compare
from recloop.evaluation.row_scores import RowScores, read_row_scores
from recloop.evaluation.scores import score_row
from recloop.feedback.reliability import split_half_reliability
from recloop.feedback.rewards import reward_lists
from recloop.methods.comparing import RIVALS_OF_TUNED, RIVALS_OF_UNTUNED
from recloop.methods.judging import COUNTS, PAIRS, REWARDS, read_pairs, read_rewards
from recloop.methods.knowledge import FEEDBACK, FIT, KnowledgeVectors, encode_knowledge, read_knowledge
from recloop.methods.loop import Loop, derived_seed
from recloop.methods.quality.moments import moments_of
from recloop.methods.quality.numbers import (
    ContrastNumbers,
    CostNumbers,
    ReliabilityNumbers,
    RewardNumbers,
    RowNumbers,
    TableNumbers,
)
from recloop.methods.references import best_valid_ndcg
from recloop.methods.reporting import stage_costs
from recloop.methods.rows import (
    BEST_OF_N,
    BEST_TEMPLATE,
    JUDGE,
    RANDOM_LABELS,
    ROWS,
    TUNED,
    UNTUNED,
    Remembered,
    judge_key,
    load_judges,
)
from recloop.methods.task import Task
from recloop.ranking.fitted import FittedReranker
from recloop.records import Group, Lists

TRANSFERRED, LEAKY = "transferred", "tuned_by_leaky_judge"
KEPT_METRICS = ("ndcg@5", "map@5", "ndcg@10", "loglik")
TESTED_METRICS = ("ndcg@5", "map@5")
REWARD_KINDS = ("ndcg@5", "ndcg@10", "map@5", "loglik")
LIST_COUNTS = (None, 2, 4, 8, 16, 32)
MIN_USERS = 10  # below it a split-half correlation says nothing
TEMPLATE = "template_"


def test_tables(loop: Loop, seed: int) -> tuple[TableNumbers, ...]:
    """A table per backbone, and one of the frozen judge."""
    return tuple(
        table_of(loop, ranker, Group.TEST, rows_under(loop, ranker, seed))
        for ranker in (*loop.config.backbones, JUDGE)
        if rows_under(loop, ranker, seed)
    )


def rows_under(loop: Loop, ranker: str, seed: int) -> list[RowScores]:
    """Every row that was scored with this kind of evaluator; of the templates the one best on valid users."""
    verb, end = ("score." if ranker == JUDGE else "fit."), f".{ranker}.s{seed}"
    stages = [name for name in loop.run.manifest["stages"] if name.startswith(verb) and name.endswith(end)]
    templates = [name for name in stages if name.startswith(verb + TEMPLATE)]
    best = max(templates, key=lambda name: best_valid_ndcg(loop, name), default=None)
    rows: list[RowScores] = []
    for stage in stages:
        found = read_row_scores(loop.run.folder(stage) / ROWS)
        if stage == best:
            rows += [replace(row, name=BEST_TEMPLATE) for row in found]
        elif stage not in templates:
            rows += found
    return rows


def table_of(loop: Loop, ranker: str, group: Group, rows: Sequence[RowScores]) -> TableNumbers:
    """Moments of every row and of every contrast that the page may want, with the unit's own tests."""
    config = loop.config
    if config.measure.mean != "user":
        raise SettingError(
            f"panels are put together user by user, got measure.mean={config.measure.mean}; use user"
        )
    metrics = [metric for metric in KEPT_METRICS if metric in config.measure.metrics]
    by_name = {row.name: row for row in rows}
    pairs = contrasts_kept(list(by_name))
    seed = derived_seed(config.data_seed, "statistics")
    tests = {
        metric: compare(rows, pairs, metric, config.statistics, seed)
        for metric in metrics
        if metric in TESTED_METRICS
    }

    def contrast(place: int, name: str, against: str) -> ContrastNumbers:
        tested = {metric: comparison.contrasts[place] for metric, comparison in tests.items()}
        return ContrastNumbers(
            name=name,
            against=against,
            values={m: moments_of(by_name[name].of(m)[0] - by_name[against].of(m)[0]) for m in metrics},
            p={metric: found.p for metric, found in tested.items()},
            low={metric: found.difference.low for metric, found in tested.items()},
            high={metric: found.difference.high for metric, found in tested.items()},
        )

    return TableNumbers(
        ranker=ranker,
        group=group.value,
        num_users=len(rows[0].user_U),
        num_lists=int(rows[0].num_lists_U.sum()),
        rows=tuple(
            RowNumbers(name=row.name, values={m: moments_of(row.of(m)[0]) for m in metrics}) for row in rows
        ),
        contrasts=tuple(contrast(place, *pair) for place, pair in enumerate(pairs)),
    )


def contrasts_kept(names: Sequence[str]) -> list[tuple[str, str]]:
    """Everything tuned against every rival, the untuned against its own, and what the bound needs."""
    tuned = [name for name in names if name in (TUNED, TRANSFERRED, LEAKY) or name.startswith(f"{TUNED}_r")]
    wanted = [(name, rival) for name in tuned for rival in RIVALS_OF_TUNED]
    wanted += [(name, TUNED) for name in tuned if name != TUNED]
    wanted += [(UNTUNED, rival) for rival in RIVALS_OF_UNTUNED]
    wanted += [(BEST_OF_N, UNTUNED), (TUNED, BEST_OF_N)]
    return [(name, against) for name, against in wanted if name in names and against in names]


def valid_tables(loop: Loop, task: Task, seed: int) -> tuple[TableNumbers, ...]:
    """Untuned, random-label and tuned rows on valid users: what choices may be made by."""
    tables: list[TableNumbers] = []
    for backbone in loop.config.backbones:
        rows: list[RowScores] = []
        for row in (UNTUNED, RANDOM_LABELS, TUNED):
            stage = f"fit.{row}.{backbone}.s{seed}"
            if loop.run.is_done(stage):
                ranker = FittedReranker.load(loop.run.folder(stage))
                vectors = vectors_of(loop, row, seed).parts[FIT]
                rows.append(score_row(row, {seed: ranker}, task.lists.valid, vectors, loop.config.measure))
        tables.append(table_of(loop, backbone, Group.VALID, rows))
    return tuple(tables)


def vectors_of(loop: Loop, row: str, seed: int) -> KnowledgeVectors:
    """The encoded drafts of a language model's row."""
    return encode_knowledge(loop, read_knowledge(loop, row, f"sample.{row}.s{seed}"), seed)


def reliabilities(loop: Loop, task: Task, seed: int) -> tuple[ReliabilityNumbers, ...]:
    """Of every kind of reward, for users with many lists and with few, under the frozen judge."""
    judge = [f"judge.{judge_key(seed, number)}" for number in range(loop.config.reward.judges)]
    if not all(map(loop.run.is_done, judge)) or not loop.config.rounds:
        return ()
    vectors = vectors_of(loop, UNTUNED, seed).parts[FEEDBACK]
    lists = task.lists.feedback
    scores_KBNL = [one.score(lists, vectors) for one in load_judges(loop, judge)]
    found: list[ReliabilityNumbers] = []
    for metric in REWARD_KINDS:
        values_BN = reward_lists([Remembered(s_BNL) for s_BNL in scores_KBNL], lists, vectors, metric)
        has_value_B = np.asarray(np.isfinite(values_BN).all(axis=1))
        for num_lists in LIST_COUNTS:
            rows = first_lists(lists, has_value_B, num_lists)
            if len(np.unique(lists.user_B[rows])) < MIN_USERS:
                continue
            one = split_half_reliability(
                [Remembered(s_BNL[rows]) for s_BNL in scores_KBNL],
                lists.take(rows),
                vectors,
                metric,
                derived_seed(seed, "reliability"),
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


def costs(loop: Loop) -> tuple[CostNumbers, ...]:
    """Time, tokens and memory by kind of stage."""
    stages = loop.run.manifest["stages"]
    return tuple(
        CostNumbers(
            verb=cost.stage,
            num_stages=sum(name.partition(".")[0] == cost.stage for name in stages),
            wall_s=round(cost.wall_s, 1),
            tokens=cost.num_tokens,
            peak_memory_mib=round(cost.peak_memory_mib or 0.0, 1),
        )
        for cost in stage_costs(stages)
    )


def groups_of(task: Task) -> dict[str, tuple[int, int]]:
    """Users with lists, and lists, by group."""
    return {g.value: (len(np.unique(task.lists.of(g).user_B)), len(task.lists.of(g))) for g in Group}


def tuned_folder(run: Path, seed: int) -> Path:
    """Where a run leaves its tuned language model."""
    return run / "lm" / f"{TUNED}.s{seed}"
