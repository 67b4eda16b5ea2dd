"""What some units measure beside the table: another study's tuned language model, and a leak on purpose.

Both go on in the run's own folder, stage by stage, so that they are resumed with it, and their rows are
scored on the same users and lists as the run's own.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from recloop.errors import RunError
from recloop.files import sha256_of_folder
from recloop.methods.context import LmRef, Loop
from recloop.methods.dpo4rec.data import Task
from recloop.methods.dpo4rec.evaluate import (
    UNTUNED,
    features_of,
    judge_key,
    judge_seed,
    judge_stages,
    load_judges,
    measure_row,
)
from recloop.methods.dpo4rec.generate import (
    FEEDBACK,
    FIT,
    KnowledgeVectors,
    drafts_wanted,
    encode_knowledge,
    read_knowledge,
    sample_knowledge,
)
from recloop.methods.dpo4rec.train import align
from recloop.records import Group, UserVectors
from recloop.rerankers.fitted import FittedReranker
from recloop.rerankers.train import fit_reranker
from recloop.rewards.preference_pairs import preference_pairs
from recloop.rewards.reranker_reward import reward_drafts
from recloop.training.dataset import reply_comparer
from studies.evidence.measuring import LEAKY, TRANSFERRED, tuned_folder, vectors_of
from studies.evidence.moments import moments_of
from studies.evidence.numbers import LeakNumbers


def measure_transfer(loop: Loop, task: Task, seed: int, source: Path) -> None:
    """The row of a language model that another run tuned.

    Args:
        source: that run's folder.

    Raises:
        RunError: it holds no tuned language model.
    """
    folder = tuned_folder(source, seed)
    if not folder.is_dir():
        raise RunError(
            f"a transfer reads the tuned language model of another unit, got none in {folder}; do the unit "
            f"{source.name} on this machine first and keep its run folder"
        )
    lm = LmRef(TRANSFERRED, folder, sha256_of_folder(folder))
    wanted = drafts_wanted(loop.config.drafts, for_feedback=False)
    vectors = encode_knowledge(loop, sample_knowledge(loop, task, lm, wanted, seed), seed)
    measure_row(loop, task, vectors, seed, TRANSFERRED)


def measure_leak_on_purpose(loop: Loop, task: Task, seed: int) -> LeakNumbers:
    """WRONG ON PURPOSE: a judge fitted on the feedback users rewards them, tunes, and reports on them again.

    It shows what a study without separate groups would claim; the row of the language model so tuned, on
    test users and with an evaluator of its own, shows what is true of it. Nothing else reads this judge.
    """
    metric, feedback = loop.config.reward.metric, task.lists.feedback
    untuned = vectors_of(loop, UNTUNED, seed)
    judges = [
        FittedReranker.load(loop.run.folder(fit_judge_on_feedback_users(loop, task, untuned, seed, number)))
        for number in range(loop.config.reward.judges)
    ]
    before = reward_drafts(judges, feedback, untuned.parts[FEEDBACK], metric, round=0)
    drafts = read_knowledge(loop, UNTUNED, f"sample.{UNTUNED}.s{seed}").parts[FEEDBACK]
    anchor = loop.first_lm
    is_same = reply_comparer(anchor.folder, loop.config.dpo.max_reply_tokens)
    pairs = preference_pairs(drafts, before, loop.config.pairs, is_same).pairs
    lm = align(loop, task, anchor, anchor, pairs, seed, LEAKY)
    wanted = drafts_wanted(loop.config.drafts, for_feedback=False) | {FEEDBACK: loop.config.drafts.test}
    vectors = encode_knowledge(loop, sample_knowledge(loop, task, lm, wanted, seed), seed)
    measure_row(loop, task, vectors, seed, LEAKY)
    after = reward_drafts(judges, feedback, vectors.parts[FEEDBACK], metric, round=1)
    before_UN, after_UN = (r.rewards_UN.astype(np.float64) for r in (before, after))
    honest_judges = load_judges(loop, judge_stages(loop, seed))
    honest = reward_drafts(honest_judges, feedback, untuned.parts[FEEDBACK], metric, round=0)
    honest_UN = honest.rewards_UN.astype(np.float64)
    return LeakNumbers(
        metric=metric,
        best_less_mean=moments_of(before_UN.max(axis=1) - before_UN.mean(axis=1)),
        honest_best_less_mean=moments_of(honest_UN.max(axis=1) - honest_UN.mean(axis=1)),
        claimed=moments_of(after_UN.mean(axis=1) - before_UN.mean(axis=1)),
    )


def fit_judge_on_feedback_users(loop: Loop, task: Task, vectors: KnowledgeVectors, seed: int, number: int) -> str:
    """Fit the leaky judge once; returns the stage.

    The feedback lists are passed off as train lists, or the fit would refuse them.
    """
    inputs = {"vectors": vectors.digest, "lists": task.digest}
    key = judge_key(seed, number)
    with loop.stage("judge", f"leaky.{key}", inputs, f"reranker/leaky_judge.{key}") as stage:
        if not stage.is_done:
            passed_off = replace(task.lists.feedback, group=Group.TRAIN)
            judge = fit_reranker(
                loop.config.reranker,
                features_of(loop, task),
                task.lists.histories,
                passed_off,
                task.lists.valid,
                side_by_side(vectors.parts[FIT], vectors.parts[FEEDBACK]),
                judge_seed(seed, number),
                loop.progress,
            )
            judge.save(stage.folder)
    return stage.name


def side_by_side(one: UserVectors, other: UserVectors) -> UserVectors:
    """The vectors of both, as many drafts a user as the one with fewer has."""
    num_drafts = min(one.vectors_UND.shape[1], other.vectors_UND.shape[1])
    user_U = np.concatenate([one.user_U, other.user_U])
    vectors_UND = np.concatenate([part.vectors_UND[:, :num_drafts] for part in (one, other)])
    order = np.argsort(user_U, kind="stable")
    return UserVectors(user_U[order], vectors_UND[order])
