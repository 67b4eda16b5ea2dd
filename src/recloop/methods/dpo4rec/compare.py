"""The main tables: all seeds of a row together, tested against other rows; files to recompute them from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from safetensors.numpy import load_file

from recloop.evaluation.labels import ROW_WORDS
from recloop.evaluation.latex import latex_table
from recloop.evaluation.per_user_scores import VariantScores, join_seeds, read_variant_scores
from recloop.evaluation.report_sections import VariantKind, VariantLabel, TableSection
from recloop.evaluation.significance import Comparison, compare
from recloop.evaluation.trec import write_qrels, write_runs
from recloop.files import atomic_write_json, atomic_write_text
from recloop.methods.context import Loop, derived_seed
from recloop.methods.dpo4rec.data import Task
from recloop.methods.dpo4rec.evaluate import (
    BEST_OF_N,
    BEST_TEMPLATE,
    HISTORY_TEXT,
    ID_HISTORY,
    REWARD_MODEL,
    MATCHED,
    NO_TEXT,
    PUBLISHED_TEXT,
    RANDOM_LABELS,
    ROWS,
    SCORES,
    SFT_BEST_OF_N,
    SHUFFLED,
    STAR_MEAN,
    TRAINED,
    UNTUNED,
    Scored,
)

QRELS, RESULTS, LATEX = "qrels.trec", "results.json", "tables.tex"
OTHERS_IN_LATEX = 3  # metrics beside the tested one; what fits a page
# The first three are the primary metric: training changes length and entropy, so beating `untuned` says little.
BASELINES_OF_TRAINED = (
    RANDOM_LABELS, UNTUNED, SHUFFLED, MATCHED, SFT_BEST_OF_N, NO_TEXT, ID_HISTORY, STAR_MEAN,
    HISTORY_TEXT, BEST_TEMPLATE, PUBLISHED_TEXT,
)  # fmt: skip
BASELINES_OF_UNTUNED = (
    SHUFFLED, NO_TEXT, ID_HISTORY, STAR_MEAN, HISTORY_TEXT, BEST_TEMPLATE, PUBLISHED_TEXT,
)  # fmt: skip
BASELINES = (NO_TEXT, SHUFFLED, UNTUNED)  # the first there is: core rows have none without text
JUDGED = f"{REWARD_MODEL}_"


@dataclass(frozen=True, slots=True)
class Results:
    """What a run found: a table per backbone, and what its rows are called."""

    tables: tuple[TableSection, ...]
    words: Mapping[str, VariantLabel]


def compare_variants(loop: Loop, task: Task, scored: Sequence[Scored]) -> Results:
    """Join the seeds of every row, test every contrast; write ``runs/*.trec``, qrels.trec and results.json.

    There is one table per backbone. The reward model's rows stand in that of the reward model's own kind, or in the first.
    """
    backbones, reward_model_kind = loop.config.backbones, loop.config.reranker.kind
    home_of_reward_model = reward_model_kind if reward_model_kind in backbones else backbones[0]
    tables: list[TableSection] = []
    for backbone in backbones:
        rankers = (backbone, REWARD_MODEL) if backbone == home_of_reward_model else (backbone,)
        tables.append(make_table(loop, backbone, [one for one in scored if one.ranker in rankers]))
    names = dict.fromkeys(row.name for table in tables for row in table.main.rows)
    results = Results(tuple(tables), {name: words_of(name) for name in names})
    inputs = {f"{name_of(one)}.{one.ranker}.s{one.seed}": loop.run.digest(one.stage) for one in scored}
    with loop.stage("evaluate", "", inputs, "runs") as stage:
        if not stage.is_done:
            write_trec(loop, task, scored, stage.folder)
            write_qrels(loop.run.path / QRELS, task.lists.test)
            atomic_write_json(loop.run.path / RESULTS, results_json(results))
            latex = (latex_table(t.main, results.words, t.others[:OTHERS_IN_LATEX]) for t in tables)
            atomic_write_text(loop.run.path / LATEX, "\n".join(latex))
            stage.log(*metric_rows(results))
    return results


def make_table(loop: Loop, backbone: str, scored: Sequence[Scored]) -> TableSection:
    """Rows in the order of the report's headings; the primary metric is tested, the others are shown."""
    config = loop.config
    by_name: dict[str, list[VariantScores]] = {}
    for one in scored:
        stored = read_variant_scores(loop.run.folder(one.stage) / ROWS)
        row = next(row for row in stored if row.name == one.stored_as)
        by_name.setdefault(name_of(one), []).append(replace(row, name=name_of(one)))
    kinds = list(VariantKind)
    rows = [join_seeds(seeds) for seeds in by_name.values()]
    rows.sort(key=lambda row: (kinds.index(words_of(row.name).kind), place_of(row.name)))
    seed = derived_seed(config.data_seed, "statistics")
    main = compare(rows, contrasts_of(list(by_name)), config.primary_metric, config.statistics, seed)
    others = (metric for metric in config.metrics.names if metric != config.primary_metric)
    return TableSection(
        f"Evaluators: {backbone.upper()}",
        main,
        tuple(compare(rows, (), metric, config.statistics, seed) for metric in others),
        next(name for name in BASELINES if name in by_name),
    )


def contrasts_of(names: Sequence[str]) -> list[tuple[str, str]]:
    """What is tested: the trained row (or the untuned) against every baseline; the reward model's trained row too."""
    best, baselines = (TRAINED, BASELINES_OF_TRAINED) if TRAINED in names else (UNTUNED, BASELINES_OF_UNTUNED)
    wanted = [(best, baseline) for baseline in baselines]
    wanted += [(JUDGED + TRAINED, JUDGED + baseline) for baseline in (RANDOM_LABELS, UNTUNED)]
    return [(name, against) for name, against in wanted if name in names and against in names]


def name_of(scored: Scored) -> str:
    """A row's name in its table."""
    return JUDGED + scored.row if scored.ranker == REWARD_MODEL else scored.row


def place_of(name: str) -> int:
    """Where a row stands under its heading."""
    order = list(ROW_WORDS)
    base = base_of(name)
    return order.index(base)


def base_of(name: str) -> str:
    """The row that a round's or the reward model's row is a variant of."""
    name = name.removeprefix(JUDGED)
    base, _, number = name.rpartition("_r")
    return base if number.isdigit() else name


def words_of(name: str) -> VariantLabel:
    """What a row is called."""
    words = ROW_WORDS[base_of(name)]
    _, _, number = name.rpartition("_r")
    if number.isdigit():
        words = replace(words, title=f"{words.title}, round {number}")
    if name.startswith(JUDGED):
        sentence = f"The frozen reward model reads: {words.sentence[0].lower()}{words.sentence[1:]}"
        words = replace(words, title=f"RewardModel: {words.title}", sentence=sentence, kind=VariantKind.REWARD_MODEL)
    return words


def write_trec(loop: Loop, task: Task, scored: Sequence[Scored], folder: Path) -> None:
    """A run file per row, ranker, seed and completion; best-of-N has none, for it mixes completions."""
    ranked = [one for one in scored if one.row != BEST_OF_N]
    with loop.progress.stage("write rankings", len(ranked), "rows") as step:
        for one in ranked:
            scores_BNL = load_file(loop.run.folder(one.stage) / SCORES)["scores_BNL"]
            write_runs(folder, f"{one.ranker}.{one.row}", one.seed, scores_BNL, task.lists.test)
            step()


def results_json(results: Results) -> dict[str, Any]:
    """All numbers of all tables, for programs."""
    return {
        "tables": [
            {
                "title": table.title,
                "unit": table.unit,
                "is_demonstration": table.main.is_demonstration,
                "metrics": [comparison_json(c) for c in (table.main, *table.others)],
            }
            for table in results.tables
        ],
        "titles": {name: words.title for name, words in results.words.items()},
    }


def comparison_json(comparison: Comparison) -> dict[str, Any]:
    """One metric of one table."""
    return {
        name: [asdict(part) for part in value] if name in ("rows", "contrasts") else value
        for name in ("metric", "mean", "empty", "num_users", "num_lists", "rows", "contrasts")
        for value in [getattr(comparison, name)]
    }


def metric_rows(results: Results) -> list[dict[str, Any]]:
    """One line per table, row and metric for metrics.jsonl."""
    return [
        {"table": table.title, "variant": row.name, "metric": comparison.metric, **asdict(row.estimate)}
        for table in results.tables
        for comparison in (table.main, *table.others)
        for row in comparison.rows
    ]
