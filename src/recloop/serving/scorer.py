"""Lists scored as they come: what does not depend on a request is computed once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from recloop.errors import ContractError
from recloop.records import Histories
from recloop.rerankers.adaptor import Tower
from recloop.rerankers.history import history_tensors
from recloop.rerankers.network import rows_of

if TYPE_CHECKING:
    from jaxtyping import Float, Float32, Int64
    from torch import Tensor

    from recloop.rerankers.fitted import FittedReranker


@dataclass(frozen=True, slots=True)
class ListQuery:
    """One list to be scored.

    items_L: item numbers.
    adapted_A: the text, as `ListScorer.adapt` gives it.
    history: the user's items, oldest first, and their ratings, NaN where unknown.
    """

    items_L: Int64[np.ndarray, " L"]
    adapted_A: Float[Tensor, " A"]
    history: tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True, slots=True)
class ListScorer:
    """A fitted reranker with its table of items computed.

    A text is adapted once, by `adapt`, however many lists it scores: with the table that is two fifths of the time of
    `FittedReranker.score`, whose scores these are.
    """

    fitted: FittedReranker
    table: tuple[Float[Tensor, "I W"], Float[Tensor, "I A"] | None]

    @classmethod
    def of(cls, fitted: FittedReranker) -> ListScorer:
        """ContractError for a reranker that reads no texts, or a first stage's scores, which requests do not have."""
        if fitted.scaler is None or fitted.network.adaptor is None:
            raise ContractError("the service ranks by texts, got a reranker fitted without; serve a run with texts")
        if fitted.config.use_scores:
            raise ContractError(
                "the service has no first stage's scores, got a reranker that reads them; make a run without "
                "reranker.use_scores"
            )
        fitted.network.eval()
        with torch.inference_mode():
            return cls(fitted, fitted.network.item_table(torch.arange(fitted.shape.num_items)))

    def adapt(self, vector_D: Float32[np.ndarray, " D"]) -> Float[Tensor, " A"]:
        """A text's vector as the reranker reads it."""
        scaler, adaptor = self.fitted.scaler, self.fitted.network.adaptor
        assert scaler is not None
        assert adaptor is not None
        with torch.inference_mode():
            return adaptor(torch.from_numpy(scaler.apply(vector_D))[None], Tower.USER)[0]

    def score(self, queries: Sequence[ListQuery]) -> list[Float32[np.ndarray, " L"]]:
        """Every list's scores, in one forward pass; higher is better."""
        network, (items_IW, adapted_IA) = self.fitted.network, self.table
        lengths = [len(query.items_L) for query in queries]
        items_BL = np.zeros((len(queries), max(lengths)), dtype=np.int64)
        is_item_BL = np.zeros(items_BL.shape, dtype=bool)
        for row, (query, length) in enumerate(zip(queries, lengths, strict=True)):
            items_BL[row, :length], is_item_BL[row, :length] = query.items_L, True
        with torch.inference_mode():
            row_BL = torch.from_numpy(items_BL)
            history = self._history(queries)
            adapted_BLA = None if adapted_IA is None else rows_of(adapted_IA, row_BL)
            x_BLW = network.candidates(rows_of(items_IW, row_BL), adapted_BLA, history)
            texts_B1A = torch.stack([query.adapted_A for query in queries])[:, None]
            scores_BL = network.score_inputs(x_BLW, texts_B1A, torch.from_numpy(is_item_BL), history)[:, 0].numpy()
        return [scores_BL[row, :length] for row, length in enumerate(lengths)]

    def _history(self, queries: Sequence[ListQuery]) -> tuple[Tensor, Tensor] | None:
        """Tokens of each query's history and their mask, where the network reads them."""
        tokens = self.fitted.network.tokens
        if tokens is None:
            return None
        parts = [query.history for query in queries]
        offsets_U1 = np.cumsum([0, *(len(items) for items, _ in parts)])
        items, rating = (np.concatenate([part[side] for part in parts]) for side in (0, 1))
        read = history_tensors(Histories(offsets_U1, items, rating), np.arange(len(parts)), self.fitted.rating_edges)
        return tokens(rows_of(self.table[0], read.items_UH), read.rating_UH, read.is_real_UH)
