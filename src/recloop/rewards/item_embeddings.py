"""LightGCN item embeddings from the user-item graph of the train users: what PAS compares items by.

Source: LightGCN (arXiv 2002.02126), by torch_geometric; ReRec (arXiv 2604.07851). Each train user's latest
positive item is held out, and how often it is among the best K tells how good the embeddings are, beside
item neighbours fitted on the same edges.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from recloop.data.first_stage import fit_knn
from recloop.errors import DataError, TrainingError, needs_extra
from recloop.progress import SILENT, Progress
from recloop.records import Log

if TYPE_CHECKING:
    from jaxtyping import Float32, Int64

# As common for LightGCN, like the defaults of `LightGCNFit`; nobody changed them.
BATCH_SIZE = 4096  # edges of one step, a negative drawn for each
PENALTY = 1e-4  # weight of the squared embeddings of a batch
RECALL_K = 20
USERS_AT_ONCE = 1_000


@dataclass(frozen=True, slots=True)
class LightGCNFit:
    """How LightGCN is fitted: width of an embedding, layers of propagation, passes over the edges, Adam's step size."""

    width: int = 32
    layers: int = 2
    epochs: int = 40
    lr: float = 0.01


@dataclass(frozen=True, slots=True)
class ItemEmbeddings:
    """Embeddings after propagation; an item without edges has a zero vector.

    recall, knn_recall: share of held-out items among the K best of LightGCN and of item neighbours.
    num_held_out: items that the recalls are over, one per user.
    """

    vectors_ID: Float32[np.ndarray, "I D"]
    recall: float
    knn_recall: float
    num_held_out: int
    k: int


def fit_item_embeddings(
    dataset: Log,
    train_users: Int64[np.ndarray, " U"],
    seed: int,
    progress: Progress = SILENT,
    fit: LightGCNFit = LightGCNFit(),
) -> ItemEmbeddings:
    """Fit LightGCN on the positive interactions of the train users, and on nobody else's.

    Raises:
        DataError: the train users have too few positives.
        TrainingError: the loss is not finite.
    """
    from scipy.sparse import csr_matrix

    user_E, item_E, held_U = _edges(dataset, train_users)
    num_users = len(train_users)
    if len(user_E) < 2:
        raise DataError(
            f"item embeddings need two positive interactions of train users, got {len(user_E)}; "
            f"use more users or pas_weight=0"
        )
    user_vectors, item_vectors = _fit(user_E, item_E, num_users, dataset.num_items, fit, seed, progress)
    met_UI: Any = csr_matrix((np.ones(len(user_E), np.float32), (user_E, item_E)), (num_users, dataset.num_items))
    score_knn = fit_knn(met_UI)
    k = min(RECALL_K, dataset.num_items)
    recall = _recall(lambda users: user_vectors[users] @ item_vectors.T, met_UI, held_U, k)
    knn_recall = _recall(lambda users: score_knn(met_UI[users]), met_UI, held_U, k)
    item_vectors[np.bincount(item_E, minlength=dataset.num_items) == 0] = 0.0
    return ItemEmbeddings(item_vectors, recall, knn_recall, int((held_U >= 0).sum()), k)


def _recall(score: Callable[[np.ndarray], np.ndarray], met_UI: Any, held_U: np.ndarray, k: int) -> float:
    """Share of the held-out items among the K best by `score`, of the items that their users did not meet."""
    tested_U = np.flatnonzero(held_U >= 0)
    num_hits = 0
    for first in range(0, len(tested_U), USERS_AT_ONCE):
        users = tested_U[first : first + USERS_AT_ONCE]
        scores_UI = score(users)
        scores_UI[met_UI[users].nonzero()] = -np.inf
        best_UK = np.argpartition(-scores_UI, k - 1, axis=1)[:, :k]
        num_hits += int((best_UK == held_U[users, None]).any(axis=1).sum())
    return num_hits / max(len(tested_U), 1)


def _edges(dataset: Log, train_users: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Users (by place in `train_users`) and items of the edges; each user's held-out item, -1 for none."""
    log = dataset.interactions
    if dataset.positive_from_rating is not None:
        log = log.filter(log["rating"] >= dataset.positive_from_rating)
    log = log.unique(["user", "item"], keep="first", maintain_order=True)  # an item met twice is one edge
    place_of = np.full(dataset.num_users, -1, dtype=np.int64)
    place_of[train_users] = np.arange(len(train_users))
    user_E, item_E = place_of[log["user"].to_numpy()], log["item"].to_numpy()
    user_E, item_E = user_E[user_E >= 0], item_E[user_E >= 0]
    num_E = np.bincount(user_E, minlength=len(train_users))
    is_last_E = np.r_[user_E[1:] != user_E[:-1], np.ones(min(1, len(user_E)), bool)]  # sorted by user, time
    is_held_E = is_last_E & (num_E[user_E] >= 2)
    held_U = np.full(len(train_users), -1, dtype=np.int64)
    held_U[user_E[is_held_E]] = item_E[is_held_E]
    is_kept_E = ~is_held_E & (item_E != held_U[user_E])  # an item met twice is not held out half
    return user_E[is_kept_E], item_E[is_kept_E], held_U


def _fit(
    user_E: np.ndarray,
    item_E: np.ndarray,
    num_users: int,
    num_items: int,
    fit: LightGCNFit,
    seed: int,
    progress: Progress,
) -> tuple[np.ndarray, np.ndarray]:
    """Embeddings of users and items after propagation."""
    import torch

    with needs_extra("rerec"):
        from torch_geometric.nn.models import LightGCN

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model: Any = LightGCN(num_users + num_items, fit.width, fit.layers)
    users = torch.from_numpy(user_E)
    items = torch.from_numpy(item_E) + num_users
    edges = torch.stack([torch.cat([users, items]), torch.cat([items, users])])
    optimizer = torch.optim.Adam(model.parameters(), lr=fit.lr)
    rng = np.random.default_rng([seed, 0x6C])
    with progress.stage("fit item embeddings", total=fit.epochs, unit="epochs") as step:
        for _ in range(fit.epochs):
            order = rng.permutation(len(user_E))
            for first in range(0, len(order), BATCH_SIZE):
                batch = torch.from_numpy(order[first : first + BATCH_SIZE])
                wrong = torch.from_numpy(rng.integers(num_users, num_users + num_items, len(batch)))
                vectors = model.get_embedding(edges)
                named = users[batch], items[batch], wrong
                # The gradient of index_select is summed in one order by any number of threads.
                of_user, right, of_wrong = (vectors.index_select(0, nodes) for nodes in named)
                margin = (of_user * (right - of_wrong)).sum(dim=1)
                touched = torch.cat(named)
                size = model.embedding.weight.index_select(0, touched).pow(2).sum() / len(batch)
                loss = -torch.nn.functional.logsigmoid(margin).mean() + PENALTY * size
                if not torch.isfinite(loss):
                    raise TrainingError(f"the loss of item embeddings must stay finite, got {loss}; lower lr")
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
            step()
    with torch.no_grad():
        vectors = model.get_embedding(edges).numpy().astype(np.float32)
    return vectors[:num_users], vectors[num_users:].copy()
