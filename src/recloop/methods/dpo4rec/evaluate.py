"""The rerankers of a run: the frozen reward model of Algorithm 1, and a fresh evaluator for each variant's texts."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from safetensors.numpy import save_file

from recloop.evaluation.per_user_scores import write_variant_scores
from recloop.evaluation.score import best_of_n, completion_values, variant_from_completions
from recloop.experiment.ray_jobs import Work, do_jobs
from recloop.experiment.step import StepKind
from recloop.files import remove_folder
from recloop.methods.dpo4rec.data import Task
from recloop.methods.dpo4rec.generate import FIT, TEST, UserTextVectors
from recloop.methods.dpo4rec.names import BEST_OF_N, REWARD_MODEL, UNTUNED, Scored
from recloop.methods.study import Study, derived_seed
from recloop.records import UserVectors
from recloop.rerankers.config import RerankerConfig
from recloop.rerankers.protocol import Reranker

if TYPE_CHECKING:
    from recloop.rerankers.fitted import FittedReranker
    from recloop.rerankers.train import FitData

FITS_AHEAD = "fits.ahead"  # what workers fitted for steps that are still to come
SCORES, ROWS = "test_scores.safetensors", "rows.parquet"
EVALUATING = ("metrics", "reward.metric")
FIT_REWARD_MODEL = StepKind("reward_model", reads=("reranker", "item_vector_width"), is_command=False)
FIT_EVALUATOR = StepKind("fit", reads=("reranker", "item_vector_width", *EVALUATING), is_command=False)
SCORE = StepKind("score", reads=("reranker", *EVALUATING), is_command=False)


@dataclass(frozen=True, slots=True)
class Fit:
    """One fit of a reranker on the train users of a task; valid users end it."""

    config: RerankerConfig
    vectors: UserVectors | None
    seed: int


@dataclass(frozen=True, slots=True)
class Reading:
    """What the evaluators of one variant read: its texts' vectors, or none; and the ids of the history, or not."""

    variant: str
    vectors: UserTextVectors | None
    uses_id_history: bool = False


def fit_reward_model(study: Study, task: Task, vectors: UserTextVectors, seed: int) -> tuple[str, ...]:
    """Fit it on train users; the steps of its ``reward.num_models`` fits, whose mean is the reward."""
    inputs = {"vectors": vectors.digest, "lists": task.digest} | reranker_input(study)
    names = tuple(reward_model_steps(study, seed))
    keys = [reward_model_key(seed, number) for number in range(len(names))]
    purposes = [f"judge {number}" if number else "judge" for number in range(len(names))]
    fits = [Fit(study.config.reranker, vectors.parts[FIT], derived_seed(seed, purpose)) for purpose in purposes]
    missing = {
        _ahead(study, FIT_REWARD_MODEL, key, inputs): fit
        for key, fit in zip(keys, fits, strict=True)
        if not study.is_done(FIT_REWARD_MODEL, key, inputs)
    }
    with fits_ahead(study, task, missing):
        for number, (key, fit) in enumerate(zip(keys, fits, strict=True)):
            with study.step(FIT_REWARD_MODEL, key, inputs, f"reranker/reward_model.{key}") as step:
                if not step.is_done:
                    ahead = _ahead(study, FIT_REWARD_MODEL, key, inputs)
                    fitted = fit_unless_done(study, task, ahead, fit)
                    fitted.save(step.folder)
                    told = {"variant": "reward_model", "ranker": "reward_model", "seed": seed, "reward_model": number}
                    step.log(*({**told, **asdict(epoch)} for epoch in fitted.curve))
                    if doubt := doubt_of_first_epoch(fitted, len(np.unique(task.lists.valid.user_B))):
                        study.progress.say(f"{step.name}: {doubt}")
    return names


def doubt_of_first_epoch(reward_model: FittedReranker, num_valid: int) -> str | None:
    """What to know of a reward model whose first epoch was best on this many valid users; None for any other."""
    curve = reward_model.curve
    is_first_best = len(curve) > 1 and max(one.valid_ndcg for one in curve) == curve[0].valid_ndcg
    if not (is_first_best and reward_model.config.patience):
        return None
    return (
        f"{num_valid} valid users choose the first of {len(curve)} epochs, and what texts say is learnt later; more "
        f"valid users (--split.valid) tell epochs apart, --reranker.patience 0 keeps the last"
    )


@contextmanager
def fits_ahead(study: Study, task: Task, fits: Mapping[Path, Fit]) -> Generator[None]:
    """Where the run has a cluster, its workers do these fits, each into its folder, where its step finds it.

    So what is done when a run is killed is there when it goes on.
    """
    jobs = [(folder, fit) for folder, fit in fits.items() if not folder.is_dir()]
    if jobs and study.config.engine != "process":
        (study.run.path / FITS_AHEAD).mkdir(exist_ok=True)
        work = Work(f"fit {study.run.path} {task.digest}", partial(_Fitter, _fit_data(task, None), study.own.reranker))
        with study.progress.stage("fit rerankers by Ray", len(jobs), "fits") as step:
            for _ in do_jobs(study.config.ray, work, jobs):
                step(1)
    yield
    remove_folder(study.run.path / FITS_AHEAD)


def _ahead(study: Study, kind: StepKind, key: str, inputs: Mapping[str, Any]) -> Path:
    """Where a worker leaves the fit of a step that is made from these inputs."""
    name = f"{kind.named(key)}.{study.fingerprint(kind, inputs)[:16]}"
    return study.run.path.absolute() / FITS_AHEAD / name


def fit_unless_done(study: Study, task: Task, ahead: Path, fit: Fit) -> FittedReranker:
    """What a worker has fitted into this folder, or what is fitted now."""
    from recloop.rerankers.fitted import FittedReranker

    return FittedReranker.load(ahead, study.own.reranker) if ahead.is_dir() else fit_on(study, task, fit)


class _Fitter:
    """In a worker: does fit by fit on the same lists; a fit's folder is there when it is whole."""

    def __init__(self, data: FitData, own: Any) -> None:
        self._data, self._own = data, own

    def __call__(self, job: tuple[Path, Fit]) -> None:
        from recloop.rerankers.train import fit_network

        folder, fit = job
        if folder.is_dir():  # the worker was killed after it
            return
        part = folder.with_name(f"{folder.name}.{os.getpid()}.part")
        fit_network(fit.config, replace(self._data, user_vectors=fit.vectors), fit.seed, own=self._own).save(part)
        part.rename(folder)


def fit_on(study: Study, task: Task, fit: Fit) -> FittedReranker:
    """A reranker fitted on the train users of a task; valid users end the fit."""
    from recloop.rerankers.train import fit_network

    return fit_network(fit.config, _fit_data(task, fit.vectors), fit.seed, study.progress, study.own.reranker)


def _fit_data(task: Task, vectors: UserVectors | None) -> FitData:
    from recloop.rerankers.train import FitData

    lists = task.lists
    return FitData(task.features(), lists.histories, lists.train, lists.valid, vectors)


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


def evaluate_each(study: Study, task: Task, seed: int, readings: Iterable[Reading]) -> Iterator[list[Scored]]:
    """Evaluate variant by variant; where the run has a cluster, once all are read, their fits are done side by side."""
    if study.config.engine == "process":
        with fits_ahead(study, task, {}):  # which a run by Ray may have left
            yield from (_evaluate(study, task, seed, reading) for reading in readings)
        return
    all_readings = list(readings)
    with fits_ahead(study, task, dict(_missing_fits(study, task, seed, all_readings))):
        yield from (_evaluate(study, task, seed, reading) for reading in all_readings)


def _missing_fits(study: Study, task: Task, seed: int, readings: Iterable[Reading]) -> Iterator[tuple[Path, Fit]]:
    for reading in readings:
        inputs = _evaluator_inputs(study, task, reading)
        for backbone in study.config.backbones:
            key = f"{reading.variant}.{backbone}.s{seed}"
            if not study.is_done(FIT_EVALUATOR, key, inputs):
                yield _ahead(study, FIT_EVALUATOR, key, inputs), _evaluator_fit(study, reading, backbone, seed)


def _evaluator_inputs(study: Study, task: Task, reading: Reading) -> dict[str, str | None]:
    vectors = None if reading.vectors is None else reading.vectors.digest
    return {"lists": task.digest, "vectors": vectors} | reranker_input(study)


def _evaluator_fit(study: Study, reading: Reading, backbone: str, seed: int) -> Fit:
    kind = {"kind": backbone} if study.own.reranker is None else {}
    config = study.config.reranker.model_copy(update={**kind, "use_id_history": reading.uses_id_history})
    vectors = None if reading.vectors is None else reading.vectors.parts[FIT]
    return Fit(config, vectors, derived_seed(seed, "evaluator"))


def _evaluate(study: Study, task: Task, seed: int, reading: Reading) -> list[Scored]:
    """Fit a fresh evaluator of every backbone on a variant's texts and score the test users with it."""
    scored: list[Scored] = []
    variant, vectors, inputs = reading.variant, reading.vectors, _evaluator_inputs(study, task, reading)
    for backbone in study.config.backbones:
        name = f"{variant}.{backbone}.s{seed}"
        with study.step(FIT_EVALUATOR, name, inputs, f"reranker/{name}") as step:
            scored.append(Scored(variant, backbone, seed, step.name, variant))
            if not step.is_done:
                ahead = _ahead(study, FIT_EVALUATOR, name, inputs)
                evaluator = fit_unless_done(study, task, ahead, _evaluator_fit(study, reading, backbone, seed))
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
