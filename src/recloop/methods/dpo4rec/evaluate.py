"""One variant's row of the table: a fresh evaluator reads its texts and scores the test users."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from recloop.evaluation.oracle import cross_validated_best
from recloop.evaluation.per_user_scores import write_variant_scores
from recloop.evaluation.score import completion_scores, score_variant
from recloop.experiment.step import StepKind
from recloop.methods.dpo4rec.data import Task
from recloop.methods.dpo4rec.generate import FIT, TEST, UserTextVectors
from recloop.methods.dpo4rec.names import BEST_OF_N, REWARD_MODEL, UNTUNED, Scored
from recloop.methods.dpo4rec.reward_model import fit_on, load_reward_models, reranker_input, reward_model_digest
from recloop.methods.study import Study, derived_seed
from recloop.records import Lists, UserVectors
from recloop.rerankers.protocol import Reranker

SCORES, ROWS = "test_scores.safetensors", "rows.parquet"
EVALUATING = ("metrics", "reward.metric")
FIT_EVALUATOR = StepKind("fit", reads=("reranker", "item_vector_width", *EVALUATING), is_command=False)
SCORE = StepKind("score", reads=("reranker", *EVALUATING), is_command=False)


@dataclass(frozen=True, slots=True)
class Remembered:
    """A reranker that has scored its lists already."""

    scores_BNL: np.ndarray

    def score(self, lists: Lists, user_vectors: UserVectors | None) -> np.ndarray:
        if len(lists) != len(self.scores_BNL) or (user_vectors is None and self.scores_BNL.shape[1] > 1):
            raise ValueError("other lists were scored")
        return self.scores_BNL


def evaluate_variant(
    study: Study,
    task: Task,
    vectors: UserTextVectors | None,
    seed: int,
    variant: str,
    *,
    uses_id_history: bool = False,
) -> list[Scored]:
    """Fit a fresh evaluator of every backbone on a variant's texts and score the test users with it."""
    scored: list[Scored] = []
    for backbone in study.config.backbones:
        name = f"{variant}.{backbone}.s{seed}"
        inputs = {"lists": task.digest, "vectors": None if vectors is None else vectors.digest}
        with study.step(FIT_EVALUATOR, name, inputs | reranker_input(study), f"reranker/{name}") as step:
            if not step.is_done:
                kind = {"kind": backbone} if study.own.reranker is None else {}
                config = study.config.reranker.model_copy(update={**kind, "use_id_history": uses_id_history})
                fit_vectors = None if vectors is None else vectors.parts[FIT]
                evaluator = fit_on(study, task, config, fit_vectors, derived_seed(seed, "evaluator"))
                evaluator.save(step.folder)
                told = {"variant": variant, "ranker": backbone, "seed": seed}
                step.log(*({**told, **asdict(epoch)} for epoch in evaluator.curve))
                write_scores(study, task.lists.test, [evaluator], vectors, seed, variant, step.folder)
        scored.append(Scored(variant, backbone, seed, step.name, variant))
        if variant == UNTUNED:
            scored.append(Scored(BEST_OF_N, backbone, seed, step.name, BEST_OF_N))
    return scored


def score_reward_model(
    study: Study, task: Task, reward_model: Sequence[str], vectors: UserTextVectors, seed: int, variant: str
) -> list[Scored]:
    """Score the test users with the frozen reward model, given by the steps of its fits, under a variant's texts."""
    inputs = {"reward_model": reward_model_digest(study, reward_model), "vectors": vectors.digest}
    with study.step(SCORE, f"{variant}.{REWARD_MODEL}.s{seed}", inputs) as step:
        if not step.is_done:
            rankers = load_reward_models(study, reward_model)
            write_scores(study, task.lists.test, rankers, vectors, seed, variant, step.folder)
    return [Scored(variant, REWARD_MODEL, seed, step.name, variant)]


def write_scores(
    study: Study,
    test: Lists,
    rankers: Sequence[Reranker],
    vectors: UserTextVectors | None,
    seed: int,
    variant: str,
    folder: Path,
) -> None:
    """Scores of the test lists and the row they make; for the untuned variant, best-of-N beside it.

    Several rankers stand side by side as if each had completions of its own: the row is the mean over them.
    """
    config = study.config
    user_vectors = None if vectors is None else vectors.parts[TEST]
    scores_BNL = np.concatenate([completion_scores(ranker, test, user_vectors) for ranker in rankers], axis=1)
    if user_vectors is not None:
        completions_UND = np.tile(user_vectors.vectors_UND, (1, len(rankers), 1))
        user_vectors = replace(user_vectors, vectors_UND=completions_UND)
    save_file({"scores_BNL": scores_BNL}, folder / SCORES)
    remembered = {seed: Remembered(scores_BNL)}
    rows = [score_variant(variant, remembered, test, user_vectors, config.metrics)]
    if variant == UNTUNED and user_vectors is not None and len(rankers) == 1:
        rows.append(
            cross_validated_best(BEST_OF_N, remembered, test, user_vectors, config.metrics, config.reward.metric)
        )
    write_variant_scores(folder / ROWS, rows)
