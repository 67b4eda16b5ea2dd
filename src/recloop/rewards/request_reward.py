"""The reward of an answer to a request: rank, item-attribute graph, item embeddings, form; each logged by itself.

Source: ReRec (arXiv 2604.07851). Deviations: PAS, missing from the released code, is included; an answer that names
no candidate gets 0 in NDCG, QAS and PAS.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from pydantic import BaseModel

from recloop.data.item_graph import ItemGraph
from recloop.prompts.request_answer import Answer
from recloop.records import Request
from recloop.settings import setting

if TYPE_CHECKING:
    from jaxtyping import Float32

RIGHT_FORM, WRONG_FORM = 0.5, -0.5


class AnswerRewardConfig(BaseModel, frozen=True, extra="forbid"):
    """The weight of each term of the reward. A weight of 0 takes its term out."""

    k: int = setting(1, "cut-off of NDCG; 1 rewards only the first item", ge=1)
    qas_weight: float = setting(0.01, "w1: shared attributes with the right item", ge=0)
    pas_weight: float = setting(0.01, "w2: cosine of item embeddings", ge=0)
    format_weight: float = setting(0.1, "w_f: of the format's +0.5 or -0.5", ge=0)


@dataclass(frozen=True, slots=True)
class RewardTerms:
    """One answer's terms, before weights. ndcg, qas: 0 to 1; pas: -1 to 1; format: 0.5 or -0.5."""

    ndcg: float
    qas: float
    pas: float
    format: float

    def total(self, config: AnswerRewardConfig) -> float:
        """The reward r."""
        return self.ndcg + self.alignment(config) + config.format_weight * self.format

    def alignment(self, config: AnswerRewardConfig) -> float:
        """What QAS and PAS add to the reward."""
        return config.qas_weight * self.qas + config.pas_weight * self.pas


def reward_answer(
    answer: Answer,
    request: Request,
    graph: ItemGraph,
    vectors_ID: Float32[np.ndarray, "I D"],
    config: AnswerRewardConfig,
) -> RewardTerms:
    """The terms of one answer, by the item embeddings `vectors_ID` among others."""
    right = request.candidates.index(request.answer)
    form = RIGHT_FORM if answer.is_well_formed else WRONG_FORM
    if answer.first is None:
        return RewardTerms(0.0, 0.0, 0.0, form)
    chosen = request.candidates[answer.first]
    qas = query_alignment(graph, chosen, request.answer)
    pas = preference_alignment(vectors_ID, chosen, request.answer)
    return RewardTerms(ndcg_of(answer.ranked, right, config.k), qas, pas, form)


def ndcg_of(ranked: tuple[int, ...], right: int, k: int) -> float:
    """NDCG@K with one right item: ``1 / log2(rank + 1)`` within the cut-off, 0 beyond it."""
    if right not in ranked[:k]:
        return 0.0
    return 1.0 / math.log2(ranked.index(right) + 2)


def query_alignment(graph: ItemGraph, chosen: int, right: int) -> float:
    """QAS: the share of the right item's attributes that the chosen item has; 0 where it has none."""
    wanted = graph.attributes(right)
    return len(graph.attributes(chosen) & wanted) / len(wanted) if wanted else 0.0


def preference_alignment(vectors_ID: Float32[np.ndarray, "I D"], chosen: int, right: int) -> float:
    """PAS: the cosine of two items' embeddings; 0 where one is a zero vector, of an item nobody met."""
    one, other = (vectors_ID[item].astype(np.float64) for item in (chosen, right))
    lengths = float(np.linalg.norm(one) * np.linalg.norm(other))
    return float(np.clip(one @ other / lengths, -1.0, 1.0)) if lengths > 0 else 0.0
