"""The reward model of Algorithm 1: rerankers fitted on train users with the untuned texts, frozen over the rounds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

from recloop.experiment.step import StepKind
from recloop.methods.dpo4rec.data import Task
from recloop.methods.dpo4rec.generate import FIT, UserTextVectors
from recloop.methods.study import Study, derived_seed
from recloop.records import UserVectors
from recloop.rerankers.config import RerankerConfig

if TYPE_CHECKING:
    from recloop.rerankers.fitted import FittedReranker

FIT_REWARD_MODEL = StepKind("reward_model", reads=("reranker", "item_vector_width"), is_command=False)


def fit_reward_model(study: Study, task: Task, vectors: UserTextVectors, seed: int) -> tuple[str, ...]:
    """Fit it on train users; returns the steps of its fits.

    There are ``reward.num_models`` fits, each with a seed of its own; a completion's reward is the mean over them.
    """
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
    """Key of the step of one of the reward model's fits."""
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
