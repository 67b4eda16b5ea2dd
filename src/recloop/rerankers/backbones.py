"""Four reranker backbones: the candidates of a list in, one score each out.

Every backbone takes the candidate inputs ``[B, L, W]``, or their parts when lists are scored under all
completions, and the mask of items (padding trails), and gives scores ``[B, L]``; those at padding mean nothing.
MIR reads the history tokens too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import nn

from recloop.errors import SettingError
from recloop.rerankers.completion_inputs import CompletionInputs, side_by_side, through, width_of

if TYPE_CHECKING:
    from jaxtyping import Bool, Float
    from torch import Tensor

    from recloop.rerankers.config import RerankerConfig


class Mlp(nn.Module):
    """Hidden layers with ReLU and dropout, then one number."""

    def __init__(self, width: int, hidden: tuple[int, ...], dropout: float) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for before, after in zip((width, *hidden), hidden, strict=False):
            layers += [nn.Linear(before, after), nn.ReLU(inplace=True), nn.Dropout(dropout)]
        self.layers = nn.Sequential(*layers, nn.Linear(hidden[-1], 1))

    def forward(
        self, x_BLW: Float[Tensor, "B L W"] | CompletionInputs, *before_BLW: Float[Tensor, "B L _"]
    ) -> Float[Tensor, "B L"]:
        """One score per item, from all its parts side by side: what comes before the inputs, then these.

        The first layer multiplies part by part and adds up: writing them side by side first took a tenth of
        the time of scoring.
        """
        first = self.layers[0]
        assert isinstance(first, nn.Linear)
        *before, own = first.weight.split([*(part.shape[-1] for part in before_BLW), width_of(x_BLW)], dim=1)
        rest = list(zip(before_BLW, before, strict=True))
        if isinstance(x_BLW, CompletionInputs):
            hidden_BLH = x_BLW.times(own, first.bias)
        else:
            (begin_BLW, weight), *rest = [*rest, (x_BLW, own)]
            hidden_BLH = F.linear(begin_BLW, weight, first.bias)
        hidden_PH = hidden_BLH.flatten(0, 1)
        for part_BLW, weight in rest:
            hidden_PH.addmm_(part_BLW.flatten(0, 1), weight.T)
        return self.layers[1:](hidden_PH).view(hidden_BLH.shape[:2])


class AttentionBlock(nn.Module):
    """Self-attention over the items of a list and a position-wise network, each added to its input."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        if width % heads:
            raise SettingError(
                f"attention width must be a multiple of heads, got {width} and {heads}; "
                f"use e.g. {heads * max(1, width // heads)}"
            )
        self.heads = heads
        self.query_key_value = nn.Linear(width, 3 * width)
        self.leave = nn.Linear(width, width)
        self.feed = nn.Sequential(nn.Linear(width, 2 * width), nn.ReLU(inplace=True), nn.Linear(2 * width, width))
        self.norm_attention = nn.LayerNorm(width)
        self.norm_feed = nn.LayerNorm(width)

    def forward(self, x_BLW: Float[Tensor, "B L W"], is_item_BL: Bool[Tensor, "B L"]) -> Float[Tensor, "B L W"]:
        """The list, each item having seen all."""
        query, key, value = (
            part.unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for part in self.query_key_value(x_BLW).chunk(3, dim=-1)
        )
        seen = F.scaled_dot_product_attention(query, key, value, attn_mask=is_item_BL[:, None, None])
        x_BLW = self.norm_attention(x_BLW + self.leave(seen.transpose(1, 2).flatten(2)))
        return self.norm_feed(x_BLW + self.feed(x_BLW))


class Dlcm(nn.Module):
    """A GRU reads the list from its end to its head; the final state gates what each item is worth.

    Source: Ai et al. 2018, arXiv 1804.05936. Ours scores ``[gated output ; input]`` with the MLP all
    backbones share, where the paper has one inner product, since there is no first-stage score to refine.
    """

    def __init__(self, width: int, config: RerankerConfig) -> None:
        super().__init__()
        self.gru = nn.GRU(width, config.gru, batch_first=True)
        self.gate = nn.Linear(config.gru, config.gru)
        self.score = Mlp(width + config.gru, config.mlp, config.dropout)

    def forward(
        self, x_BLW: Float[Tensor, "B L W"] | CompletionInputs, is_item_BL: Bool[Tensor, "B L"]
    ) -> Float[Tensor, "B L"]:
        """One score per item."""
        backwards_BL = _reversed_places(is_item_BL)
        out_BLG, _ = self.gru(_take_places(side_by_side(x_BLW), backwards_BL))
        final_BG = _take_places(out_BLG, is_item_BL.sum(dim=1, keepdim=True) - 1).squeeze(1)
        gated_BLG = _take_places(out_BLG, backwards_BL) * torch.tanh(self.gate(final_BG))[:, None]
        return self.score(x_BLW, gated_BLG)


class Prm(nn.Module):
    """Self-attention with learned positions, then an MLP on ``[attended ; input]``.

    Source: Pei et al. 2019, arXiv 1904.06813; the MLP's input as in KAR's code.
    """

    def __init__(self, width: int, max_list_len: int, config: RerankerConfig) -> None:
        super().__init__()
        self.enter = nn.Linear(width, config.attention)
        self.position_L = nn.Embedding(max_list_len, config.attention)
        nn.init.normal_(self.position_L.weight, std=0.02)
        self.block = AttentionBlock(config.attention, config.heads)
        self.score = Mlp(width + config.attention, config.mlp, config.dropout)

    def forward(
        self, x_BLW: Float[Tensor, "B L W"] | CompletionInputs, is_item_BL: Bool[Tensor, "B L"]
    ) -> Float[Tensor, "B L"]:
        """One score per item."""
        list_len, longest = is_item_BL.shape[1], self.position_L.num_embeddings
        if list_len > longest:
            raise SettingError(
                f"PRM has positions for lists of at most {longest} items, got {list_len}; "
                f"fit it on lists as long as those it scores, or use setrank"
            )
        attended_BLA = self.block(through(self.enter, x_BLW) + self.position_L.weight[:list_len], is_item_BL)
        return self.score(x_BLW, attended_BLA)


class SetRank(nn.Module):
    """Two self-attention blocks without positions: reordering a list reorders its scores, nothing else.

    Source: Pang et al. 2020, arXiv 1912.05891 (the plain attention blocks; lists here are too short for
    the induced ones to pay).
    """

    def __init__(self, width: int, config: RerankerConfig) -> None:
        super().__init__()
        self.enter = nn.Linear(width, config.attention)
        self.blocks = nn.ModuleList([AttentionBlock(config.attention, config.heads) for _ in range(2)])
        self.score = Mlp(width + config.attention, config.mlp, config.dropout)

    def forward(
        self, x_BLW: Float[Tensor, "B L W"] | CompletionInputs, is_item_BL: Bool[Tensor, "B L"]
    ) -> Float[Tensor, "B L"]:
        """One score per item."""
        attended_BLA = through(self.enter, x_BLW)
        for block in self.blocks:
            attended_BLA = block(attended_BLA, is_item_BL)
        return self.score(x_BLW, attended_BLA)


class Mir(nn.Module):
    """Candidates as a set, history as a sequence, and attention between the two in both directions.

    Source: Xi et al. 2022, arXiv 2204.09370: self-attention within the set, a recurrent net within the
    history, affinities that fade with age. Ours reads the history once instead of per feature field.
    """

    def __init__(self, width: int, token_width: int, config: RerankerConfig) -> None:
        super().__init__()
        self.enter = nn.Linear(width, config.attention)
        self.block = AttentionBlock(config.attention, config.heads)
        self.gru = nn.GRU(token_width, config.gru, batch_first=True)
        self.affinity = nn.Linear(config.gru, config.attention, bias=False)
        self.fading = nn.Parameter(torch.zeros(()))
        self.score = Mlp(width + config.attention + 2 * config.gru, config.mlp, config.dropout)

    def forward(
        self,
        x_BLW: Float[Tensor, "B L W"] | CompletionInputs,
        is_item_BL: Bool[Tensor, "B L"],
        tokens_BHE: Float[Tensor, "B H E"],
        is_token_BH: Bool[Tensor, "B H"],
    ) -> Float[Tensor, "B L"]:
        """One score per item. Tokens run from old to new; every user has at least one."""
        set_BLA = self.block(through(self.enter, x_BLW), is_item_BL)
        history_BHG, _ = self.gru(tokens_BHE)
        place_H = torch.arange(is_token_BH.shape[1], device=is_item_BL.device)
        age_BH = (is_token_BH.sum(dim=1, keepdim=True) - 1 - place_H) / 10
        affinity_BLH = set_BLA @ self.affinity(history_BHG).transpose(1, 2) / set_BLA.shape[-1] ** 0.5
        affinity_BLH = affinity_BLH - F.softplus(self.fading) * age_BH[:, None]
        affinity_BLH = affinity_BLH.masked_fill(~is_token_BH[:, None], -torch.inf)
        read_BLG = torch.softmax(affinity_BLH, dim=2) @ history_BHG
        closest_BH = affinity_BLH.masked_fill(~is_item_BL[:, :, None], -torch.inf).amax(dim=1)
        summary_B1G = torch.softmax(closest_BH, dim=1)[:, None] @ history_BHG
        return self.score(x_BLW, set_BLA, read_BLG, summary_B1G.expand(-1, is_item_BL.shape[1], -1))


def _reversed_places(is_item_BL: Tensor) -> Tensor:
    """Places that turn the items of each list around and leave padding where it is; its own inverse."""
    place_L = torch.arange(is_item_BL.shape[1], device=is_item_BL.device)
    return torch.where(is_item_BL, is_item_BL.sum(dim=1, keepdim=True) - 1 - place_L, place_L)


def _take_places(x_BLW: Tensor, place_BK: Tensor) -> Tensor:
    return x_BLW.gather(1, place_BK[:, :, None].expand(-1, -1, x_BLW.shape[-1]))
