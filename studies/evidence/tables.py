"""Tables on test and valid users, and costs, from a finished run folder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from recloop.errors import SettingError
from recloop.evaluation.per_user_scores import VariantScores, read_variant_scores
from recloop.evaluation.report_sections import step_costs
from recloop.evaluation.score import evaluate
from recloop.evaluation.significance import compare
from recloop.methods.dpo4rec.baselines import best_valid_ndcg
from recloop.methods.dpo4rec.compare import BASELINES_OF_TRAINED, BASELINES_OF_UNTUNED
from recloop.methods.dpo4rec.data import Task
from recloop.methods.dpo4rec.evaluate import ROWS
from recloop.methods.dpo4rec.generate import FIT, UserTextVectors, encode_user_texts, read_user_texts
from recloop.methods.dpo4rec.names import (
    BEST_OF_N,
    BEST_TEMPLATE,
    ID_HISTORY,
    RANDOM_LABELS,
    REWARD_MODEL,
    TRAINED,
    TRAINED_BESIDE_IDS,
    UNTUNED,
    UNTUNED_BESIDE_IDS,
)
from recloop.methods.dpo4rec.truth import said_of_test_users
from recloop.methods.study import Study as Loop
from recloop.methods.study import derived_seed
from recloop.records import Group
from recloop.rerankers.fitted import FittedReranker
from studies.evidence.numbers import (
    ContrastNumbers,
    CostNumbers,
    SliceNumbers,
    TableNumbers,
    VariantNumbers,
)
from studies.evidence.statistics import moments_of

TRANSFERRED, LEAKY, CHECKED = "transferred", "trained_by_leaky_reward_model", "trained_checked"
TRIES = 3  # draws of a checked text at most
STORED_METRICS = ("ndcg@5", "map@5", "ndcg@10", "loglik")
TESTED_METRICS = ("ndcg@5", "map@5")
TEMPLATE = "template_"
BESIDE_IDS = ((TRAINED_BESIDE_IDS, ID_HISTORY), (TRAINED_BESIDE_IDS, UNTUNED_BESIDE_IDS))
SLICED = ((TRAINED, UNTUNED), (TRAINED, ID_HISTORY), BESIDE_IDS[0])
# The last number of each band, the same for all folds and logs, so that folds can be pooled.
HISTORY_BANDS, POPULARITY_BANDS = (3, 5, 10, 30), (2, 5, 20, 100)
SAID = "what the user's trained texts say"  # the bands are places in `SAYS`
MIN_SLICE_USERS = 2


def test_tables(loop: Loop, task: Task, seed: int) -> tuple[TableNumbers, ...]:
    """A table per backbone, and one under the frozen reward model."""
    scored = {ranker: variants_under(loop, ranker, seed) for ranker in (*loop.config.backbones, REWARD_MODEL)}
    return tuple(
        table_of(loop, ranker, Group.TEST, variants).model_copy(update={"slices": slices_of(loop, task, variants)})
        for ranker, variants in scored.items()
        if variants
    )


def slices_of(loop: Loop, task: Task, variants: Sequence[VariantScores]) -> tuple[SliceNumbers, ...]:
    """Differences by a user's history, by how many histories hold what the user went on to like, by what texts say."""
    by_name, user_U = {variant.name: variant for variant in variants}, variants[0].user_U
    histories, test = task.lists.histories, task.lists.test
    taken_I = np.bincount(histories.items, minlength=task.log.num_items)
    row_n, place_n = np.nonzero(test.labels_BL > 0)
    user_n = test.user_B[row_n]
    sums_U = np.bincount(user_n, taken_I[test.items_BL[row_n, place_n]], task.log.num_users)
    popularity_U = np.rint(sums_U / np.maximum(np.bincount(user_n, minlength=task.log.num_users), 1))[user_U]
    features = (
        ("items in the history", np.diff(histories.offsets_U1)[user_U], HISTORY_BANDS),
        ("histories that hold what the user went on to like", popularity_U, POPULARITY_BANDS),
    )
    if TRAINED in by_name and loop.config.rounds:
        features += ((SAID, said_of_test_users(loop, task, TRAINED)[user_U], (0, 1)),)
    found: list[SliceNumbers] = []
    for name, against in (pair for pair in SLICED if set(pair) <= by_name.keys()):
        for by, number_U, edges in features:
            for low, high in zip((0, *(edge + 1 for edge in edges)), (*edges, None), strict=True):
                is_in_U = (number_U >= low) & (number_U <= (np.inf if high is None else high))
                if is_in_U.sum() >= MIN_SLICE_USERS:
                    values = {
                        m: moments_of((by_name[name].of(m)[0] - by_name[against].of(m)[0])[is_in_U])
                        for m in TESTED_METRICS
                    }
                    found.append(SliceNumbers(name=name, against=against, by=by, low=low, high=high, values=values))
    return tuple(found)


def variants_under(loop: Loop, ranker: str, seed: int) -> list[VariantScores]:
    """Every variant scored under this kind of evaluation reranker; of the templates only the best on valid users."""
    kind, end = ("score." if ranker == REWARD_MODEL else "fit."), f".{ranker}.s{seed}"
    steps = [name for name in loop.run.manifest["steps"] if name.startswith(kind) and name.endswith(end)]
    templates = [name for name in steps if name.startswith(kind + TEMPLATE)]
    best = max(templates, key=lambda name: best_valid_ndcg(loop, name), default=None)
    variants: list[VariantScores] = []
    for step in steps:
        found = read_variant_scores(loop.run.folder(step) / ROWS)
        if step == best:
            variants += [replace(variant, name=BEST_TEMPLATE) for variant in found]
        elif step not in templates:
            variants += found
    return variants


def table_of(loop: Loop, ranker: str, group: Group, variants: Sequence[VariantScores]) -> TableNumbers:
    """Moments of every variant and of every contrast that the page may show, with the run's own tests."""
    config = loop.config
    if config.metrics.mean != "user":
        raise SettingError(f"folds are pooled user by user, got metrics.mean={config.metrics.mean}; use user")
    metrics = [metric for metric in STORED_METRICS if metric in config.metrics.names]
    by_name = {variant.name: variant for variant in variants}
    pairs = stored_contrasts(list(by_name))
    seed = derived_seed(config.data_seed, "statistics")
    tests = {
        metric: compare(variants, pairs, metric, config.statistics, seed)
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
        num_users=len(variants[0].user_U),
        num_lists=int(variants[0].num_lists_U.sum()),
        variants=tuple(
            VariantNumbers(name=one.name, values={m: moments_of(one.of(m)[0]) for m in metrics}) for one in variants
        ),
        contrasts=tuple(contrast(place, *pair) for place, pair in enumerate(pairs)),
    )


def stored_contrasts(names: Sequence[str]) -> list[tuple[str, str]]:
    """Trained variants against every baseline, the untuned model against its own, and those of the upper bound."""
    forms = (TRAINED, TRANSFERRED, LEAKY, CHECKED)
    trained = [name for name in names if name in forms or name.startswith(f"{TRAINED}_r")]
    wanted = [(name, baseline) for name in trained for baseline in BASELINES_OF_TRAINED]
    wanted += [(name, TRAINED) for name in trained if name != TRAINED]
    wanted += [(UNTUNED, baseline) for baseline in BASELINES_OF_UNTUNED]
    wanted += [(BEST_OF_N, UNTUNED), (TRAINED, BEST_OF_N), *BESIDE_IDS]
    return [(name, against) for name, against in wanted if name in names and against in names]


def valid_tables(loop: Loop, task: Task, seed: int) -> tuple[TableNumbers, ...]:
    """The untuned, random-label and trained variants on valid users, by which settings may be chosen."""
    tables, how = list[TableNumbers](), loop.config.metrics
    for backbone in loop.config.backbones:
        variants: list[VariantScores] = []
        for name in (UNTUNED, RANDOM_LABELS, TRAINED):
            step = f"fit.{name}.{backbone}.s{seed}"
            if loop.run.is_done(step):
                ranker = FittedReranker.load(loop.run.folder(step))
                vectors = vectors_of(loop, name, seed).parts[FIT]
                conventions = {"metrics": how.names, "empty": how.empty, "mean": how.mean}
                variants.append(evaluate({seed: ranker}, task.lists.valid, vectors, name=name, **conventions))
        tables.append(table_of(loop, backbone, Group.VALID, variants))
    return tuple(tables)


def vectors_of(loop: Loop, name: str, seed: int) -> UserTextVectors:
    """The encoded completions of a variant's language model."""
    return encode_user_texts(loop, read_user_texts(loop, name, f"sample.{name}.s{seed}"), seed)


def costs(loop: Loop) -> tuple[CostNumbers, ...]:
    """Time, tokens and memory by kind of step."""
    stages = loop.run.manifest["steps"]
    return tuple(
        CostNumbers(
            kind=cost.verb,
            num_steps=sum(name.partition(".")[0] == cost.verb for name in stages),
            wall_s=round(cost.wall_s, 1),
            tokens=cost.num_tokens,
            peak_memory_mib=round(cost.peak_memory_mib or 0.0, 1),
        )
        for cost in step_costs(stages)
    )


def groups_of(task: Task) -> dict[str, tuple[int, int]]:
    """By group: the number of users with lists, and of lists."""
    return {g.value: (len(np.unique(task.lists.of(g).user_B)), len(task.lists.of(g))) for g in Group}


def trained_folder(run: Path, seed: int) -> Path:
    """The folder in which a run leaves its trained language model."""
    return run / "lm" / f"{TRAINED}.s{seed}"
