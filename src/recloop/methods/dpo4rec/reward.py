"""Stage 2 of DPO4Rec, feedback: the reward of each completion, and a user's best and worst paired up."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from recloop.encoders.sentence import EncoderCache, encode_texts
from recloop.evaluation.tables import write_parquet
from recloop.experiment.ray_jobs import Work, do_jobs
from recloop.experiment.step import StepKind
from recloop.files import atomic_write_json
from recloop.methods.dpo4rec.data import LISTS, Task, read_lists
from recloop.methods.dpo4rec.evaluate import load_reward_models, reward_model_digest
from recloop.methods.dpo4rec.generate import ENCODE, REWARD, UserTexts, UserTextVectors, read_vectors
from recloop.methods.study import VECTORS_FILE, LmRef, Study, derived_seed
from recloop.prompts.lines import candidate_line, history_items
from recloop.records import Log, Pair, Prompt, Rewards
from recloop.rewards.cross_fit import cross_fit_rewards
from recloop.rewards.embedding_reward import EmbeddingReward
from recloop.rewards.files import write_pairs, write_pairs_jsonl, write_rewards
from recloop.rewards.function import RewardFunction, RewardSum
from recloop.rewards.preference_pairs import find_pairs
from recloop.rewards.reliability import reward_model_agreement, split_half_reliability
from recloop.rewards.reranker_reward import (
    ListRewards,
    RerankerReward,
    join_blocks,
    measure_block,
    reward_lists,
    user_blocks,
    user_rewards,
)
from recloop.rewards.text_penalties import TextPenalties
from recloop.training.dataset import reply_comparer

REWARDS, RELIABILITY = "rewards.parquet", "reliability.json"
PAIRS, COUNTS, CONVERSATIONS = "pairs.parquet", "counts.json", "pairs.jsonl"
REWARD_STEP = StepKind("reward", reads=("reward", "reranker"))
PAIRS_STEP = StepKind("pairs", reads=("pairs", "dpo.max_reply_tokens", "reward.metric"))


def reward_user_texts(
    study: Study, task: Task, reward_model: Sequence[str], texts: UserTexts, vectors: UserTextVectors, seed: int,
    round: int,
) -> Rewards:  # fmt: skip
    """The reward of each completion of each reward user, by the fits in `reward_model`; its reliability is told."""
    config, completions = study.config.reward, vectors.parts[REWARD]
    inputs = {"reward_model": reward_model_digest(study, reward_model), "vectors": vectors.digest}
    with study.step(REWARD_STEP, f"r{round}.s{seed}", inputs) as step:
        if not step.is_done:
            where, row = f"seed {seed}, round {round}", {"round": round, "seed": seed}
            measured = measure_completions(
                study, task, reward_model, vectors, step_of_vectors=f"{texts.variant}.s{seed}"
            )
            reliability = split_half_reliability(measured, derived_seed(seed, "reliability"))
            study.progress.say(f"{where}: {reliability}")
            if reliability.has_too_few_users:
                study.progress.say("pairs made from it may be noise: take more reward users")
            elif reliability.is_noise:
                study.progress.say("pairs made from it would be noise: more lists, another metric or a larger gap")
            atomic_write_json(step.folder / RELIABILITY, asdict(reliability))
            step.log(row | asdict(reliability))
            agreement = reward_model_agreement(measured)
            if agreement is not None:
                study.progress.say(f"{where}: {agreement}")
                step.log(row | {"reward_models": asdict(agreement)})
            rewards = user_rewards(measured, round)
            if config.cross_fit:
                fitted = cross_fit_rewards(rewards, completions, derived_seed(seed, "shared"))
                study.progress.say(f"{where}: {fitted}")
                step.log(row | {"explained": fitted.explained})
                rewards = fitted.rewards
            if config.has_penalties:
                rewards = less_penalties(study, task, texts, rewards)
            step.log(row | reward_moments(rewards))
            write_rewards(step.folder / REWARDS, rewards, task.log.users["user_id"].to_list())
    return read_rewards(study.run.folder(step.name) / REWARDS, task.log, config.metric)


def measure_completions(
    study: Study, task: Task, reward_model: Sequence[str], vectors: UserTextVectors, step_of_vectors: str
) -> ListRewards:
    """What the reward model makes of every list of reward users under every completion; by workers where it is much."""
    lists, metric = task.lists.reward, study.config.reward.metric
    blocks = user_blocks(lists)
    if study.config.engine == "process" or len(blocks) == 1:
        return reward_lists(load_reward_models(study, reward_model), lists, vectors.parts[REWARD], metric)
    folders = {"lists": study.run.folder("prepare"), "vectors": study.run.folder(ENCODE.named(step_of_vectors))}
    fits = [study.run.folder(step).absolute() for step in reward_model]
    begin = partial(
        _Measurer, folders["lists"].absolute(), folders["vectors"].absolute(), fits, metric, study.own.reranker
    )
    work = Work(f"reward {study.run.path} {vectors.digest}", begin)
    parts: dict[int, np.ndarray] = {}
    with study.progress.stage("reward completions by Ray", len(blocks), "blocks of users") as step:
        for place, values_KBN in do_jobs(study.config.ray, work, blocks):
            parts[place] = values_KBN
            step(1)
    return join_blocks(lists, metric, [parts[place] for place in range(len(blocks))])


class _Measurer:
    """In a worker: opens lists, vectors and reward models, and measures block by block."""

    def __init__(self, lists: Path, vectors: Path, fits: Sequence[Path], metric: str, own: Any) -> None:
        from recloop.rerankers.fitted import FittedReranker

        self._lists, self._vectors = read_lists(lists / LISTS).reward, read_vectors(vectors)[REWARD]
        self._fits, self._metric = [FittedReranker.load(fit, own) for fit in fits], metric

    def __call__(self, users: tuple[int, int]) -> np.ndarray:
        return measure_block(self._fits, self._lists, self._vectors, self._metric, users)


def reward_moments(rewards: Rewards) -> dict[str, float]:
    """Mean and spread of a round's rewards for metrics.jsonl, in the unit of the reward: of all, and within a user."""
    rewards_UN = rewards.rewards_UN.astype(np.float64)
    return {
        "reward_mean": float(rewards_UN.mean()),
        "reward_std": float(rewards_UN.std()),
        "reward_std_within_users": float(rewards_UN.std(axis=1).mean()),
    }


def less_penalties(study: Study, task: Task, texts: UserTexts, rewards: Rewards) -> Rewards:
    """The rewards less what their completions lose for length and untruth."""
    completions = texts.parts[REWARD]
    rows_U = np.searchsorted(completions.user_U, rewards.user_U).tolist()
    written = [[one.text for one in completions.completions_UN[row]] for row in rows_U]
    taken_UN = penalties(study, task)([task.prompts[user] for user in rewards.user_U.tolist()], written)
    return replace(rewards, rewards_UN=(rewards.rewards_UN + taken_UN).astype(np.float32))


def penalties(study: Study, task: Task) -> TextPenalties:
    """What a completion loses."""
    config, histories = study.config.reward, task.lists.histories
    return TextPenalties(
        task.log,
        histories,
        length_weight=config.length_weight,
        untruth_weight=config.untruth_weight,
        population_rates=task.population_rates,
    )


def completion_reward(study: Study, task: Task, reward_model: Sequence[str]) -> RewardFunction:
    """The configured reward of completions about reward users, or the function that was passed to the run."""
    lists = task.lists.reward
    config, own = study.config.reward, study.own.reward
    if own is not None:
        return own
    if config.by == "embedding":
        told = history_items(task.log)(range(task.log.num_items))
        lines = [candidate_line(task.log.attributes, item) for item in told]
        with EncoderCache(study.run.path / VECTORS_FILE) as cache:
            vectors_ID = encode_texts(study.open_encoder(), lines, cache, study.progress)
        reward: RewardFunction = EmbeddingReward(lists, study.open_encoder(), vectors_ID)
    else:
        fits = load_reward_models(study, reward_model)
        reward = RerankerReward(fits, lists, study.open_encoder(), config.metric)
    return RewardSum(reward, penalties(study, task)) if config.has_penalties else reward


def reward_by_function(
    study: Study, task: Task, reward_model: Sequence[str], texts: UserTexts, seed: int, round: int
) -> Rewards:
    """The reward of each completion of each reward user, by `completion_reward`."""
    completions, name = texts.parts[REWARD], reward_name(study)
    inputs = {"reward": name, "texts": texts.digest}
    if study.own.reward is None:
        inputs |= {"lists": task.digest, **study.encoder()}
    with study.step(REWARD_STEP, f"r{round}.s{seed}", inputs) as step:
        if not step.is_done:
            user_ids = task.log.users["user_id"].to_list()
            reward = completion_reward(study, task, reward_model)
            prompts = [task.prompts[user] for user in completions.user_U.tolist()]
            written = [[one.text for one in completions_N] for completions_N in completions.completions_UN]
            asked_of = [user_ids[user] for user in completions.user_U.tolist()]
            rewards_UN = np.asarray(reward(prompts, written, users=asked_of), dtype=np.float32)
            rewards = Rewards(round, name, completions.user_U, rewards_UN)
            step.log({"round": round, "seed": seed, **reward_moments(rewards)})
            write_rewards(step.folder / REWARDS, rewards, user_ids)
    return read_rewards(study.run.folder(step.name) / REWARDS, task.log, name)


def reward_name(study: Study) -> str:
    """What the rewards are called in tables: the metric, ``embedding``, or the name of the function that was passed."""
    config = study.config.reward
    own = study.own.identities().get("reward")
    return own or (config.metric if config.by == "reranker" else config.by)


def read_rewards(file: Path, log: Log, metric: str) -> Rewards:
    """The rewards of one round as `write_rewards` left them."""
    table = pl.read_parquet(file).join(log.users.select("user", "user_id"), on="user_id").sort("user", "completion")
    user_U = np.unique(table["user"].to_numpy())
    return Rewards(table["round"][0], metric, user_U, table["reward"].to_numpy().reshape(len(user_U), -1))


def pair_completions(
    study: Study, task: Task, lm: LmRef, texts: UserTexts, rewards: Rewards, seed: int
) -> tuple[Pair, ...]:
    """The preference pairs of one round; what was dropped, and why, is said."""
    round = rewards.round
    inputs = {"completions": texts.digest, "rewards": study.run.digest(f"reward.r{round}.s{seed}")}
    with study.step(PAIRS_STEP, f"r{round}.s{seed}", inputs) as step:
        if not step.is_done:
            is_same = reply_comparer(lm.folder, study.config.dpo.max_reply_tokens)
            found = find_pairs(texts.parts[REWARD], rewards, study.config.pairs, is_same)
            study.progress.say(f"seed {seed}, round {round}: {found}")
            write_pairs(step.folder / PAIRS, found.pairs, task.log.users["user_id"].to_list())
            counts = {name: value for name, value in asdict(found).items() if name.startswith("num_")}
            atomic_write_json(step.folder / COUNTS, counts)
            share = len({pair.user for pair in found.pairs}) / max(1, len(rewards.user_U))
            told = {"round": round, "seed": seed, "num_pairs": len(found.pairs), "share_users_with_pairs": share}
            step.log(told | counts)
            found.require_some()
    publish_rewards(study, task.log, task.prompts)
    return read_pairs(study.run.folder(step.name) / PAIRS, task.log)


def publish_rewards(study: Study, log: Log, prompts: Mapping[int, Prompt]) -> None:
    """``rewards.parquet``, ``pairs.parquet``, ``pairs.jsonl``: all rounds and seeds so far."""
    rounds = [(seed, f"r{round}.s{seed}") for seed in study.config.seeds for round in range(study.config.rounds)]
    done = [(seed, key) for seed, key in rounds if study.run.is_done(f"pairs.{key}")]
    for verb, name in (("reward", REWARDS), ("pairs", PAIRS)):
        tables = [
            pl.read_parquet(study.run.folder(f"{verb}.{key}") / name).with_columns(seed=pl.lit(seed))
            for seed, key in done
        ]
        write_parquet(study.run.path / name, tables)
    pairs = [pair for _, key in done for pair in read_pairs(study.run.folder(f"pairs.{key}") / PAIRS, log)]
    write_pairs_jsonl(study.run.path / CONVERSATIONS, pairs, prompts)


def read_pairs(file: Path, log: Log) -> tuple[Pair, ...]:
    """The pairs of one round as `write_pairs` left them."""
    user_of = dict(log.users.select("user_id", "user").iter_rows())
    rows = pl.read_parquet(file).iter_rows(named=True)
    return tuple(Pair(user=user_of[row.pop("user_id")], **row) for row in rows)
