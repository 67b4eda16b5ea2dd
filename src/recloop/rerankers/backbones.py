"""Four reranker backbones (a `ListBatch` in, one score per candidate out), the table of their names, their losses.

A loss takes scores, labels and the mask of items, ``[B, L]`` each, and is a mean over lists, of which each has a
positive. Padding is ignored.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import nn

from recloop.errors import SettingError
from recloop.rerankers.config import HEADS

if TYPE_CHECKING:
    from jaxtyping import Bool, Float
    from torch import Tensor

    from recloop.rerankers.config import RerankerConfig, RerankerKind
    from recloop.rerankers.list_batch import BatchShape, ListBatch
    from recloop.rerankers.protocol import Backbone


class Mlp(nn.Module):
    """Hidden layers with ReLU and dropout, then one number."""

    def __init__(self, width: int, hidden: tuple[int, ...], dropout: float) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for before, after in zip((width, *hidden), hidden, strict=False):
            layers += [nn.Linear(before, after), nn.ReLU(inplace=True), nn.Dropout(dropout)]
        self.layers = nn.Sequential(*layers, nn.Linear(hidden[-1], 1))

    def forward(self, batch: ListBatch, *before_XLW: Float[Tensor, "X L _"]) -> Float[Tensor, "X L"]:
        """One score per item, from `before_XLW` and the batch's features side by side.

        The first layer multiplies part by part and adds up. Writing the parts side by side first took a tenth of
        the time of scoring.
        """
        first = self.layers[0]
        assert isinstance(first, nn.Linear)
        *before, own = first.weight.split([*(part.shape[-1] for part in before_XLW), batch.width], dim=1)
        rest = list(zip(before_XLW, before, strict=True))
        if batch.text_BNA is not None:
            hidden_XLH = batch.times(own, first.bias)
        else:
            (begin_XLW, weight), *rest = [*rest, (batch.item_BLW, own)]
            hidden_XLH = F.linear(begin_XLW, weight, first.bias)
        hidden_PH = hidden_XLH.flatten(0, 1)
        for part_XLW, weight in rest:
            hidden_PH.addmm_(part_XLW.flatten(0, 1), weight.T)
        return self.layers[1:](hidden_PH).view(hidden_XLH.shape[:2])


class AttentionBlock(nn.Module):
    """Self-attention over the items of a list and a position-wise network, each added to its input."""

    def __init__(self, width: int) -> None:
        super().__init__()
        if width % HEADS:
            raise SettingError(f"attention must be a multiple of {HEADS}, got {width}; use e.g. {width + 1}")
        self.query_key_value = nn.Linear(width, 3 * width)
        self.leave = nn.Linear(width, width)
        self.feed = nn.Sequential(nn.Linear(width, 2 * width), nn.ReLU(inplace=True), nn.Linear(2 * width, width))
        self.norm_attention = nn.LayerNorm(width)
        self.norm_feed = nn.LayerNorm(width)

    def forward(self, x_BLW: Float[Tensor, "B L W"], is_item_BL: Bool[Tensor, "B L"]) -> Float[Tensor, "B L W"]:
        """The list, each item having seen all."""
        query, key, value = (
            part.unflatten(-1, (HEADS, -1)).transpose(1, 2) for part in self.query_key_value(x_BLW).chunk(3, dim=-1)
        )
        mask = None if is_item_BL.all() else is_item_BL[:, None, None]  # without one it is faster, to the same bits
        seen = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        x_BLW = self.norm_attention(x_BLW + self.leave(seen.transpose(1, 2).flatten(2)))
        return self.norm_feed(x_BLW + self.feed(x_BLW))


class Dlcm(nn.Module):
    """A GRU reads the list from its end to its head; its final state gates each item's output.

    Source: Ai et al. 2018, arXiv 1804.05936. Ours scores ``[gated output ; input]`` with the MLP that all
    backbones share. The paper has one inner product, which refines a first-stage score that lists here lack.
    """

    def __init__(self, shape: BatchShape, config: RerankerConfig) -> None:
        super().__init__()
        self.gru = nn.GRU(shape.width, config.gru, batch_first=True)
        self.gate = nn.Linear(config.gru, config.gru)
        self.score = Mlp(shape.width + config.gru, config.mlp, config.dropout)

    def forward(self, batch: ListBatch) -> Float[Tensor, "X L"]:
        """One score per item."""
        is_item_XL = batch.is_item_XL
        backwards_XL = _reversed_places(is_item_XL)
        out_XLG, _ = self.gru(_take_places(batch.features(), backwards_XL))
        final_XG = _take_places(out_XLG, is_item_XL.sum(dim=1, keepdim=True) - 1).squeeze(1)
        gated_XLG = _take_places(out_XLG, backwards_XL) * torch.tanh(self.gate(final_XG))[:, None]
        return self.score(batch, gated_XLG)


class Prm(nn.Module):
    """Self-attention with learned positions, then an MLP on ``[attended ; input]``.

    Beyond the longest list of the fit every place has its last position.

    Source: Pei et al. 2019, arXiv 1904.06813; the MLP's input as in KAR's code.
    """

    def __init__(self, shape: BatchShape, config: RerankerConfig) -> None:
        super().__init__()
        self.enter = nn.Linear(shape.width, config.attention)
        self.position_L = nn.Embedding(shape.max_list_len, config.attention)
        nn.init.normal_(self.position_L.weight, std=0.02)
        self.block = AttentionBlock(config.attention)
        self.score = Mlp(shape.width + config.attention, config.mlp, config.dropout)

    def forward(self, batch: ListBatch) -> Float[Tensor, "X L"]:
        """One score per item."""
        place_L = torch.arange(batch.list_len).clamp(max=self.position_L.num_embeddings - 1)
        entered_XLA = batch.linear(self.enter) + self.position_L.weight[place_L]
        return self.score(batch, self.block(entered_XLA, batch.is_item_XL))


def softmax_loss(scores_BL: Tensor, labels_BL: Tensor, is_item_BL: Tensor) -> Tensor:
    """Cross entropy of the list's softmax against its positives, each weighing the same.

    The negative of `metrics.list_log_likelihood`.
    """
    logp_BL = _log_softmax(scores_BL, is_item_BL)
    return -(_target(labels_BL, is_item_BL) * logp_BL).sum(dim=1).mean()


def attention_rank_loss(scores_BL: Tensor, labels_BL: Tensor, is_item_BL: Tensor) -> Tensor:
    """Cross entropy, item by item, between the attention that labels give and that scores give.

    Source: Ai et al. 2018 (DLCM); used by SetRank. The labels' attention is ``exp(y)`` where y > 0, else 0,
    normalised; with labels 0 and 1 that is an equal share for each positive.
    """
    logp_BL = _log_softmax(scores_BL, is_item_BL)
    target_BL = _target(labels_BL, is_item_BL)
    log_rest_BL = torch.log1p(-logp_BL.exp().clamp(max=1 - 1e-6))
    return -(target_BL * logp_BL + (1 - target_BL) * log_rest_BL.where(is_item_BL, 0)).sum(dim=1).mean()


def _log_softmax(scores_BL: Tensor, is_item_BL: Tensor) -> Tensor:
    """Log-probabilities; 0 at padding, where nothing may weigh them."""
    logp_BL = torch.log_softmax(scores_BL.where(is_item_BL, -torch.inf), dim=1)
    return logp_BL.where(is_item_BL, 0)


def _target(labels_BL: Tensor, is_item_BL: Tensor) -> Tensor:
    positive_BL = ((labels_BL > 0) & is_item_BL).to(labels_BL.dtype)
    return positive_BL / positive_BL.sum(dim=1, keepdim=True)


class SetRank(nn.Module):
    """Two self-attention blocks without positions: reordering a list reorders its scores, nothing else.

    Source: Pang et al. 2020, arXiv 1912.05891. Plain attention blocks: lists here are too short for the induced
    ones to be faster.
    """

    loss = staticmethod(attention_rank_loss)

    def __init__(self, shape: BatchShape, config: RerankerConfig) -> None:
        super().__init__()
        self.enter = nn.Linear(shape.width, config.attention)
        self.blocks = nn.ModuleList([AttentionBlock(config.attention) for _ in range(2)])
        self.score = Mlp(shape.width + config.attention, config.mlp, config.dropout)

    def forward(self, batch: ListBatch) -> Float[Tensor, "X L"]:
        """One score per item."""
        attended_XLA, is_item_XL = batch.linear(self.enter), batch.is_item_XL
        for block in self.blocks:
            attended_XLA = block(attended_XLA, is_item_XL)
        return self.score(batch, attended_XLA)


class Mir(nn.Module):
    """Candidates as a set, history as a sequence, and attention between the two in both directions.

    Source: Xi et al. 2022, arXiv 2204.09370: self-attention within the set, a recurrent net within the
    history, affinities that fade with age. Ours reads the history once instead of per feature field.
    """

    reads_history = True

    def __init__(self, shape: BatchShape, config: RerankerConfig) -> None:
        super().__init__()
        self.enter = nn.Linear(shape.width, config.attention)
        self.block = AttentionBlock(config.attention)
        self.gru = nn.GRU(shape.token_width, config.gru, batch_first=True)
        self.affinity = nn.Linear(config.gru, config.attention, bias=False)
        self.fading = nn.Parameter(torch.zeros(()))
        self.score = Mlp(shape.width + config.attention + 2 * config.gru, config.mlp, config.dropout)

    def forward(self, batch: ListBatch) -> Float[Tensor, "X L"]:
        """One score per item."""
        is_item_XL, (tokens_XHE, is_token_XH) = batch.is_item_XL, batch.history()
        set_XLA = self.block(batch.linear(self.enter), is_item_XL)
        history_XHG, _ = self.gru(tokens_XHE)
        place_H = torch.arange(is_token_XH.shape[1], device=is_item_XL.device)
        age_XH = (is_token_XH.sum(dim=1, keepdim=True) - 1 - place_H) / 10
        affinity_XLH = set_XLA @ self.affinity(history_XHG).transpose(1, 2) / set_XLA.shape[-1] ** 0.5
        affinity_XLH = affinity_XLH - F.softplus(self.fading) * age_XH[:, None]
        affinity_XLH = affinity_XLH.masked_fill(~is_token_XH[:, None], -torch.inf)
        read_XLG = torch.softmax(affinity_XLH, dim=2) @ history_XHG
        closest_XH = affinity_XLH.masked_fill(~is_item_XL[:, :, None], -torch.inf).amax(dim=1)
        summary_X1G = torch.softmax(closest_XH, dim=1)[:, None] @ history_XHG
        return self.score(batch, set_XLA, read_XLG, summary_X1G.expand(-1, is_item_XL.shape[1], -1))


BACKBONES: dict[RerankerKind, Backbone] = {"dlcm": Dlcm, "prm": Prm, "setrank": SetRank, "mir": Mir}


def _reversed_places(is_item_BL: Tensor) -> Tensor:
    """Places that turn the items of each list around and leave padding where it is; its own inverse."""
    place_L = torch.arange(is_item_BL.shape[1], device=is_item_BL.device)
    return torch.where(is_item_BL, is_item_BL.sum(dim=1, keepdim=True) - 1 - place_L, place_L)


def _take_places(x_BLW: Tensor, place_BK: Tensor) -> Tensor:
    return x_BLW.gather(1, place_BK[:, :, None].expand(-1, -1, x_BLW.shape[-1]))
