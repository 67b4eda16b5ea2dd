"""Stage 2 of DPO4Rec, feedback: a frozen reward model rewards each completion; a user's best and worst pair up."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import polars as pl

from recloop.files import atomic_write_bytes, atomic_write_json
from recloop.methods.context import LmRef, Loop, derived_seed
from recloop.methods.dpo4rec.data import Task
from recloop.methods.dpo4rec.evaluate import (
    Remembered,
    features_of,
    reward_model_digest,
    reward_model_key,
    reward_model_seed,
    load_reward_models,
)
from recloop.methods.dpo4rec.generate import REWARD, FIT, UserTexts, UserTextVectors
from recloop.records import Pair, Rewards
from recloop.rerankers.train import fit_reranker
from recloop.rewards.cross_fit import cross_fit_rewards
from recloop.rewards.files import write_pairs, write_pairs_jsonl, write_rewards
from recloop.rewards.preference_pairs import preference_pairs
from recloop.rewards.reliability import reward_model_agreement, split_half_reliability
from recloop.rewards.reranker_reward import reward_completions
from recloop.training.dataset import reply_comparer

REWARDS, RELIABILITY = "rewards.parquet", "reliability.json"
PAIRS, COUNTS, CONVERSATIONS = "pairs.parquet", "counts.json", "pairs.jsonl"


def fit_reward_model(loop: Loop, task: Task, vectors: UserTextVectors, seed: int) -> tuple[str, ...]:
    """Fit the pre-trained recommender of Algorithm 1 on train users; returns the stages of its fits.

    It reads the untuned language model's completions, and is frozen over the rounds. There are as many fits as
    the configuration has reward models, and a completion earns the mean of what they pay.
    """
    return tuple(_fit_one(loop, task, vectors, seed, number) for number in range(loop.config.reward.num_models))


def _fit_one(loop: Loop, task: Task, vectors: UserTextVectors, seed: int, number: int) -> str:
    inputs = {"vectors": vectors.digest, "lists": task.digest}
    key = reward_model_key(seed, number)
    with loop.stage("reward_model", key, inputs, f"reranker/reward_model.{key}") as stage:
        if not stage.is_done:
            reward_model = fit_reranker(
                loop.config.reranker,
                features_of(loop, task),
                task.lists.histories,
                task.lists.train,
                task.lists.valid,
                vectors.parts[FIT],
                reward_model_seed(seed, number),
                loop.progress,
            )
            reward_model.save(stage.folder)
            row = {"variant": "reward_model", "ranker": "reward_model", "seed": seed, "reward_model": number}
            stage.log(*({**row, **asdict(epoch)} for epoch in reward_model.curve))
    return stage.name


def reward_user_texts(
    loop: Loop, task: Task, reward_model: Sequence[str], vectors: UserTextVectors, seed: int, round: int
) -> Rewards:
    """What each completion of each reward user earns under the reward model; how reliable that is, is said first.

    Args:
        reward model: stages of its fits.
    """
    config = loop.config.reward
    inputs = {"reward_model": reward_model_digest(loop, reward_model), "vectors": vectors.digest}
    with loop.stage("reward", f"r{round}.s{seed}", inputs) as stage:
        if not stage.is_done:
            lists, completions = task.lists.reward, vectors.parts[REWARD]
            reward_models = [
                Remembered(one.score(lists, completions)) for one in load_reward_models(loop, reward_model)
            ]
            earned = (reward_models, lists, completions, config.metric)
            reliability = split_half_reliability(*earned, derived_seed(seed, "reliability"))
            loop.progress.say(f"seed {seed}, round {round}: {reliability}")
            if reliability.has_too_few_users:
                loop.progress.say("pairs made from it may be noise: take more reward users")
            elif reliability.is_noise:
                loop.progress.say("pairs made from it would be noise: more lists, another metric or a larger gap")
            agreement = reward_model_agreement(*earned)
            if agreement is not None:
                loop.progress.say(f"seed {seed}, round {round}: {agreement}")
            atomic_write_json(stage.folder / RELIABILITY, asdict(reliability))
            rewards = reward_completions(*earned, round)
            cross_fitted = (
                cross_fit_rewards(rewards, completions, derived_seed(seed, "shared")) if config.cross_fit else None
            )
            if cross_fitted is not None:
                loop.progress.say(f"seed {seed}, round {round}: {cross_fitted}")
                rewards = cross_fitted.rewards
            write_rewards(stage.folder / REWARDS, [rewards], task.dataset.users["user_id"].to_list())
            row = {"round": round, "seed": seed}
            stage.log(row | asdict(reliability))
            if agreement is not None:
                stage.log(row | {"reward_models": asdict(agreement)})
            if cross_fitted is not None:
                stage.log(row | {"explained": cross_fitted.explained})
    return read_rewards(loop.run.folder(stage.name) / REWARDS, task, config.metric)


def read_rewards(file: Path, task: Task, metric: str) -> Rewards:
    """The rewards of one round as `write_rewards` left them."""
    table = pl.read_parquet(file).join(task.dataset.users.select("user", "user_id"), on="user_id")
    table = table.sort("user", "completion")
    user_U = np.unique(table["user"].to_numpy())
    return Rewards(table["round"][0], metric, user_U, table["reward"].to_numpy().reshape(len(user_U), -1))


def pair_completions(
    loop: Loop, task: Task, lm: LmRef, completions: UserTexts, rewards: Rewards, seed: int
) -> tuple[Pair, ...]:
    """The preference pairs of one round; what was dropped, and why, is said."""
    round = rewards.round
    inputs = {"completions": completions.digest, "rewards": loop.run.digest(f"reward.r{round}.s{seed}")}
    with loop.stage("pairs", f"r{round}.s{seed}", inputs) as stage:
        if not stage.is_done:
            is_same = reply_comparer(lm.folder, loop.config.dpo.max_reply_tokens)
            found = preference_pairs(completions.parts[REWARD], rewards, loop.config.pairs, is_same)
            loop.progress.say(f"seed {seed}, round {round}: {found}")
            write_pairs(stage.folder / PAIRS, found.pairs, task.dataset.users["user_id"].to_list())
            counts = {name: value for name, value in asdict(found).items() if name != "pairs"}
            atomic_write_json(stage.folder / COUNTS, counts)
            stage.log({"round": round, "seed": seed, "num_pairs": len(found.pairs), **counts})
    publish_rewards(loop, task)
    return read_pairs(loop.run.folder(stage.name) / PAIRS, task)


def publish_rewards(loop: Loop, task: Task) -> None:
    """``rewards.parquet``, ``pairs.parquet``, ``pairs.jsonl``: all rounds and seeds so far."""
    turns = [(seed, round) for seed in loop.config.seeds for round in range(loop.config.rounds)]
    done = [(seed, round) for seed, round in turns if loop.run.is_done(f"pairs.r{round}.s{seed}")]
    for verb, name in (("reward", REWARDS), ("pairs", PAIRS)):
        tables = [
            pl.read_parquet(loop.run.folder(f"{verb}.r{round}.s{seed}") / name).with_columns(seed=pl.lit(seed))
            for seed, round in done
        ]
        buffer = io.BytesIO()
        pl.concat(tables, how="diagonal").write_parquet(buffer)  # a stage may be of an older version
        atomic_write_bytes(loop.run.path / name, buffer.getvalue())
    files = [loop.run.folder(f"pairs.r{round}.s{seed}") / PAIRS for seed, round in done]
    pairs = [pair for file in files for pair in read_pairs(file, task)]
    write_pairs_jsonl(loop.run.path / CONVERSATIONS, pairs, task.prompts)


def read_pairs(file: Path, task: Task) -> tuple[Pair, ...]:
    """The pairs of one round as `write_pairs` left them."""
    user_of = dict(task.dataset.users.select("user_id", "user").iter_rows())
    rows = pl.read_parquet(file).iter_rows(named=True)
    return tuple(Pair(user=user_of[row.pop("user_id")], **row) for row in rows)
