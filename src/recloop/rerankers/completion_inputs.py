"""What a backbone is given when lists are scored under all completions of their users."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor, nn


@dataclass(frozen=True, slots=True)
class CompletionInputs:
    """Candidate inputs ``[item ; text ; match]`` in their parts, for ``B`` lists under ``N`` completions each.

    A layer's product with the items is the same under every completion, that with a text at every place; only what
    matches the two has to be multiplied once for each.

    item_BLW: what no completion changes.
    text_BNA: adapted texts.
    match_BNLA: texts matched with items; None for a network without.
    """

    item_BLW: Float[Tensor, "B L W"]
    text_BNA: Float[Tensor, "B N A"]
    match_BNLA: Float[Tensor, "B N L A"] | None

    @property
    def width(self) -> int:
        """Columns side by side."""
        texts = self.text_BNA.shape[-1]
        return self.item_BLW.shape[-1] + texts + (texts if self.match_BNLA is not None else 0)

    @property
    def num_places(self) -> int:
        """Items in a list."""
        return self.item_BLW.shape[1]

    def times(self, weight_HW: Tensor, bias_H: Tensor | None) -> Float[Tensor, "X L H"]:
        """The inputs through a linear layer, ``X = B N`` lists."""
        num_items, num_texts = self.item_BLW.shape[-1], self.text_BNA.shape[-1]
        item_HW, text_HA = weight_HW[:, :num_items], weight_HW[:, num_items : num_items + num_texts]
        item_B1LH = F.linear(self.item_BLW, item_HW, bias_H)[:, None]
        out_PH = (item_B1LH + F.linear(self.text_BNA, text_HA)[:, :, None]).flatten(0, 2)
        if self.match_BNLA is not None:
            out_PH.addmm_(self.match_BNLA.flatten(0, 2), weight_HW[:, num_items + num_texts :].T)
        return out_PH.view(-1, self.num_places, weight_HW.shape[0])

    def dense(self) -> Float[Tensor, "X L W"]:
        """All columns side by side, as layers want them that do not come in parts."""
        num_completions = self.text_BNA.shape[1]
        texts_BNLA = self.text_BNA[:, :, None].expand(-1, -1, self.num_places, -1)
        items_BNLW = self.item_BLW[:, None].expand(-1, num_completions, -1, -1)
        matched = [] if self.match_BNLA is None else [self.match_BNLA]
        return torch.cat([items_BNLW, texts_BNLA, *matched], dim=-1).flatten(0, 1)


def through(layer: nn.Linear, x_BLW: Tensor | CompletionInputs) -> Tensor:
    """A linear layer on inputs that are side by side or in parts."""
    return x_BLW.times(layer.weight, layer.bias) if isinstance(x_BLW, CompletionInputs) else layer(x_BLW)


def width_of(x_BLW: Tensor | CompletionInputs) -> int:
    """Columns of the inputs."""
    return x_BLW.width if isinstance(x_BLW, CompletionInputs) else x_BLW.shape[-1]


def side_by_side(x_BLW: Tensor | CompletionInputs) -> Tensor:
    """The inputs as one tensor."""
    return x_BLW.dense() if isinstance(x_BLW, CompletionInputs) else x_BLW
