"""Padded batches of lessons, and a model's loss on one."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from scripts.pretrain_lm.shards import TokenLesson

if TYPE_CHECKING:
    import torch
    from transformers import LlamaForCausalLM


@dataclass(frozen=True, slots=True)
class Batch:
    """Padded lessons as tensors.

    Axes: B lessons, T tokens, S supervised pairs of the batch, R those of them with a choice, K allowed tokens.
    """

    ids_BT: torch.Tensor
    position_BT: torch.Tensor
    mask_B1TT: torch.Tensor  # 0 where a token may read, -inf where not
    source_S: torch.Tensor  # index into the flattened (B T)
    target_S: torch.Tensor
    with_choice_R: torch.Tensor  # index into S
    allowed_RK: torch.Tensor  # tokens; rows are padded with their first one
    is_allowed_RK: torch.Tensor  # False where padded


def collate(lessons: list[TokenLesson]) -> Batch:
    """A batch of lessons padded to a common length, with the mask of what each token may read."""
    import torch

    length = -(-max(len(lesson.ids_T) for lesson in lessons) // 32) * 32
    shape = (len(lessons), length)
    ids, position, parent = (np.zeros(shape, np.int64) for _ in range(3))
    segment = np.full(shape, -1, np.int64)
    source, target, allowed, sizes = [], [], [], []
    for row, lesson in enumerate(lessons):
        size = len(lesson.ids_T)
        ids[row, :size], position[row, :size] = lesson.ids_T, lesson.position_T
        segment[row, :size], parent[row, :size] = lesson.segment_T, lesson.parent_T
        source.append(lesson.source_S + row * length)
        target.append(lesson.target_S)
        allowed.append(lesson.allowed_A)
        sizes.append(lesson.num_allowed_S)
    seg, par = torch.from_numpy(segment), torch.from_numpy(parent)
    reads_trunk_or_self = (seg[:, None, :] == 0) | (seg[:, None, :] == seg[:, :, None])
    reads_question = seg[:, None, :] == par[:, :, None]
    causal = torch.ones(length, length, dtype=torch.bool).tril()
    may_read = (reads_trunk_or_self | reads_question) & causal
    return Batch(
        torch.from_numpy(ids),
        torch.from_numpy(position),
        torch.zeros(len(lessons), 1, length, length).masked_fill_(~may_read[:, None], -torch.inf),
        torch.from_numpy(np.concatenate(source)).long(),
        torch.from_numpy(np.concatenate(target)).long(),
        *_choices(np.concatenate(allowed), np.concatenate(sizes)),
    )


def _choices(allowed_A: np.ndarray, num_allowed_S: np.ndarray) -> tuple[torch.Tensor, ...]:
    import torch

    with_choice = np.flatnonzero(num_allowed_S)
    size_R = num_allowed_S[with_choice]
    first_R = np.cumsum(size_R) - size_R
    column_K = np.arange(size_R.max(initial=1))
    is_allowed_RK = column_K < size_R[:, None]
    allowed_RK = allowed_A[first_R[:, None] + np.where(is_allowed_RK, column_K, 0)]
    return (
        torch.from_numpy(with_choice),
        torch.from_numpy(allowed_RK).long(),
        torch.from_numpy(is_allowed_RK),
    )


def lesson_loss(
    model: LlamaForCausalLM, batch: Batch, negatives: torch.Tensor | None, drawn_weight: float = 1.0
) -> torch.Tensor:
    """Mean loss of the supervised pairs, in nats; the output layer runs only on these.

    Where only the target is right, the loss is its cross entropy. Where there is a choice, it is minus the logarithm
    of the probability of all allowed tokens together, plus `drawn_weight` times the cross entropy of the drawn one.

    Args:
        negatives: random tokens beside those of the batch, which cost a fraction of a whole softmax. They represent
            all tokens absent from the batch. The logarithm of how many each represents is added to its logit, so
            that the sum over the vocabulary is right on average (Jean et al., arXiv 1412.2007). None: a softmax
            over the whole vocabulary.
    """
    import torch

    hidden_BTD = model.model(
        input_ids=batch.ids_BT,
        position_ids=batch.position_BT,
        attention_mask=batch.mask_B1TT,
        use_cache=False,
    ).last_hidden_state
    hidden_SD = hidden_BTD.flatten(0, 1).index_select(0, batch.source_S)
    target_S, allowed_RK = batch.target_S, batch.allowed_RK
    if negatives is None:
        logits_SV = model.lm_head(hidden_SD)
    else:
        present = torch.unique(torch.cat([batch.ids_BT.flatten(), allowed_RK.flatten()]))
        absent = negatives[~torch.isin(negatives, present)].unique()
        competing = torch.cat([present, absent])
        logits_SV = hidden_SD @ model.lm_head.weight.index_select(0, competing).T
        represented = (model.config.vocab_size - len(present)) / max(1, len(absent))
        logits_SV[:, len(present) :] += math.log(represented)
        target_S, allowed_RK = (torch.searchsorted(present, tokens) for tokens in (target_S, allowed_RK))
    log_sum_S = logits_SV.logsumexp(1)
    loss_S = log_sum_S - logits_SV.gather(1, target_S[:, None])[:, 0]
    at = batch.with_choice_R
    logit_RK = logits_SV[at[:, None], allowed_RK].masked_fill(~batch.is_allowed_RK, -torch.inf)
    loss_R = log_sum_S.index_select(0, at) - logit_RK.logsumexp(1)
    weight_S = torch.ones_like(loss_S).index_fill(0, at, drawn_weight)
    return (loss_S @ weight_S + loss_R.sum()) / len(loss_S)
