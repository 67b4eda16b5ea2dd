"""Lessons as padded batches, and the loss of a model on one."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from recloop.language.embedded.shards import TokenLesson

if TYPE_CHECKING:
    import torch
    from transformers import LlamaForCausalLM


@dataclass(frozen=True, slots=True)
class Batch:
    """Padded lessons as tensors. Axes: B lessons, T tokens, S supervised pairs of the whole batch."""

    ids_BT: torch.Tensor
    position_BT: torch.Tensor
    mask_B1TT: torch.Tensor  # 0 where a token may read, -inf where not
    source_S: torch.Tensor  # index into the flattened (B T)
    target_S: torch.Tensor


def collate(lessons: list[TokenLesson]) -> Batch:
    """Pad lessons to a common length and build the mask of what each token may read."""
    import torch

    length = -(-max(len(lesson.ids_T) for lesson in lessons) // 32) * 32
    shape = (len(lessons), length)
    ids, position, parent = (np.zeros(shape, np.int64) for _ in range(3))
    segment = np.full(shape, -1, np.int64)
    source, target = [], []
    for row, lesson in enumerate(lessons):
        size = len(lesson.ids_T)
        ids[row, :size], position[row, :size] = lesson.ids_T, lesson.position_T
        segment[row, :size], parent[row, :size] = lesson.segment_T, lesson.parent_T
        source.append(lesson.source_S + row * length)
        target.append(lesson.target_S)
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
    )


def lesson_loss(model: LlamaForCausalLM, batch: Batch, rivals: torch.Tensor | None) -> torch.Tensor:
    """Mean cross entropy of the supervised pairs, in nats; the output layer runs on those alone.

    Args:
        rivals: tokens drawn at random that compete beside those of the batch, which costs a fraction. They
            stand for all tokens absent from the batch: the logarithm of how many each stands for is added to
            its logit, so that the sum over the vocabulary is right on average (Jean et al., arXiv
            1412.2007). None: the whole vocabulary competes.
    """
    import torch

    hidden_BTD = model.model(
        input_ids=batch.ids_BT,
        position_ids=batch.position_BT,
        attention_mask=batch.mask_B1TT,
        use_cache=False,
    ).last_hidden_state
    hidden_SD = hidden_BTD.flatten(0, 1).index_select(0, batch.source_S)
    if rivals is None:
        return torch.nn.functional.cross_entropy(model.lm_head(hidden_SD), batch.target_S)
    present = torch.unique(batch.ids_BT)
    absent = rivals[~torch.isin(rivals, present)].unique()
    competing = torch.cat([present, absent])
    logits_SV = hidden_SD @ model.lm_head.weight.index_select(0, competing).T
    each_stands_for = (model.config.vocab_size - len(present)) / max(1, len(absent))
    logits_SV[:, len(present) :] += math.log(each_stands_for)
    return torch.nn.functional.cross_entropy(logits_SV, torch.searchsorted(present, batch.target_S))
