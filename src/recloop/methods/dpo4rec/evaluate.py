"""The rerankers of a run: the frozen reward model of Algorithm 1, and a fresh evaluator for each variant's texts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from safetensors.numpy import save_file

from recloop.evaluation.per_user_scores import write_variant_scores
from recloop.evaluation.score import best_of_n, completion_values, variant_from_completions
from recloop.experiment.step import StepKind
from recloop.methods.dpo4rec.data import Task
from recloop.methods.dpo4rec.generate import FIT, TEST, UserTextVectors
from recloop.methods.dpo4rec.names import BEST_OF_N, REWARD_MODEL, UNTUNED, Scored
from recloop.methods.study import Study, derived_seed
from recloop.records import UserVectors
from recloop.rerankers.config import RerankerConfig
from recloop.rerankers.protocol import Reranker

if TYPE_CHECKING:
    from recloop.rerankers.fitted import FittedReranker

SCORES, ROWS = "test_scores.safetensors", "rows.parquet"
EVALUATING = ("metrics", "reward.metric")
FIT_REWARD_MODEL = StepKind("reward_model", reads=("reranker", "item_vector_width"), is_command=False)
FIT_EVALUATOR = StepKind("fit", reads=("reranker", "item_vector_width", *EVALUATING), is_command=False)
SCORE = StepKind("score", reads=("reranker", *EVALUATING), is_command=False)


def fit_reward_model(study: Study, task: Task, vectors: UserTextVectors, seed: int) -> tuple[str, ...]:
    """Fit it on train users; the steps of its ``reward.num_models`` fits, whose mean is the reward."""
    names: list[str] = []
    for number in range(study.config.reward.num_models):
        key = reward_model_key(seed, number)
        inputs = {"vectors": vectors.digest, "lists": task.digest} | reranker_input(study)
        with study.step(FIT_REWARD_MODEL, key, inputs, f"reranker/reward_model.{key}") as step:
            if not step.is_done:
                fit_seed = derived_seed(seed, f"judge {number}" if number else "judge")
                fitted = fit_on(study, task, study.config.reranker, vectors.parts[FIT], fit_seed)
                fitted.save(step.folder)
                told = {"variant": "reward_model", "ranker": "reward_model", "seed": seed, "reward_model": number}
                step.log(*({**told, **asdict(epoch)} for epoch in fitted.curve))
        names.append(step.name)
    return tuple(names)


def fit_on(study: Study, task: Task, config: RerankerConfig, vectors: UserVectors | None, seed: int) -> FittedReranker:
    """A reranker fitted on the train users of a task; valid users end the fit."""
    from recloop.rerankers.train import FitData, fit_network

    lists = task.lists
    data = FitData(task.features(), lists.histories, lists.train, lists.valid, vectors)
    return fit_network(config, data, seed, study.progress, study.own.reranker)


def reward_model_key(seed: int, number: int) -> str:
    """Of the step of one of the reward model's fits."""
    return f"s{seed}.{number}" if number else f"s{seed}"


def reward_model_steps(study: Study, seed: int) -> list[str]:
    """The steps of the frozen reward model's fits."""
    return [FIT_REWARD_MODEL.named(reward_model_key(seed, n)) for n in range(study.config.reward.num_models)]


def load_reward_models(study: Study, reward_model: Sequence[str]) -> list[FittedReranker]:
    """The frozen reward model's fits, from their steps."""
    return [load_reranker(study, step) for step in reward_model]


def load_reranker(study: Study, step: str) -> FittedReranker:
    """The reranker that a done step fitted."""
    from recloop.rerankers.fitted import FittedReranker

    return FittedReranker.load(study.run.folder(step), study.own.reranker)


def reward_model_digest(study: Study, reward_model: Sequence[str]) -> str:
    """Of what made the reward model: an input of the steps that read it."""
    return " ".join(study.run.digest(step) for step in reward_model)


def reranker_input(study: Study) -> dict[str, str]:
    """What tells a reranker that was passed as an object from others, for the inputs of its fits."""
    return {name: part for name, part in study.own.identities().items() if name == "reranker"}


def evaluate_variant(
    study: Study, task: Task, vectors: UserTextVectors | None, seed: int, variant: str, *, uses_id_history: bool = False
) -> list[Scored]:
    """Fit a fresh evaluator of every backbone on a variant's texts and score the test users with it."""
    scored: list[Scored] = []
    for backbone in study.config.backbones:
        name = f"{variant}.{backbone}.s{seed}"
        inputs = {"lists": task.digest, "vectors": None if vectors is None else vectors.digest}
        with study.step(FIT_EVALUATOR, name, inputs | reranker_input(study), f"reranker/{name}") as step:
            scored.append(Scored(variant, backbone, seed, step.name, variant))
            if not step.is_done:
                kind = {"kind": backbone} if study.own.reranker is None else {}
                config = study.config.reranker.model_copy(update={**kind, "use_id_history": uses_id_history})
                fit_vectors = None if vectors is None else vectors.parts[FIT]
                evaluator = fit_on(study, task, config, fit_vectors, derived_seed(seed, "evaluator"))
                evaluator.save(step.folder)
                told = {"variant": variant, "ranker": backbone, "seed": seed}
                step.log(*({**told, **asdict(epoch)} for epoch in evaluator.curve))
                write_scores(study, task, [evaluator], vectors, scored[-1], step.folder)
        if variant == UNTUNED:
            scored.append(Scored(BEST_OF_N, backbone, seed, step.name, BEST_OF_N))
    return scored


def score_reward_model(
    study: Study, task: Task, reward_model: Sequence[str], vectors: UserTextVectors, seed: int, variant: str
) -> list[Scored]:
    """Score the test users with the frozen reward model, given by the steps of its fits, under a variant's texts."""
    inputs = {"reward_model": reward_model_digest(study, reward_model), "vectors": vectors.digest}
    with study.step(SCORE, f"{variant}.{REWARD_MODEL}.s{seed}", inputs) as step:
        scored = Scored(variant, REWARD_MODEL, seed, step.name, variant)
        if not step.is_done:
            write_scores(study, task, load_reward_models(study, reward_model), vectors, scored, step.folder)
    return [scored]


def write_scores(
    study: Study, task: Task, rankers: Sequence[Reranker], vectors: UserTextVectors | None, scored: Scored, folder: Path
) -> None:
    """Scores of the test lists and their row, the mean over rankers; for the untuned variant, best-of-N beside it."""
    metrics, test = study.config.metrics, task.lists.test
    user_vectors = None if vectors is None else vectors.parts[TEST]
    scores_BNL = np.concatenate([ranker.score(test, user_vectors) for ranker in rankers], axis=1)
    save_file({"scores_BNL": scores_BNL}, folder / SCORES)
    choose_by = study.config.reward.metric
    with_best = scored.variant == UNTUNED and len(rankers) == 1
    values = completion_values(scores_BNL, test, {*metrics.names, choose_by} if with_best else metrics.names)
    rows = [variant_from_completions(scored.variant, {scored.seed: values}, test.user_B, metrics)]
    if with_best:
        rows.append(best_of_n(BEST_OF_N, {scored.seed: values}, test.user_B, metrics, choose_by))
    write_variant_scores(folder / ROWS, rows)
