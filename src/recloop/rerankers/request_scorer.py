"""Lists of requests scored as they come, for a service: what does not depend on a request is computed once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from recloop.errors import ContractError, DataError, SettingError
from recloop.records import Histories
from recloop.rerankers.adaptor import Tower
from recloop.rerankers.history import history_tensors
from recloop.rerankers.network import rows_of

if TYPE_CHECKING:
    from jaxtyping import Float, Float32, Int64
    from torch import Tensor

    from recloop.rerankers.fitted import FittedReranker


@dataclass(frozen=True, slots=True)
class ListRequest:
    """One list to be scored.

    items_L: item numbers, in the order that the network may read.
    adapted_A: the text, as `RequestScorer.adapt` gives it; None for a reranker without texts.
    history: the user's items, oldest first, and their ratings, NaN where unknown.
    """

    items_L: Int64[np.ndarray, " L"]
    adapted_A: Float[Tensor, " A"] | None
    history: tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True, slots=True)
class RequestScorer:
    """A fitted reranker with its table of items computed; made by `prepare_requests`.

    table: `RerankNetwork.item_table` of the whole catalogue.
    """

    fitted: FittedReranker
    table: tuple[Float[Tensor, "I W"], Float[Tensor, "I A"] | None]

    def adapt(self, vector_D: Float32[np.ndarray, " D"]) -> Float[Tensor, " A"]:
        """A text's vector as the network reads it: computed once, however many lists it is for.

        Raises:
            ContractError: the reranker was fitted without texts.
            DataError: a vector of another width.
        """
        scaler, adaptor = self.fitted.scaler, self.fitted.network.adaptor
        if scaler is None or adaptor is None:
            raise ContractError("this reranker was fitted without user vectors, got one; leave texts out")
        with torch.inference_mode():
            return adaptor(torch.from_numpy(scaler.apply(vector_D))[None], Tower.USER)[0]

    def score(self, requests: Sequence[ListRequest]) -> list[Float32[np.ndarray, " L"]]:
        """Every list's scores, in one forward pass; higher is better.

        Raises:
            ContractError: a text is missing, or one is given to a reranker without.
            DataError: an unknown item, or a list of none.
        """
        network, (items_IW, adapted_IA) = self.fitted.network, self.table
        texts = [one.adapted_A for one in requests if one.adapted_A is not None]
        if len(texts) != (len(requests) if network.has_texts else 0):
            raise ContractError(f"{'every' if network.has_texts else 'no'} request needs a text, got {len(texts)}")
        lengths = [len(one.items_L) for one in requests]
        items_BL = np.zeros((len(requests), max(lengths)), dtype=np.int64)
        is_item_BL = np.zeros(items_BL.shape, dtype=bool)
        for row, (one, length) in enumerate(zip(requests, lengths, strict=True)):
            items_BL[row, :length], is_item_BL[row, :length] = one.items_L, True
        if min(lengths) == 0 or items_BL.min() < 0 or items_BL.max() >= len(items_IW):
            raise DataError(
                f"candidates must be items from 0 to {len(items_IW) - 1}, got others or none; leave these out"
            )
        with torch.inference_mode():
            row_BL = torch.from_numpy(items_BL)
            history = self._history(requests)
            adapted_BLA = None if adapted_IA is None else rows_of(adapted_IA, row_BL)
            x_BLW = network.candidates(rows_of(items_IW, row_BL), adapted_BLA, history)
            texts_B1A = torch.stack(texts)[:, None] if texts else None
            scores_BL = network.score_inputs(x_BLW, texts_B1A, torch.from_numpy(is_item_BL), history)[:, 0].numpy()
        return [scores_BL[row, :length] for row, length in enumerate(lengths)]

    def _history(self, requests: Sequence[ListRequest]) -> tuple[Tensor, Tensor] | None:
        """Tokens of each request's history and their mask, where the network reads them."""
        tokens = self.fitted.network.tokens
        if tokens is None:
            return None
        parts = [one.history for one in requests]
        offsets_U1 = np.cumsum([0, *(len(items) for items, _ in parts)])
        items, rating = (np.concatenate([part[side] for part in parts]) for side in (0, 1))
        read = history_tensors(Histories(offsets_U1, items, rating), np.arange(len(parts)), self.fitted.rating_edges)
        return tokens(rows_of(self.table[0], read.items_UH), read.rating_UH, read.is_real_UH)


def prepare_requests(fitted: FittedReranker) -> RequestScorer:
    """A scorer that has computed the catalogue.

    A service should call ``torch.set_num_threads(1)``: a request is too small to be shared among threads.

    Raises:
        SettingError: the reranker reads a first stage's scores.
    """
    if fitted.config.use_scores:
        raise SettingError(
            "a request brings candidates without first-stage scores, got a reranker with use_scores; use one without"
        )
    fitted.network.eval()
    with torch.inference_mode():
        return RequestScorer(fitted, fitted.network.item_table(torch.arange(fitted.shape.num_items)))
