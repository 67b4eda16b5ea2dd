"""One request at a time: a user and some candidates in, one score each out, for a service."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from recloop.errors import DataError, SettingError
from recloop.records import Group, Lists

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from jaxtyping import Float32
    from torch import Tensor

    from recloop.records import UserVectors
    from recloop.rerankers.fitted import FittedReranker
    from recloop.rerankers.network import RerankNetwork


@dataclass(frozen=True, slots=True)
class RequestScorer:
    """A fitted reranker with its items and users computed; made by `prepare_requests`.

    items_IW, adapted_IA: rows of `RerankNetwork.item_table` for the whole catalogue.
    texts_UA: each user's adapted text; histories: tokens and mask, ``[U, H, E]`` and ``[U, H]``.
    row_of: each user's row in them.
    """

    network: RerankNetwork
    items_IW: Tensor
    adapted_IA: Tensor | None
    texts_UA: Tensor | None
    histories: tuple[Tensor, Tensor] | None
    row_of: Mapping[int, int]

    def score(self, user: int, items: Sequence[int] | np.ndarray) -> Float32[np.ndarray, " L"]:
        """Scores of some items for one user, in their order, which the network may read; higher is better.

        Raises:
            DataError: a user or an item that was not prepared, or no item.
        """
        row = self.row_of.get(user)
        if row is None:
            raise DataError(f"user {user} must be prepared, got {len(self.row_of)} others; prepare this one too")
        asked_L = torch.as_tensor(np.asarray(items, dtype=np.int64))
        if not len(asked_L) or int(asked_L.min()) < 0 or int(asked_L.max()) >= len(self.items_IW):
            known = f"0 to {len(self.items_IW) - 1}"
            raise DataError(f"candidates must be items from {known}, got {asked_L.tolist()}; leave out others")
        with torch.inference_mode():
            history = None
            if self.histories is not None:
                history = self.histories[0][row : row + 1], self.histories[1][row : row + 1]
            adapted = None if self.adapted_IA is None else self.adapted_IA[asked_L][None]
            x_1LW = self.network.candidates(self.items_IW[asked_L][None], adapted, history)
            texts = None if self.texts_UA is None else self.texts_UA[row][None, None]
            is_item_1L = torch.ones(1, len(asked_L), dtype=torch.bool)
            return self.network.score_inputs(x_1LW, texts, is_item_1L, history)[0, 0].numpy()


def prepare_requests(fitted: FittedReranker, users: np.ndarray, user_vectors: UserVectors | None) -> RequestScorer:
    """A scorer that has computed what no candidate changes: the catalogue, and the users' texts and histories.

    A service should call ``torch.set_num_threads(1)``: a request is too small to be shared among threads.

    Args:
        users: numbers of the users to prepare.
        user_vectors: their texts, of which the first completion counts; None for a reranker fitted without.

    Raises:
        ContractError, DataError: see `FittedReranker.score`.
    """
    if fitted.config.use_scores:
        raise SettingError(
            "a request brings candidates without first-stage scores, got a reranker with use_scores; use one without"
        )
    network = fitted.network.eval()
    users = np.unique(users)
    # A list of one item for each user: the form in which a network takes texts and histories.
    nothing_U1 = np.zeros((len(users), 1), np.int64)
    one_each = Lists(Group.TEST, users, nothing_U1, nothing_U1.astype(np.float32), nothing_U1 == 0)
    tensors = fitted.tensors(one_each, user_vectors)
    row_U = torch.arange(len(users))
    with torch.inference_mode():
        texts_UNA = network.adapted_texts(tensors, row_U, torch.zeros(len(users), dtype=torch.int64))
        return RequestScorer(
            network,
            *network.item_table(torch.arange(fitted.shape.num_items)),
            None if texts_UNA is None else texts_UNA[:, 0],
            network.history_tokens(tensors, row_U),
            {int(user): row for row, user in enumerate(users)},
        )
