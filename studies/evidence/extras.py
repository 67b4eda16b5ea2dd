"""Extra measurements: another study's trained language model, only texts that are true, and a leak on purpose.

Both are steps in the run's own folder, so that they resume with it. Their variants are scored on the same users and
lists as the run's own.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from recloop.errors import RunError
from recloop.experiment.step import StepKind
from recloop.files import sha256_of_folder
from recloop.methods.dpo4rec.data import Task
from recloop.methods.dpo4rec.evaluate import (
    Fit,
    Reading,
    evaluate_each,
    fit_on,
    load_reward_models,
    reward_model_key,
    reward_model_steps,
)
from recloop.methods.dpo4rec.generate import (
    FIT,
    GROUPS,
    REWARD,
    SAMPLE,
    UserTextVectors,
    encode_user_texts,
    num_completions,
    read_user_texts,
    sample_for,
    sample_user_texts,
    write_user_texts,
)
from recloop.methods.dpo4rec.names import TRAINED, UNTUNED
from recloop.methods.dpo4rec.train import train_dpo_round
from recloop.methods.study import LmRef, derived_seed
from recloop.methods.study import Study as Loop
from recloop.prompts.text_truth import check_of
from recloop.records import Group, UserVectors
from recloop.rerankers.fitted import FittedReranker
from recloop.rewards.preference_pairs import find_pairs
from recloop.rewards.reranker_reward import reranker_reward
from recloop.training.dataset import reply_comparer
from studies.evidence.numbers import LeakNumbers
from studies.evidence.statistics import moments_of
from studies.evidence.tables import CHECKED, LEAKY, TRANSFERRED, TRIES, trained_folder, vectors_of


def evaluate_transfer(loop: Loop, task: Task, seed: int, source: Path) -> None:
    """Evaluate the language model that another run trained, as a variant of this one.

    Args:
        source: that run's folder.

    Raises:
        RunError: that folder has no trained language model.
    """
    folder = trained_folder(source, seed)
    if not folder.is_dir():
        raise RunError(
            f"a transfer needs the trained language model of another run, got none in {folder}; do {source.name} "
            f"on this machine first and keep its run folder"
        )
    lm = LmRef(TRANSFERRED, folder, sha256_of_folder(folder))
    vectors = encode_user_texts(loop, sample_user_texts(loop, task, lm, seed), seed)
    list(evaluate_each(loop, task, seed, [Reading(TRANSFERRED, vectors)]))


def evaluate_checked(loop: Loop, task: Task, seed: int) -> None:
    """Evaluate only those of the trained texts that say nothing untrue, as a variant of the run.

    Train, valid and test users' texts are checked alike, by their histories alone. An untrue one is drawn again; where
    no draw is true the text is empty.
    """
    folder = trained_folder(loop.run.path, seed)
    lm = LmRef(TRAINED, folder, sha256_of_folder(folder))
    kind = StepKind(SAMPLE.verb, reads=SAMPLE.reads, part=CHECKED)
    with loop.step(kind, f"{CHECKED}.s{seed}", {"prompts": task.digest, "lm": lm.digest}) as step:
        if not step.is_done:
            accept = check_of(task.log, task.lists.histories, task.population_rates)
            wanted = num_completions(loop.config.completions, with_rewards=False)
            checked = {"purpose": step.name, "accept": accept, "tries": TRIES}
            parts = {
                part: sample_for(loop, task, lm, task.users_of(*GROUPS[part]), num, seed, **checked)
                for part, num in wanted.items()
            }
            write_user_texts(loop, step, parts)
    vectors = encode_user_texts(loop, read_user_texts(loop, CHECKED, step.name), seed)
    list(evaluate_each(loop, task, seed, [Reading(CHECKED, vectors)]))


LEAKY_FIT = StepKind("reward_model", is_command=False)


def measure_leak_on_purpose(loop: Loop, task: Task, seed: int) -> LeakNumbers:
    """WRONG ON PURPOSE: the claim of a reward model fitted on reward users, which rewards and evaluates them again.

    It is what a study without separate groups would claim. The language model trained this way is also a variant on
    test users with its own evaluation reranker, which shows the truth. Nothing else uses this reward model.
    """
    metric, reward = loop.config.reward.metric, task.lists.reward
    untuned = vectors_of(loop, UNTUNED, seed)
    reward_models = [
        FittedReranker.load(loop.run.folder(fit_reward_model_on_reward_users(loop, task, untuned, seed, number)))
        for number in range(loop.config.reward.num_models)
    ]
    before = reranker_reward(reward_models, reward, untuned.parts[REWARD], metric=metric)
    completions = read_user_texts(loop, UNTUNED, f"sample.{UNTUNED}.s{seed}").parts[REWARD]
    reference_lm = loop.first_lm
    is_same = reply_comparer(reference_lm.folder, loop.config.dpo.max_reply_tokens)
    pairs = find_pairs(completions, before, loop.config.pairs, is_same).pairs
    lm = train_dpo_round(loop, task.prompts, reference_lm, reference_lm, pairs, seed, LEAKY)
    drawn = loop.config.completions
    wanted = num_completions(drawn, with_rewards=False) | {REWARD: drawn.test}
    vectors = encode_user_texts(loop, sample_user_texts(loop, task, lm, seed, wanted=wanted), seed)
    list(evaluate_each(loop, task, seed, [Reading(LEAKY, vectors)]))
    after = reranker_reward(reward_models, reward, vectors.parts[REWARD], metric=metric, round=1)
    before_UN, after_UN = (r.rewards_UN.astype(np.float64) for r in (before, after))
    honest_reward_models = load_reward_models(loop, reward_model_steps(loop, seed))
    honest = reranker_reward(honest_reward_models, reward, untuned.parts[REWARD], metric=metric)
    honest_UN = honest.rewards_UN.astype(np.float64)
    return LeakNumbers(
        metric=metric,
        best_less_mean=moments_of(before_UN.max(axis=1) - before_UN.mean(axis=1)),
        honest_best_less_mean=moments_of(honest_UN.max(axis=1) - honest_UN.mean(axis=1)),
        claimed=moments_of(after_UN.mean(axis=1) - before_UN.mean(axis=1)),
    )


def fit_reward_model_on_reward_users(loop: Loop, task: Task, vectors: UserTextVectors, seed: int, number: int) -> str:
    """The step that fits the leaky reward model, done once.

    The reward lists pass as train lists, since the fit refuses others.
    """
    inputs = {"vectors": vectors.digest, "lists": task.digest}
    key = reward_model_key(seed, number)
    with loop.step(LEAKY_FIT, f"leaky.{key}", inputs, f"reranker/leaky_reward_model.{key}") as step:
        if not step.is_done:
            lists = replace(task.lists, train=replace(task.lists.reward, group=Group.TRAIN))
            vectors_of_both = side_by_side(vectors.parts[FIT], vectors.parts[REWARD])
            fit_seed = derived_seed(seed, f"judge {number}" if number else "judge")  # as for the honest one
            reward_model = fit_on(
                loop, replace(task, lists=lists), Fit(loop.config.reranker, vectors_of_both, fit_seed)
            )
            reward_model.save(step.folder)
    return step.name


def side_by_side(one: UserVectors, other: UserVectors) -> UserVectors:
    """The vectors of both groups, with as many completions per user as the group with fewer has."""
    num_completions = min(one.vectors_UND.shape[1], other.vectors_UND.shape[1])
    user_U = np.concatenate([one.user_U, other.user_U])
    vectors_UND = np.concatenate([part.vectors_UND[:, :num_completions] for part in (one, other)])
    order = np.argsort(user_U, kind="stable")
    return UserVectors(user_U[order], vectors_UND[order])
