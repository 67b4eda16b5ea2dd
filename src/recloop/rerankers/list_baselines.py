"""Rankings without training: as shown, by the first stage, by popularity, by item-kNN. Each is a `Reranker`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import scipy.sparse as sp

from recloop.errors import DataError
from recloop.records import Group, Histories, Lists, UserVectors

if TYPE_CHECKING:
    from jaxtyping import Float32, Float64


@dataclass(frozen=True, slots=True)
class AsShown:
    """The order in which users were shown a list: the baseline that a reranker has to beat."""

    def score(self, lists: Lists, user_vectors: UserVectors | None = None) -> Float32[np.ndarray, "B 1 L"]:  # noqa: ARG002
        """Higher is nearer to the head; DataError where positions are not known."""
        if lists.position_BL is None or np.isnan(lists.position_BL[lists.is_item_BL]).any():
            raise DataError(
                "lists must say where each item was shown, got some that do not; give impressions a position"
            )
        return _only_items(-lists.position_BL, lists)


@dataclass(frozen=True, slots=True)
class FirstStage:
    """The first stage's own scores."""

    def score(self, lists: Lists, user_vectors: UserVectors | None = None) -> Float32[np.ndarray, "B 1 L"]:  # noqa: ARG002
        """The scores; DataError where they are not known."""
        if lists.score_BL is None or np.isnan(lists.score_BL[lists.is_item_BL]).any():
            raise DataError("lists must have the first stage's scores, got some without; give impressions a score")
        return _only_items(lists.score_BL, lists)


@dataclass(frozen=True, slots=True)
class Popularity:
    """How often train users chose an item: in their histories, and as a positive of their lists."""

    counts_I: Float64[np.ndarray, " I"]

    @classmethod
    def fit(cls, num_items: int, histories: Histories, train: Lists) -> Popularity:
        """Counts over train users."""
        return cls(np.asarray(_chosen(num_items, histories, train).sum(axis=0)).ravel())

    def score(self, lists: Lists, user_vectors: UserVectors | None = None) -> Float32[np.ndarray, "B 1 L"]:  # noqa: ARG002
        """The counts of the candidates."""
        return _only_items(self.counts_I[lists.items_BL], lists)


@dataclass(frozen=True, slots=True)
class ItemKnn:
    """The sum of cosines between a candidate and the items of its user's history, over train users.

    Source: Sarwar et al. 2001.
    """

    unit_UI: sp.csc_array
    histories: Histories

    @classmethod
    def fit(cls, num_items: int, histories: Histories, train: Lists) -> ItemKnn:
        """Items as columns of train users, scaled to length 1."""
        chosen_UI = _chosen(num_items, histories, train)
        chosen_UI.data[:] = 1.0
        norms_I = np.sqrt(np.asarray(chosen_UI.sum(axis=0)).ravel())
        return cls(sp.csc_array(chosen_UI @ sp.diags_array(1 / np.maximum(norms_I, 1))), histories)

    def score(self, lists: Lists, user_vectors: UserVectors | None = None) -> Float32[np.ndarray, "B 1 L"]:  # noqa: ARG002
        """The sums; 0 for a user without history."""
        scores_BL = np.zeros(lists.items_BL.shape)
        for user in np.unique(lists.user_B):
            rows = np.flatnonzero(lists.user_B == user)
            liked_U = self.unit_UI[:, self.histories.of(int(user))[0]].sum(axis=1)
            items_I = np.unique(lists.items_BL[rows])
            scores_I = self.unit_UI[:, items_I].T @ np.asarray(liked_U).ravel()
            scores_BL[rows] = scores_I[np.searchsorted(items_I, lists.items_BL[rows])]
        return _only_items(scores_BL, lists)


def _chosen(num_items: int, histories: Histories, train: Lists) -> sp.csr_array:
    """How often each train user chose each item; labels of other groups are not read."""
    train.require(Group.TRAIN)
    user_U = np.unique(train.user_B)
    of_history = [histories.of(int(user))[0] for user in user_U]
    rows, columns = np.nonzero((train.labels_BL > 0) & train.is_item_BL)
    user_n = np.concatenate([np.repeat(np.arange(len(user_U)), [len(items) for items in of_history]),
                             np.searchsorted(user_U, train.user_B[rows])])  # fmt: skip
    item_n = np.concatenate([*of_history, train.items_BL[rows, columns]])
    return sp.csr_array((np.ones(len(user_n)), (user_n, item_n)), shape=(len(user_U), num_items))


def _only_items(scores_BL: np.ndarray, lists: Lists) -> Float32[np.ndarray, "B 1 L"]:
    return np.where(lists.is_item_BL, scores_BL, -np.inf).astype(np.float32)[:, None]
