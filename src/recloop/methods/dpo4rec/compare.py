"""The main tables: all seeds of a variant together, tested against the others; files to recompute them from."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
from safetensors.numpy import load_file

from recloop.evaluation.labels import REWARD_MODEL_PREFIX
from recloop.evaluation.per_user_scores import join_by_name, read_variant_scores
from recloop.evaluation.score import chance_of_lists
from recloop.evaluation.tables import (
    COMPLETION_COLUMNS,
    TableSettings,
    Units,
    VariantTable,
    make_table,
    write_parquet,
    write_results,
)
from recloop.evaluation.trec import trec_ids, write_qrels, write_runs
from recloop.experiment.step import StepKind
from recloop.methods.dpo4rec.data import Task
from recloop.methods.dpo4rec.evaluate import ROWS, SCORES
from recloop.methods.dpo4rec.generate import ENCODE, read_vectors
from recloop.methods.dpo4rec.names import (
    AS_SHOWN,
    BEST_OF_N,
    BEST_TEMPLATE,
    FIRST_STAGE,
    HISTORY_TEXT,
    ID_HISTORY,
    ITEM_KNN,
    MATCHED,
    NO_TEXT,
    POPULARITY,
    PUBLISHED_TEXT,
    RANDOM_LABELS_OF,
    RATING_MEAN,
    REWARD_MODEL,
    SFT_BEST_OF_N,
    SHUFFLED,
    TRAINED,
    TRAINED_BESIDE_IDS,
    UNTUNED,
    UNTUNED_BESIDE_IDS,
    Scored,
    variant_after_rounds,
)
from recloop.methods.dpo4rec.reward import REWARDS
from recloop.methods.dpo4rec.truth import truth_of_texts
from recloop.methods.study import Study, derived_seed
from recloop.records import Group

QRELS, VECTORS_OF_USERS, PROMPTS_OF_USERS = "qrels.trec", "vectors.parquet", "prompts.parquet"
EVALUATE = StepKind("evaluate", is_cheap=True)
# The verdict tells all of them: training changes length and entropy, so beating `untuned` says little.
BASELINES_OF_TRAINED = (
    *RANDOM_LABELS_OF.values(), UNTUNED, SHUFFLED, MATCHED, SFT_BEST_OF_N, NO_TEXT, ID_HISTORY, RATING_MEAN,
    HISTORY_TEXT, BEST_TEMPLATE, PUBLISHED_TEXT, AS_SHOWN, FIRST_STAGE, POPULARITY, ITEM_KNN,
)  # fmt: skip
BASELINES_OF_UNTUNED = (
    SHUFFLED, NO_TEXT, ID_HISTORY, RATING_MEAN, HISTORY_TEXT, BEST_TEMPLATE, PUBLISHED_TEXT, AS_SHOWN, FIRST_STAGE,
    POPULARITY, ITEM_KNN,
)  # fmt: skip
REFERENCES = (NO_TEXT, SHUFFLED, UNTUNED)  # the first there is: core variants have none without text


def compare_variants(study: Study, task: Task, scored: Sequence[Scored]) -> tuple[VariantTable, ...]:
    """A table per backbone, every contrast tested; writes ``runs/*.trec``, qrels.trec and the tables' files."""
    backbones, reward_model_kind = study.config.backbones, study.config.reranker.kind
    home_of_reward_model = reward_model_kind if reward_model_kind in backbones else backbones[0]
    tables: list[VariantTable] = []
    for backbone in backbones:
        rankers = (backbone, REWARD_MODEL) if backbone == home_of_reward_model else (backbone,)
        tables.append(make_backbone_table(study, task, backbone, [one for one in scored if one.ranker in rankers]))
    inputs = {f"{name_of(one)}.{one.ranker}.s{one.seed}": study.run.digest(one.step) for one in scored}
    with study.step(EVALUATE, "", inputs, "runs") as step:
        if not step.is_done:
            write_trec(study, task, scored, step.folder)
            write_qrels(study.run.path / QRELS, task.lists.test, trec_ids(task.log, task.lists.test))
            step.publish(QRELS)
            truth = truth_of_texts(study, task) if study.config.uses_lm else None
            write_results(study.run.path, step, tables, completions_of(study, task), truth)
            if study.config.uses_lm:
                write_parquet(study.run.path / PROMPTS_OF_USERS, [prompts_of(task)])
                write_parquet(study.run.path / VECTORS_OF_USERS, vectors_of(study, task))
                step.publish(PROMPTS_OF_USERS, VECTORS_OF_USERS)
    return tuple(tables)


def make_backbone_table(study: Study, task: Task, backbone: str, scored: Sequence[Scored]) -> VariantTable:
    """The table of one kind of evaluators; the primary metric is tested, the others are shown."""
    config = study.config
    parts = [
        replace(stored, name=name_of(one))
        for one in scored
        for stored in read_variant_scores(study.run.folder(one.step) / ROWS)
        if stored.name == one.stored_as
    ]
    variants = join_by_name(parts)
    names = [variant.name for variant in variants]
    seed, units = derived_seed(config.data_seed, "statistics"), Units("user", task.log.users["user_id"].to_list())
    settings = TableSettings(config.metrics.names, config.primary_metric, config.statistics, seed, units)
    reference = next(name for name in REFERENCES if name in names)
    title = f"Evaluators: {backbone.upper()}"
    table = make_table(title, variants, contrasts_of(names), settings, reference, backbone)
    chance = chance_of_lists(task.lists.test, config.primary_metric, config.metrics, config.data_seed)
    return replace(table, chance=chance)


def contrasts_of(names: Sequence[str]) -> list[tuple[str, str]]:
    """What is tested: the trained variant (or the untuned, or ID history) against every baseline."""
    best, baselines = (TRAINED, BASELINES_OF_TRAINED) if TRAINED in names else (UNTUNED, BASELINES_OF_UNTUNED)
    if UNTUNED not in names:  # no language model
        best, baselines = ID_HISTORY, BASELINES_OF_UNTUNED
    wanted = [(best, baseline) for baseline in baselines]
    beside_ids = TRAINED_BESIDE_IDS if best == TRAINED else UNTUNED_BESIDE_IDS
    wanted += [(beside_ids, ID_HISTORY), (beside_ids, UNTUNED_BESIDE_IDS)]
    wanted += [
        (REWARD_MODEL_PREFIX + TRAINED, REWARD_MODEL_PREFIX + name) for name in (*RANDOM_LABELS_OF.values(), UNTUNED)
    ]
    return [(name, against) for name, against in wanted if name in names and against in names and name != against]


def name_of(scored: Scored) -> str:
    """A variant's name in its table."""
    return REWARD_MODEL_PREFIX + scored.variant if scored.ranker == REWARD_MODEL else scored.variant


def write_trec(study: Study, task: Task, scored: Sequence[Scored], folder: Path) -> None:
    """A run file per variant, ranker, seed and completion; best-of-N has none, for it mixes completions."""
    ranked, ids = [one for one in scored if one.variant != BEST_OF_N], trec_ids(task.log, task.lists.test)
    with study.progress.stage("write rankings", len(ranked), "variants") as advance:
        for one in ranked:
            scores_BNL = load_file(study.run.folder(one.step) / SCORES)["scores_BNL"]
            write_runs(folder, f"{one.ranker}.{one.variant}", one.seed, scores_BNL, task.lists.test, ids)
            advance()


def prompts_of(task: Task) -> pl.DataFrame:
    """What the language model was asked about every user of a list: ``user_id, group, system, text``."""
    group_of = {int(user): group.value for group in Group for user in np.unique(task.lists.of(group).user_B)}
    ids = task.log.users["user_id"].to_list()
    rows = [(ids[user], group_of[user], prompt.system, prompt.text) for user, prompt in task.prompts.items()]
    return pl.DataFrame(rows, schema=dict.fromkeys(("user_id", "group", "system", "text"), pl.String), orient="row")


def vectors_of(study: Study, task: Task) -> list[pl.DataFrame]:
    """The vector of every text of the untuned and the trained model: ``user_id, variant, seed, number, vector``."""
    frames: list[pl.DataFrame] = []
    for variant, seed in itertools.product((UNTUNED, TRAINED), study.config.seeds):
        step = ENCODE.named(f"{variant}.s{seed}")
        for part in read_vectors(study.run.folder(step)).values() if step in study.run.manifest["steps"] else ():
            num_users, num, width = part.vectors_UND.shape
            vectors = pl.Series(part.vectors_UND.reshape(-1, width), dtype=pl.Array(pl.Float32, width))
            columns = {
                "user_id": task.log.users["user_id"].gather(part.user_U.repeat(num)),
                "variant": pl.repeat(variant, num_users * num, eager=True),
                "seed": pl.repeat(seed, num_users * num, dtype=pl.Int64, eager=True),
                "number": np.tile(np.arange(num), num_users),
                "vector": vectors,
            }
            frames.append(pl.DataFrame(columns))
    return frames


def completions_of(study: Study, task: Task) -> list[pl.DataFrame]:
    """What every language model of the run wrote, with the rewards of the rounds it was rewarded in."""
    user_ids = task.log.users.select("user", "user_id")
    rounds = study.config.rounds
    round_of = {UNTUNED if r == 0 else variant_after_rounds(TRAINED, r, rounds): r for r in range(rounds)}
    frames: list[pl.DataFrame] = []
    for name in study.run.manifest["steps"]:
        verb, _, key = name.partition(".")
        if verb != "sample":
            continue
        variant, _, seed = key.rpartition(".s")
        rewards = pl.DataFrame(schema={"user_id": pl.String, "completion": pl.Int64, "reward": pl.Float32})
        if variant in round_of and study.config.train != "grpo":  # which rewards what it samples itself
            rewards = pl.read_parquet(study.run.folder(f"reward.r{round_of[variant]}.s{seed}") / REWARDS)
        for file in sorted(study.run.folder(name).glob("*.parquet")):
            rewarded = rewards.select("user_id", "completion", "reward")
            frame = (
                pl.read_parquet(file)
                .join(user_ids, on="user", maintain_order="left")
                .join(rewarded, on=["user_id", "completion"], how="left", maintain_order="left")
                .rename({"completion": "number"})
                .with_columns(variant=pl.lit(variant), seed=pl.lit(int(seed)))
            )
            frames.append(frame.select(*COMPLETION_COLUMNS))
    return frames
