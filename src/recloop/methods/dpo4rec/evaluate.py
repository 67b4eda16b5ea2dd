"""The rows of the main table: a fresh evaluator reads a row's texts and scores the test users.

All rows share lists, users, evaluator settings and evaluator seed, so that they differ by the text alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from recloop.evaluation.oracle import cross_best_row
from recloop.evaluation.per_user_scores import write_variant_scores
from recloop.evaluation.score import completion_scores, score_variant
from recloop.methods.context import Loop, derived_seed
from recloop.methods.dpo4rec.data import Task
from recloop.methods.dpo4rec.generate import FIT, TEST, UserTextVectors
from recloop.records import Lists, UserVectors
from recloop.rerankers.features import ItemFeatures, item_features
from recloop.rerankers.fitted import FittedReranker
from recloop.rerankers.item_vectors import item_texts, tfidf_vectors
from recloop.rerankers.protocol import Reranker
from recloop.rerankers.train import fit_reranker

NO_TEXT, ID_HISTORY, STAR_MEAN, HISTORY_TEXT = "no_text", "id_history", "star_mean", "history_text"
SHUFFLED, BEST_TEMPLATE, UNTUNED, MATCHED = "shuffled", "best_template", "untuned", "untuned_matched"
PUBLISHED_TEXT = "published_text"
SFT_BEST_OF_N, RANDOM_LABELS, TRAINED, BEST_OF_N = "sft_best_of_n", "random_label_dpo", "trained", "best_of_n"
SCORES, ROWS = "test_scores.safetensors", "rows.parquet"
REWARD_MODEL = "reward_model"


@dataclass(frozen=True, slots=True)
class Scored:
    """One row under one reranker: where its scores of the test users are.

    ranker: the evaluator's backbone, or ``reward model``.
    stage: its folder holds SCORES and ROWS; in ROWS the row is called `stored_as`.
    """

    row: str
    ranker: str
    seed: int
    stage: str
    stored_as: str


@dataclass(frozen=True, slots=True)
class Remembered:
    """A reranker that has scored its lists already."""

    scores_BNL: np.ndarray

    def score(self, lists: Lists, user_vectors: UserVectors | None) -> np.ndarray:
        if len(lists) != len(self.scores_BNL) or (user_vectors is None and self.scores_BNL.shape[1] > 1):
            raise ValueError("other lists were scored")
        return self.scores_BNL


def variant_after_rounds(row: str, rounds_done: int, num_rounds: int) -> str:
    """Name of a way of training after some of its rounds: its own after the last, else with the number."""
    return row if rounds_done == num_rounds else f"{row}_r{rounds_done}"


def evaluate_variant(
    loop: Loop,
    task: Task,
    vectors: UserTextVectors | None,
    seed: int,
    row: str,
    *,
    use_id_history: bool = False,
) -> list[Scored]:
    """Fit a fresh evaluator of every backbone on a row's texts and score the test users with it."""
    scored: list[Scored] = []
    for backbone in loop.config.backbones:
        name = f"{row}.{backbone}.s{seed}"
        inputs = {"lists": task.digest, "vectors": None if vectors is None else vectors.digest}
        with loop.stage("fit", name, inputs, f"reranker/{name}") as stage:
            if not stage.is_done:
                evaluator = fit_reranker(
                    loop.config.reranker.model_copy(update={"kind": backbone, "use_id_history": use_id_history}),
                    features_of(loop, task),
                    task.lists.histories,
                    task.lists.train,
                    task.lists.valid,
                    None if vectors is None else vectors.parts[FIT],
                    derived_seed(seed, "evaluator"),
                    loop.progress,
                )
                evaluator.save(stage.folder)
                stage.log(*({"variant": row, "ranker": backbone, "seed": seed, **asdict(e)} for e in evaluator.curve))
                write_scores(loop, task, [evaluator], vectors, seed, row, stage.folder)
        scored.append(Scored(row, backbone, seed, stage.name, row))
        if row == UNTUNED:
            scored.append(Scored(BEST_OF_N, backbone, seed, stage.name, BEST_OF_N))
    return scored


def score_reward_model(
    loop: Loop, task: Task, reward_model: Sequence[str], vectors: UserTextVectors, seed: int, row: str
) -> list[Scored]:
    """Score the test users with the frozen reward model, given by the stages of its fits, under a row's texts."""
    inputs = {"reward_model": reward_model_digest(loop, reward_model), "vectors": vectors.digest}
    with loop.stage("score", f"{row}.{REWARD_MODEL}.s{seed}", inputs) as stage:
        if not stage.is_done:
            write_scores(loop, task, load_reward_models(loop, reward_model), vectors, seed, row, stage.folder)
    return [Scored(row, REWARD_MODEL, seed, stage.name, row)]


def reward_model_key(seed: int, number: int) -> str:
    """Key of the stage of one of the reward model's fits."""
    return f"s{seed}.{number}" if number else f"s{seed}"


def reward_model_seed(seed: int, number: int) -> int:
    """What one of the reward model's fits is seeded with."""
    return derived_seed(seed, f"judge {number}" if number else "judge")


def reward_model_stages(loop: Loop, seed: int) -> list[str]:
    """The stages of the frozen reward model's fits."""
    return [f"reward_model.{reward_model_key(seed, number)}" for number in range(loop.config.reward.num_models)]


def load_reward_models(loop: Loop, reward_model: Sequence[str]) -> list[FittedReranker]:
    """The frozen reward model's fits, from their stages."""
    return [FittedReranker.load(loop.run.folder(stage)) for stage in reward_model]


def reward_model_digest(loop: Loop, reward_model: Sequence[str]) -> str:
    """Of what made the reward model: an input of the stages that read it."""
    return " ".join(loop.run.digest(stage) for stage in reward_model)


def write_scores(
    loop: Loop,
    task: Task,
    rankers: Sequence[Reranker],
    vectors: UserTextVectors | None,
    seed: int,
    row: str,
    folder: Path,
) -> None:
    """Scores of the test lists and the row they make; for the untuned row, best-of-N beside it.

    Several rankers stand side by side as if each had completions of its own: the row is the mean over them.
    """
    config, test = loop.config, task.lists.test
    user_vectors = None if vectors is None else vectors.parts[TEST]
    scores_BNL = np.concatenate([completion_scores(ranker, test, user_vectors) for ranker in rankers], axis=1)
    if user_vectors is not None:
        completions_UND = np.tile(user_vectors.vectors_UND, (1, len(rankers), 1))
        user_vectors = replace(user_vectors, vectors_UND=completions_UND)
    save_file({"scores_BNL": scores_BNL}, folder / SCORES)
    remembered = {seed: Remembered(scores_BNL)}
    rows = [score_variant(row, remembered, test, user_vectors, config.metrics)]
    if row == UNTUNED and user_vectors is not None and len(rankers) == 1:
        rows.append(cross_best_row(BEST_OF_N, remembered, test, user_vectors, config.metrics, config.reward.metric))
    write_variant_scores(folder / ROWS, rows)


def features_of(loop: Loop, task: Task) -> ItemFeatures:
    """What every reranker of the run knows about items."""
    if not loop.config.reranker.use_item_knowledge:
        return item_features(task.dataset)
    return item_features(task.dataset, item_vectors(loop, task))


def item_vectors(loop: Loop, task: Task) -> np.ndarray:
    """TF-IDF vectors of what is known about the items, ``[items, width]``."""
    return tfidf_vectors(item_texts(task.dataset), loop.config.item_vector_width, loop.config.data_seed)
