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
    """

    items_BL: Int64[Tensor, "B L"]
    labels_BL: Float[Tensor, "B L"]
    is_item_BL: Bool[Tensor, "B L"]
    user_row_B: Int64[Tensor, " B"]
    texts_UND: Float[Tensor, "U N D"] | None
    history: HistoryTensors | None


def list_tensors(
    lists: Lists,
    num_items: int,
    texts: tuple[UserVectors, VectorScaler] | None,
    history: tuple[Histories, tuple[float, ...]] | None,
) -> ListTensors:
    """Check lists and gather what belongs to their users.

    Args:
        num_items: how many items the reranker knows.
        texts: vectors of at least these users and the scaler to apply.
        history: windows and the edges of rating buckets.

    Raises:
        DataError: an unknown item, a list without items, padding before an item, a user without a text.
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
    )


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
