"""The task of the parts that time rerankers: MovieLens-1M, or a simulated log without it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from recloop.data.lists import ProtocolConfig, build_lists
from recloop.data.load import DataConfig, read_log
from recloop.data.simulated import SimulatedConfig
from recloop.records import Group, UserVectors
from recloop.rerankers.features import item_features, item_texts, rating_weighted_means, tfidf_vectors

if TYPE_CHECKING:
    from benchmarks.speed.bench import SpeedConfig
    from recloop.records import Histories, Lists, Log
    from recloop.rerankers.features import ItemFeatures

WIDTH = 384  # of MiniLM's vectors
SIMULATED = SimulatedConfig(num_users=2000, num_items=3700, num_interactions=160)
VALID_EVERY = 20  # every 20th user is a valid user


@dataclass(frozen=True, slots=True)
class RerankTask:
    """Everything a fit needs.

    vectors: one completion per user, which is the rating-weighted mean of the vectors of the items in the history.
    """

    name: str
    features: ItemFeatures
    histories: Histories
    train: Lists
    valid: Lists
    vectors: UserVectors


def rerank_task(config: SpeedConfig) -> RerankTask:
    """The task on the configured log; a trial takes the share of its users."""
    return _task(config.data_path, config.share)


@lru_cache(maxsize=1)
def _task(path: Path | None, share: float) -> RerankTask:
    if path is None:
        num_users = max(100, round(SIMULATED.num_users * share))
        simulated = SIMULATED.model_copy(update={"num_users": num_users})
        dataset = read_log(DataConfig(name="simulated", simulated=simulated), seed=0)
    else:
        dataset = read_log(DataConfig(name="ml-1m", path=path), seed=0)
        if share < 1:
            num_users = max(100, round(dataset.num_users * share))
            dataset = read_log(DataConfig(name="ml-1m", path=path, users=num_users), seed=0)
    return _build(dataset)


def _build(dataset: Log) -> RerankTask:
    users = np.arange(dataset.num_users)
    groups = {Group.TRAIN: users[users % VALID_EVERY > 0], Group.VALID: users[users % VALID_EVERY == 0]}
    lists = build_lists(dataset, groups, ProtocolConfig(), seed=0)
    vectors_ID = tfidf_vectors(item_texts(dataset), WIDTH, seed=0)
    missing = WIDTH - vectors_ID.shape[1]  # a small catalogue has fewer components than MiniLM is wide
    vectors_ID = np.pad(vectors_ID, ((0, 0), (0, missing)))
    return RerankTask(
        name=f"{dataset.name}, {dataset.num_users:,} users, {dataset.num_items:,} items",
        features=item_features(dataset, vectors_ID),
        histories=lists.histories,
        train=lists.train,
        valid=lists.valid,
        vectors=rating_weighted_means(lists.histories, vectors_ID, users),
    )


def with_completions(vectors: UserVectors, num_completions: int, seed: int) -> UserVectors:
    """Vectors of N completions per user: the user's own one, and N - 1 of random users."""
    rng = np.random.default_rng(seed)
    others = rng.integers(len(vectors.user_U), size=(len(vectors.user_U), num_completions - 1))
    first_U1D = vectors.vectors_UND[:, :1]
    return replace(vectors, vectors_UND=np.concatenate([first_U1D, vectors.vectors_UND[others, 0]], axis=1))
