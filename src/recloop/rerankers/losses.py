"""Training losses of rerankers: scores and labels of a batch of lists in, one number out.

Every loss is a mean over lists. Padding is ignored.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from jaxtyping import Bool, Float
    from torch import Tensor


def softmax_loss(
    scores_BL: Float[Tensor, "B L"], labels_BL: Float[Tensor, "B L"], is_item_BL: Bool[Tensor, "B L"]
) -> Float[Tensor, ""]:
    """Cross entropy of the list's softmax against its positives, each weighing the same.

    The negative of `metrics.list_log_likelihood`. Every list needs a positive.
    """
    logp_BL = _log_softmax(scores_BL, is_item_BL)
    return -(_target(labels_BL, is_item_BL) * logp_BL).sum(dim=1).mean()


def attention_rank_loss(
    scores_BL: Float[Tensor, "B L"], labels_BL: Float[Tensor, "B L"], is_item_BL: Bool[Tensor, "B L"]
) -> Float[Tensor, ""]:
    """Cross entropy, item by item, between the attention that labels give and that scores give.

    Every list needs a positive.

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
