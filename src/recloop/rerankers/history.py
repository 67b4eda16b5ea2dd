"""The knowledge window as IDs: its items and ratings, and candidates that attend to them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from recloop.rerankers.config import HEADS

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int64
    from torch import Tensor

    from recloop.records import Histories

MAX_RATING_BUCKETS = 10


@dataclass(frozen=True, slots=True)
class HistoryTensors:
    """Histories of some users as one padded table, oldest first; padding trails.

    rating_UH: bucket numbers from 1; 0 where there is no rating.
    """

    items_UH: Int64[Tensor, "U H"]
    rating_UH: Int64[Tensor, "U H"]
    is_real_UH: Bool[Tensor, "U H"]


def rating_edges(histories: Histories) -> tuple[float, ...]:
    """Where rating buckets end: between the distinct ratings, or at their deciles when there are many.

    Returns:
        Ascending edges, one fewer than there are buckets; none for an implicit log.
    """
    rating = histories.rating[~np.isnan(histories.rating)].astype(np.float64)
    levels = np.unique(rating)
    if len(levels) > MAX_RATING_BUCKETS:
        return tuple(np.unique(np.quantile(rating, np.arange(1, MAX_RATING_BUCKETS) / MAX_RATING_BUCKETS)))
    return tuple((levels[:-1] + levels[1:]) / 2)


def history_tensors(histories: Histories, user_U: Int64[np.ndarray, " U"], edges: tuple[float, ...]) -> HistoryTensors:
    """The windows of these users, ratings put into the buckets between `edges`."""
    start_U = histories.offsets_U1[user_U]
    length_U = histories.offsets_U1[user_U + 1] - start_U
    place_H = np.arange(max(int(length_U.max(initial=0)), 1))
    is_real_UH = place_H < length_U[:, None]
    row_UH = np.where(is_real_UH, start_U[:, None] + place_H, 0)
    if len(histories.items) == 0:
        items_UH, rating_UH = np.zeros_like(row_UH), np.full(row_UH.shape, np.nan)
    else:
        items_UH, rating_UH = histories.items[row_UH], histories.rating[row_UH]
    bucket_UH = np.where(np.isnan(rating_UH), 0, 1 + np.searchsorted(np.asarray(edges), rating_UH))
    return HistoryTensors(
        items_UH=torch.from_numpy(np.where(is_real_UH, items_UH, 0)),
        rating_UH=torch.from_numpy(np.where(is_real_UH, bucket_UH, 0)),
        is_real_UH=torch.from_numpy(is_real_UH),
    )


class HistoryTokens(nn.Module):
    """One token per item of the window: what the item is, and how it was rated.

    A learned token stands before the window, so that a user without history has something to attend to.
    """

    def __init__(self, item_width: int, num_rating_buckets: int, width: int) -> None:
        super().__init__()
        self.enter = nn.Linear(item_width, width)
        self.rating_shift = nn.Embedding(num_rating_buckets + 1, width)
        self.rating_scale = nn.Embedding(num_rating_buckets + 1, width)
        self.first = nn.Parameter(torch.zeros(width))
        nn.init.normal_(self.rating_shift.weight, std=0.1)
        nn.init.normal_(self.rating_scale.weight, std=0.1)

    def forward(
        self,
        items_UHW: Float[Tensor, "U H W"],
        rating_UH: Int64[Tensor, "U H"],
        is_real_UH: Bool[Tensor, "U H"],
    ) -> tuple[Float[Tensor, "U H1 E"], Bool[Tensor, "U H1"]]:
        """Tokens and their mask, the learned token first."""
        item_UHE = self.enter(items_UHW)
        tokens_UHE = item_UHE * (1 + self.rating_scale(rating_UH)) + self.rating_shift(rating_UH)
        first_U1E = self.first.expand(len(tokens_UHE), 1, -1)
        return torch.cat([first_U1E, tokens_UHE], dim=1), F.pad(is_real_UH, (1, 0), value=True)


class HistoryAttention(nn.Module):
    """Each candidate reads the window through attention: which of what the user rated is like it."""

    def __init__(self, item_width: int, token_width: int) -> None:
        super().__init__()
        self.query = nn.Linear(item_width, token_width)
        self.key_value = nn.Linear(token_width, 2 * token_width)

    def forward(
        self,
        items_BLW: Float[Tensor, "B L W"],
        tokens_BHE: Float[Tensor, "B H E"],
        is_token_BH: Bool[Tensor, "B H"],
    ) -> Float[Tensor, "B L E"]:
        """What every candidate reads."""
        query, key, value = (
            part.unflatten(-1, (HEADS, -1)).transpose(1, 2)
            for part in (self.query(items_BLW), *self.key_value(tokens_BHE).chunk(2, dim=-1))
        )
        read = F.scaled_dot_product_attention(query, key, value, attn_mask=is_token_BH[:, None, None])
        return read.transpose(1, 2).flatten(2)
