"""Lists, their users' texts and histories as tensors, ready to be batched."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from recloop.errors import DataError
from recloop.rerankers.history import HistoryTensors, history_tensors

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Float32, Int64
    from torch import Tensor

    from recloop.records import Histories, Lists, UserVectors


@dataclass(frozen=True, slots=True)
class VectorScaler:
    """Centre of the train users' text vectors and one scale for all their components.

    Texts of one template are near-parallel; without this the adaptor sees almost the same vector for all.
    """

    centre_D: Float32[np.ndarray, " D"]
    scale: float

    @classmethod
    def fit(cls, vectors_D: Float32[np.ndarray, "... D"]) -> VectorScaler:
        """Centre to 0 and scale to a mean square of 1."""
        rows_BD = vectors_D.reshape(-1, vectors_D.shape[-1]).astype(np.float64)
        centre_D = rows_BD.mean(axis=0)
        spread = float(np.sqrt(np.mean((rows_BD - centre_D) ** 2)))
        return cls(centre_D.astype(np.float32), 1.0 / max(spread, 1e-6))

    def apply(self, vectors_D: Float32[np.ndarray, "... D"]) -> Float32[np.ndarray, "... D"]:
        """Centred, scaled copies."""
        if vectors_D.shape[-1] != len(self.centre_D):
            raise DataError(
                f"vectors must be {len(self.centre_D)} wide as those the reranker was fitted on, "
                f"got {vectors_D.shape[-1]}; use the same encoder"
            )
        return ((vectors_D - self.centre_D) * np.float32(self.scale)).astype(np.float32)


@dataclass(frozen=True, slots=True)
class ListTensors:
    """Lists (axis B) of some distinct users (axis U).

    texts_UND: scaled text vectors, N completions per user; None for a reranker without text.
    history: windows of the users; None for a reranker without history.
    score_BL: of the first stage, standardised within each list; None for a reranker that does not read them.
    """

    items_BL: Int64[Tensor, "B L"]
    labels_BL: Float[Tensor, "B L"]
    is_item_BL: Bool[Tensor, "B L"]
    user_row_B: Int64[Tensor, " B"]
    texts_UND: Float[Tensor, "U N D"] | None
    history: HistoryTensors | None
    score_BL: Float[Tensor, "B L"] | None = None


def list_tensors(
    lists: Lists,
    num_items: int,
    texts: tuple[UserVectors, VectorScaler] | None,
    history: tuple[Histories, tuple[float, ...]] | None,
    *,
    with_scores: bool = False,
) -> ListTensors:
    """Check lists and gather what belongs to their users.

    Args:
        num_items: how many items the reranker knows.
        texts: vectors of at least these users and the scaler to apply.
        history: windows and the edges of rating buckets.
        with_scores: take the first stage's scores along.

    Raises:
        DataError: an unknown item, a list without items, padding before an item, a user without a text, or wanted
            scores are missing.
    """
    _check_lists(lists, num_items)
    user_U, user_row_B = np.unique(lists.user_B, return_inverse=True)
    texts_UND = None
    if texts is not None:
        vectors, scaler = texts
        texts_UND = torch.from_numpy(scaler.apply(vectors.vectors_UND[vectors.rows_of(user_U)]))
    return ListTensors(
        items_BL=torch.from_numpy(lists.items_BL.astype(np.int64)),
        labels_BL=torch.from_numpy(lists.labels_BL.astype(np.float32)),
        is_item_BL=torch.from_numpy(lists.is_item_BL.copy()),
        user_row_B=torch.from_numpy(user_row_B.astype(np.int64)),
        texts_UND=texts_UND,
        history=None if history is None else history_tensors(history[0], user_U, history[1]),
        score_BL=torch.from_numpy(standardised_scores(lists)) if with_scores else None,
    )


def standardised_scores(lists: Lists) -> Float32[np.ndarray, "B L"]:
    """The first stage's scores with mean 0 and variance 1 in each list; 0 at padding and where all are equal.

    Raises:
        DataError: an item has none.
    """
    score_BL, is_item_BL = lists.score_BL, lists.is_item_BL
    if score_BL is None or np.isnan(score_BL[is_item_BL]).any():
        raise DataError(
            "a reranker with use_scores reads the first stage's scores, got lists without; give impressions a score "
            "for every item, or leave use_scores out"
        )
    score_BL = np.where(is_item_BL, score_BL, 0).astype(np.float64)
    num_B1 = is_item_BL.sum(axis=1, keepdims=True)
    apart_BL = np.where(is_item_BL, score_BL - score_BL.sum(axis=1, keepdims=True) / num_B1, 0)
    spread_B1 = np.sqrt((apart_BL**2).sum(axis=1, keepdims=True) / num_B1)
    return (apart_BL / np.where(spread_B1 > 0, spread_B1, 1)).astype(np.float32)


def _check_lists(lists: Lists, num_items: int) -> None:
    is_item_BL = lists.is_item_BL
    if len(lists) and (lists.items_BL.min() < 0 or lists.items_BL.max() >= num_items):
        raise DataError(
            f"items of lists must be 0 to {num_items - 1}, got {lists.items_BL.min()} to "
            f"{lists.items_BL.max()}; fit the reranker on the catalogue whose lists it scores"
        )
    is_bad_B = ~is_item_BL.any(axis=1) | (is_item_BL[:, 1:] & ~is_item_BL[:, :-1]).any(axis=1)
    if is_bad_B.any():
        raise DataError(
            f"a list must hold items first and padding after, got {int(is_bad_B.sum())} lists that do not "
            f"(first: row {int(is_bad_B.argmax())}); make lists with recloop.candidate_lists"
        )
