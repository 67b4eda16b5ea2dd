"""The one input of a reranker's network: some lists, and what is known of their items and users."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

if TYPE_CHECKING:
    from jaxtyping import Bool, Float
    from torch import Tensor, nn


@dataclass(frozen=True, slots=True)
class BatchShape:
    """Sizes of the batches that a network will see.

    width: W, columns of `ListBatch.features`.
    token_width: E, columns of `ListBatch.history`.
    max_list_len: the longest list of the fit.
    """

    width: int
    token_width: int
    max_list_len: int


@dataclass(frozen=True, slots=True)
class ListBatch:
    """``B`` lists, each under ``N`` completions of its user: ``X = B N`` rows, those of one list side by side.

    A network reads `features`, `is_item_XL` and perhaps `history`, and gives scores ``[X, L]``. Those at padding
    mean nothing. `linear` is a faster ``layer(batch.features())``: what does not depend on the completion is
    multiplied once.

    item_BLW: item features; with the user's text beside them where `text_BNA` is None.
    is_item_BL: True at items, False at padding, which trails.
    text_BNA: adapted user texts.
    match_BNLA: product of each text with each item.
    history_BHE, is_token_BH: history tokens from old to new, at least one a user; None where no network reads them.
    """

    item_BLW: Float[Tensor, "B L W"]
    is_item_BL: Bool[Tensor, "B L"]
    text_BNA: Float[Tensor, "B N A"] | None = None
    match_BNLA: Float[Tensor, "B N L A"] | None = None
    history_BHE: Float[Tensor, "B H E"] | None = None
    is_token_BH: Bool[Tensor, "B H"] | None = None

    @property
    def num_completions(self) -> int:
        """N."""
        return 1 if self.text_BNA is None else self.text_BNA.shape[1]

    @property
    def list_len(self) -> int:
        """L."""
        return self.item_BLW.shape[1]

    @property
    def width(self) -> int:
        """W, columns of `features`."""
        parts = (self.item_BLW, self.text_BNA, self.match_BNLA)
        return sum(part.shape[-1] for part in parts if part is not None)

    @property
    def is_item_XL(self) -> Bool[Tensor, "X L"]:
        """The mask of items, one row per list and completion."""
        return self._each(self.is_item_BL)

    def features(self) -> Float[Tensor, "X L W"]:
        """What is known of every candidate: ``[item ; text ; match]``."""
        if self.text_BNA is None:
            return self.item_BLW
        items_BNLW = self.item_BLW[:, None].expand(-1, self.num_completions, -1, -1)
        texts_BNLA = self.text_BNA[:, :, None].expand(-1, -1, self.list_len, -1)
        matched = [] if self.match_BNLA is None else [self.match_BNLA]
        return torch.cat([items_BNLW, texts_BNLA, *matched], dim=-1).flatten(0, 1)

    def history(self) -> tuple[Float[Tensor, "X H E"], Bool[Tensor, "X H"]]:
        """History tokens and their mask. Only for networks whose class says ``reads_history = True``."""
        assert self.history_BHE is not None
        assert self.is_token_BH is not None
        return self._each(self.history_BHE), self._each(self.is_token_BH)

    def linear(self, layer: nn.Linear) -> Float[Tensor, "X L H"]:
        """`features` through a linear layer."""
        return self.times(layer.weight, layer.bias)

    def times(self, weight_HW: Tensor, bias_H: Tensor | None) -> Float[Tensor, "X L H"]:
        """`features` times a weight, plus a bias."""
        if self.text_BNA is None:
            return F.linear(self.item_BLW, weight_HW, bias_H)
        num_items, num_texts = self.item_BLW.shape[-1], self.text_BNA.shape[-1]
        item_HW, text_HA = weight_HW[:, :num_items], weight_HW[:, num_items : num_items + num_texts]
        item_B1LH = F.linear(self.item_BLW, item_HW, bias_H)[:, None]
        out_PH = (item_B1LH + F.linear(self.text_BNA, text_HA)[:, :, None]).flatten(0, 2)
        if self.match_BNLA is not None:
            out_PH.addmm_(self.match_BNLA.flatten(0, 2), weight_HW[:, num_items + num_texts :].T)
        return out_PH.view(-1, self.list_len, weight_HW.shape[0])

    def _each(self, part_B: Tensor) -> Tensor:
        """A row for each completion."""
        return part_B if self.num_completions == 1 else part_B.repeat_interleave(self.num_completions, dim=0)
