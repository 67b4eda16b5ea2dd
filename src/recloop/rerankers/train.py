"""Fitting a reranker on the lists of train users, stopped by valid users."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from recloop.errors import SettingError, TrainingError
from recloop.progress import SILENT, terminal_progress
from recloop.records import CandidateLists, Group, Histories, Lists, Log, UserVectors
from recloop.rerankers.backbones import BACKBONES, softmax_loss
from recloop.rerankers.config import RerankerConfig
from recloop.rerankers.features import ItemFeatures, item_features, item_texts, tfidf_vectors
from recloop.rerankers.fitted import EpochScore, FittedReranker, name_of, score_tensors
from recloop.rerankers.history import rating_edges
from recloop.rerankers.list_tensors import VectorScaler
from recloop.rerankers.metrics import compute_completion_metrics, user_means
from recloop.rerankers.network import NetworkShape, build_network
from recloop.settings import validate

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int64
    from torch import Tensor

    from recloop.progress import Progress, Step
    from recloop.rerankers.list_tensors import ListTensors
    from recloop.rerankers.network import RerankNetwork
    from recloop.rerankers.protocol import Backbone

STOPPING_METRIC = "ndcg@5"
FINAL_LR_SHARE = 0.1  # lr falls linearly to this share of itself
WEIGHT_DECAY = 0.0
LISTS_PER_USER = 4  # lists of one user in the same step, so that its text is adapted once for them
BATCHES_SORTED = 8  # whose lists are sorted by length; where all have one length the order stays as drawn
MIN_BATCH = 32
MIN_STEPS_PER_PASS = 16
ITEM_VECTOR_WIDTH = 64


@dataclass(frozen=True, slots=True)
class FitData:
    """What a reranker is fitted on: the catalogue, knowledge windows of all users, lists of train and valid users.

    user_vectors: texts of at least those users; None for a reranker without.
    """

    features: ItemFeatures
    histories: Histories
    train: Lists
    valid: Lists
    user_vectors: UserVectors | None


def fit_reranker(
    kind: str | Backbone,
    log: Log,
    lists: CandidateLists,
    vectors: UserVectors | None = None,
    *,
    seed: int = 0,
    progress: Progress | None = None,
    **settings: Any,
) -> FittedReranker:
    """A reranker fitted on train users; of its epochs, the one with the best NDCG@5 of valid users, or the last.

    Args:
        kind: ``dlcm``, ``prm``, ``setrank``, ``mir``, or a class of your own (`recloop.rerankers.protocol.Backbone`).
        log: its items and their attributes are read.
        lists: those of train and valid users are read.
        vectors: encoded texts of at least those users; None for a reranker without texts.
        seed: of weights, order and dropout.
        progress: told how far it is; None for the terminal.
        settings: fields of `recloop.rerankers.config.RerankerConfig`, e.g. ``max_epochs=5``.

    Raises:
        SettingError: an unknown kind or setting.
        LeakageError, TrainingError: see `fit_network`.

    Example:
        >>> import recloop as rl
        >>> log = rl.load_log("simulated", users=60)
        >>> reranker = fit_reranker("prm", log, rl.candidate_lists(log), max_epochs=1)
        >>> len(reranker.curve)
        1
    """
    own = None if isinstance(kind, str) else kind
    config = validate(RerankerConfig, settings if own else {"kind": kind, **settings})
    vectors_ID = tfidf_vectors(item_texts(log), ITEM_VECTOR_WIDTH, seed) if config.use_item_knowledge else None
    features = item_features(log, vectors_ID)
    data = FitData(features, lists.histories, lists.train, lists.valid, vectors)
    return fit_network(config, data, seed, progress or terminal_progress(), own)


def fit_network(
    config: RerankerConfig, data: FitData, seed: int, progress: Progress = SILENT, own: Backbone | None = None
) -> FittedReranker:
    """A reranker fitted on `data`; of its epochs, the one with the best NDCG@5 of valid users (user mean).

    With ``patience=0`` it is the last one. Few valid users tell epochs apart by chance, and texts are learnt late
    (docs/log.md, "The reward model had stopped before it could read").

    With several completions per user one is drawn per user and epoch. On valid users every completion is scored and
    their metrics averaged.

    Args:
        seed: weights, order and dropout; the same seed gives the same weights on one machine.
        own: a backbone of the user's in place of the configured one.

    Raises:
        LeakageError: lists of another group.
        SettingError: item knowledge asked for but absent, or settings that do not fit together.
        TrainingError: nothing to learn from, or a loss that is not finite.
    """
    data.train.require(Group.TRAIN)
    data.valid.require(Group.VALID)
    train, valid = data.train, data.valid
    teaching = train.take(np.flatnonzero(_can_teach(train)))
    if len(teaching) == 0 or not ((valid.labels_BL > 0) & valid.is_item_BL).any():
        raise TrainingError(
            f"a fit needs train lists with both labels and a valid list with a positive, got "
            f"{len(teaching)} of {len(train)} train lists and {len(valid)} valid lists; use more users"
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        start = _unfitted(config, data, own or BACKBONES[config.kind])
        curve = _train(start, replace(data, train=teaching), np.random.default_rng(seed), progress)
    return replace(start, curve=curve)


def _unfitted(config: RerankerConfig, data: FitData, backbone: Backbone) -> FittedReranker:
    """A reranker with fresh weights; scaling is taken from train users and the catalogue."""
    features, user_vectors, item_vectors_ID = data.features, data.user_vectors, None
    if config.use_item_knowledge:
        if features.item_vectors_ID is None:
            raise SettingError("use_item_knowledge needs item vectors, got none; pass them to item_features")
        item_vectors_ID = VectorScaler.fit(features.item_vectors_ID).apply(features.item_vectors_ID)
    scaler = None
    if user_vectors is not None:
        train_rows_U = user_vectors.rows_of(np.unique(data.train.user_B))
        scaler = VectorScaler.fit(user_vectors.vectors_UND[train_rows_U])
    edges = rating_edges(data.histories)
    shape = NetworkShape(
        num_items=features.num_items,
        num_attribute_values=features.num_values,
        attribute_places=tuple(numbers_IM.shape[1] for numbers_IM in features.attribute_values_IM),
        item_vector_width=0 if item_vectors_ID is None else item_vectors_ID.shape[1],
        user_vector_width=0 if scaler is None else len(scaler.centre_D),
        num_rating_buckets=len(edges) + 1,
        max_list_len=int(data.train.is_item_BL.sum(axis=1).max()),
    )
    network = build_network(config, shape, replace(features, item_vectors_ID=item_vectors_ID), backbone)
    return FittedReranker(config, shape, network, data.histories, edges, scaler, ())


def _train(
    reranker: FittedReranker, data: FitData, rng: np.random.Generator, progress: Progress
) -> tuple[EpochScore, ...]:
    """Every epoch of the fit, which trains the network in place until valid users stop gaining."""
    config, network, train = reranker.config, reranker.network, data.train
    train_tensors = reranker.tensors(train, data.user_vectors)
    valid_tensors = reranker.tensors(data.valid, data.user_vectors)
    optimiser = torch.optim.AdamW(network.parameters(), lr=config.lr, weight_decay=WEIGHT_DECAY, fused=True)
    batch, num_passes = _pace(config, len(train))
    steps_per_epoch = num_passes * -(-len(train) // batch)
    schedule = torch.optim.lr_scheduler.LinearLR(optimiser, 1.0, FINAL_LR_SHARE, config.max_epochs * steps_per_epoch)
    average = _average_of(network, config.average_epochs * steps_per_epoch)
    kept = network if average is None else cast("RerankNetwork", average.module)
    curve: list[EpochScore] = []
    best_score, best_epoch, best_weights = -np.inf, 0, kept.state_dict()
    total = config.max_epochs * num_passes * len(train)
    with progress.stage(f"fit {name_of(reranker)}", total, "lists") as step:
        for epoch in range(1, config.max_epochs + 1):
            losses = [
                _pass(reranker, train_tensors, train.user_B, batch, schedule, average, rng, step)
                for _ in range(num_passes)
            ]
            valid_ndcg = _valid_score(score_tensors(kept, valid_tensors), data.valid)
            curve.append(EpochScore(epoch, float(np.mean(losses)), valid_ndcg))
            if valid_ndcg > best_score or not config.patience:
                best_score, best_epoch = valid_ndcg, epoch
                best_weights = copy.deepcopy(kept.state_dict())
            elif epoch - best_epoch >= config.patience:
                break
    network.load_state_dict(best_weights)
    return tuple(curve)


def _pass(
    reranker: FittedReranker,
    lists: ListTensors,
    user_B: Int64[np.ndarray, " B"],
    batch: int,
    schedule: torch.optim.lr_scheduler.LinearLR,
    average: AveragedModel | None,
    rng: np.random.Generator,
    step: Step,
) -> float:
    """The mean loss of one pass over the train lists."""
    network = reranker.network
    order_B = _near_lengths(torch.from_numpy(epoch_order(user_B, LISTS_PER_USER, rng)), lists.is_item_BL, batch)
    completion_U = None
    if lists.texts_UND is not None:
        num_users, num_completions = lists.texts_UND.shape[:2]
        completion_U = torch.from_numpy(rng.integers(num_completions, size=num_users))
    loss_of: Callable[[Tensor, Tensor, Tensor], Tensor] = getattr(network.backbone, "loss", softmax_loss)
    total = 0.0
    network.train()
    for row_B in order_B.split(batch):
        completion_B = None if completion_U is None else completion_U[lists.user_row_B[row_B]]
        scores_BL = network(lists, row_B, completion_B)[:, 0]
        longest = scores_BL.shape[1]
        loss = loss_of(scores_BL, lists.labels_BL[row_B, :longest], lists.is_item_BL[row_B, :longest])
        schedule.optimizer.zero_grad()
        loss.backward()
        schedule.optimizer.step()
        schedule.step()
        if average is not None:
            average.update_parameters(network)
        total += loss.item() * len(row_B)
        if not np.isfinite(total):
            raise TrainingError(
                f"the reranker's training loss must stay finite, got {loss.item()}; lower lr (now {reranker.config.lr})"
            )
        step(len(row_B))
    return total / len(user_B)


def _near_lengths(order_B: Int64[Tensor, " B"], is_item_BL: Bool[Tensor, "B L"], batch: int) -> Int64[Tensor, " B"]:
    """The order with the lists of every few batches sorted by length: a batch costs what its longest list does."""
    length_B = is_item_BL.sum(dim=1)[order_B]
    part_B = torch.arange(len(order_B)) // (BATCHES_SORTED * batch)
    return order_B[torch.sort(part_B * (is_item_BL.shape[1] + 1) + length_B, stable=True).indices]


def _average_of(network: RerankNetwork, num_steps: float) -> AveragedModel | None:
    """An exponential average of the network's weights over about `num_steps` steps; None below two."""
    if num_steps < 2:
        return None
    return AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(1.0 - 1.0 / num_steps))


def _pace(config: RerankerConfig, num_lists: int) -> tuple[int, int]:
    """Lists per step and passes per epoch.

    A small log takes smaller steps and several passes: valid users are asked after a change large enough to show.
    """
    batch = min(config.batch_size, max(MIN_BATCH, num_lists // MIN_STEPS_PER_PASS))
    return batch, -(-config.min_epoch_steps // -(-num_lists // batch))


def epoch_order(
    user_B: Int64[np.ndarray, " B"], lists_per_user: int, rng: np.random.Generator
) -> Int64[np.ndarray, " B"]:
    """A random order of lists in which those of one user come `lists_per_user` at a time, drawn again each time."""
    shuffled_B = rng.permutation(len(user_B))
    by_user_B = shuffled_B[np.argsort(user_B[shuffled_B], kind="stable")]
    users_B = user_B[by_user_B]
    is_first_B = np.append(True, users_B[1:] != users_B[:-1])
    start_B = np.maximum.accumulate(np.where(is_first_B, np.arange(len(users_B)), 0))
    run_B = np.cumsum((np.arange(len(users_B)) - start_B) % lists_per_user == 0) - 1
    place_of_run = rng.permutation(run_B[-1] + 1)
    return by_user_B[np.argsort(place_of_run[run_B], kind="stable")]


def _valid_score(scores_BNL: Float[np.ndarray, "B N L"], valid: Lists) -> float:
    values_B = compute_completion_metrics(STOPPING_METRIC, scores_BNL, valid).mean(axis=1)
    _, means_U = user_means(values_B, valid.user_B, "drop")
    return float(means_U.mean())


def _can_teach(lists: Lists) -> Bool[np.ndarray, " B"]:
    """List losses learn nothing from a list whose items all have the same label."""
    is_positive_BL = (lists.labels_BL > 0) & lists.is_item_BL
    is_negative_BL = lists.is_item_BL & ~is_positive_BL
    return np.any(is_positive_BL, axis=1) & np.any(is_negative_BL, axis=1)
