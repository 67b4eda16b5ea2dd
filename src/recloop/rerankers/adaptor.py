"""Knowledge adaptors: from an encoded text to the few numbers a reranker takes beside its ID features."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING

import torch
from torch import nn

if TYPE_CHECKING:
    from collections.abc import Mapping

    from jaxtyping import Float
    from torch import Tensor


class Tower(StrEnum):
    """Whose knowledge is adapted."""

    USER = "user"
    ITEM = "item"


class HybridExpertAdaptor(nn.Module):
    """Shared and private experts per tower, mixed by a gate: ``v_t = sum_j softmax(W_t x)_j E_j(x)``.

    Every expert is ``D -> hidden -> width`` with ReLU after both layers; the experts of a group are one
    matrix product. Where one tower's vectors are narrower than the other's, the shared experts read zeros
    in the components that it lacks.

    Source: KAR, arXiv 2306.10933, and its code (no bias in the gate), where both towers have one encoder.
    """

    def __init__(self, dims: Mapping[Tower, int], num_shared: int, num_private: int, hidden: int, width: int) -> None:
        super().__init__()
        self.widest = max(dims.values())
        self.shared = Experts(self.widest, num_shared, hidden, width)
        self.private = nn.ModuleDict({tower: Experts(dim, num_private, hidden, width) for tower, dim in dims.items()})
        self.gate = nn.ModuleDict(
            {tower: nn.Linear(dim, num_shared + num_private, bias=False) for tower, dim in dims.items()}
        )

    def forward(self, x_BD: Float[Tensor, "B D"], tower: Tower) -> Float[Tensor, "B W"]:
        """Adapt vectors of one tower."""
        padded_BD = nn.functional.pad(x_BD, (0, self.widest - x_BD.shape[-1]))
        outputs_BEW = torch.cat([self.shared(padded_BD), self.private[tower](x_BD)], dim=1)
        weights_BE = torch.softmax(self.gate[tower](x_BD), dim=-1)
        return torch.einsum("be,bew->bw", weights_BE, outputs_BEW)


class MlpAdaptor(nn.Module):
    """One ``D -> hidden -> width`` network per tower, ReLU after both layers: what the experts must beat."""

    def __init__(self, dims: Mapping[Tower, int], hidden: int, width: int) -> None:
        super().__init__()
        self.towers = nn.ModuleDict({tower: Experts(dim, 1, hidden, width) for tower, dim in dims.items()})

    def forward(self, x_BD: Float[Tensor, "B D"], tower: Tower) -> Float[Tensor, "B W"]:
        """Adapt vectors of one tower."""
        return self.towers[tower](x_BD).squeeze(1)


class Experts(nn.Module):
    """E two-layer networks of one shape, computed together."""

    def __init__(self, dim: int, num_experts: int, hidden: int, width: int) -> None:
        super().__init__()
        self.enter = nn.Linear(dim, num_experts * hidden)
        leave = [nn.Linear(hidden, width) for _ in range(num_experts)]
        self.weight_EHW = nn.Parameter(torch.stack([layer.weight.detach().T for layer in leave]))
        self.bias_E1W = nn.Parameter(torch.stack([layer.bias.detach()[None] for layer in leave]))

    def forward(self, x_BD: Float[Tensor, "B D"]) -> Float[Tensor, "B E W"]:
        """Every expert's answer to every vector."""
        num_experts = self.weight_EHW.shape[0]
        hidden_BEH = torch.relu(self.enter(x_BD)).unflatten(-1, (num_experts, -1))
        out_EBW = torch.baddbmm(self.bias_E1W, hidden_BEH.transpose(0, 1), self.weight_EHW)
        return torch.relu(out_EBW).transpose(0, 1)
