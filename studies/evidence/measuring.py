"""From a finished run folder to its numbers: tables on test and valid users, costs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from recloop.errors import SettingError
from recloop.evaluation.per_user_scores import VariantScores, read_variant_scores
from recloop.evaluation.score import score_variant
from recloop.evaluation.significance import compare
from recloop.methods.context import Loop, derived_seed
from recloop.methods.dpo4rec.baselines import best_valid_ndcg
from recloop.methods.dpo4rec.compare import BASELINES_OF_TRAINED, BASELINES_OF_UNTUNED
from recloop.methods.dpo4rec.data import Task
from recloop.methods.dpo4rec.evaluate import (
    BEST_OF_N,
    BEST_TEMPLATE,
    REWARD_MODEL,
    RANDOM_LABELS,
    ROWS,
    TRAINED,
    UNTUNED,
)
from recloop.methods.dpo4rec.generate import FIT, UserTextVectors, encode_user_texts, read_user_texts
from recloop.methods.dpo4rec.report import stage_costs
from recloop.records import Group
from recloop.rerankers.fitted import FittedReranker
from studies.evidence.moments import moments_of
from studies.evidence.numbers import (
    ContrastNumbers,
    CostNumbers,
    RowNumbers,
    TableNumbers,
)

TRANSFERRED, LEAKY = "transferred", "trained_by_leaky_reward_model"
KEPT_METRICS = ("ndcg@5", "map@5", "ndcg@10", "loglik")
TESTED_METRICS = ("ndcg@5", "map@5")
TEMPLATE = "template_"


def test_tables(loop: Loop, seed: int) -> tuple[TableNumbers, ...]:
    """A table per backbone, and one of the frozen reward model."""
    return tuple(
        table_of(loop, ranker, Group.TEST, rows_under(loop, ranker, seed))
        for ranker in (*loop.config.backbones, REWARD_MODEL)
        if rows_under(loop, ranker, seed)
    )


def rows_under(loop: Loop, ranker: str, seed: int) -> list[VariantScores]:
    """Every row that was scored with this kind of evaluator; of the templates the one best on valid users."""
    verb, end = ("score." if ranker == REWARD_MODEL else "fit."), f".{ranker}.s{seed}"
    stages = [name for name in loop.run.manifest["stages"] if name.startswith(verb) and name.endswith(end)]
    templates = [name for name in stages if name.startswith(verb + TEMPLATE)]
    best = max(templates, key=lambda name: best_valid_ndcg(loop, name), default=None)
    rows: list[VariantScores] = []
    for stage in stages:
        found = read_variant_scores(loop.run.folder(stage) / ROWS)
        if stage == best:
            rows += [replace(row, name=BEST_TEMPLATE) for row in found]
        elif stage not in templates:
            rows += found
    return rows


def table_of(loop: Loop, ranker: str, group: Group, rows: Sequence[VariantScores]) -> TableNumbers:
    """Moments of every row and of every contrast that the page may want, with the unit's own tests."""
    config = loop.config
    if config.metrics.mean != "user":
        raise SettingError(f"panels are put together user by user, got measure.mean={config.metrics.mean}; use user")
    metrics = [metric for metric in KEPT_METRICS if metric in config.metrics.names]
    by_name = {row.name: row for row in rows}
    pairs = contrasts_kept(list(by_name))
    seed = derived_seed(config.data_seed, "statistics")
    tests = {
        metric: compare(rows, pairs, metric, config.statistics, seed) for metric in metrics if metric in TESTED_METRICS
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
        rows=tuple(RowNumbers(name=row.name, values={m: moments_of(row.of(m)[0]) for m in metrics}) for row in rows),
        contrasts=tuple(contrast(place, *pair) for place, pair in enumerate(pairs)),
    )


def contrasts_kept(names: Sequence[str]) -> list[tuple[str, str]]:
    """Everything trained against every baseline, the untuned against its own, and what the bound needs."""
    trained = [name for name in names if name in (TRAINED, TRANSFERRED, LEAKY) or name.startswith(f"{TRAINED}_r")]
    wanted = [(name, baseline) for name in trained for baseline in BASELINES_OF_TRAINED]
    wanted += [(name, TRAINED) for name in trained if name != TRAINED]
    wanted += [(UNTUNED, baseline) for baseline in BASELINES_OF_UNTUNED]
    wanted += [(BEST_OF_N, UNTUNED), (TRAINED, BEST_OF_N)]
    return [(name, against) for name, against in wanted if name in names and against in names]


def valid_tables(loop: Loop, task: Task, seed: int) -> tuple[TableNumbers, ...]:
    """Untuned, random-label and trained rows on valid users: what choices may be made by."""
    tables: list[TableNumbers] = []
    for backbone in loop.config.backbones:
        rows: list[VariantScores] = []
        for row in (UNTUNED, RANDOM_LABELS, TRAINED):
            stage = f"fit.{row}.{backbone}.s{seed}"
            if loop.run.is_done(stage):
                ranker = FittedReranker.load(loop.run.folder(stage))
                vectors = vectors_of(loop, row, seed).parts[FIT]
                rows.append(score_variant(row, {seed: ranker}, task.lists.valid, vectors, loop.config.metrics))
        tables.append(table_of(loop, backbone, Group.VALID, rows))
    return tuple(tables)


def vectors_of(loop: Loop, row: str, seed: int) -> UserTextVectors:
    """The encoded completions of a language model's row."""
    return encode_user_texts(loop, read_user_texts(loop, row, f"sample.{row}.s{seed}"), seed)


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


def trained_folder(run: Path, seed: int) -> Path:
    """Where a run leaves its trained language model."""
    return run / "lm" / f"{TRAINED}.s{seed}"
