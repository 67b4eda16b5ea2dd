"""The reward of an answer to a request: rank, item-attribute graph, item embeddings, form; each logged by itself.

Source: ReRec (arXiv 2604.07851). Deviations: PAS, missing from the released code, is included; an answer that names
no candidate gets 0 in NDCG, QAS and PAS.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from recloop.data.item_graph import ItemGraph
from recloop.errors import DataError
from recloop.prompts.request_answer import Answer, read_answer
from recloop.records import Prompt, Request

if TYPE_CHECKING:
    from jaxtyping import Float32, Float64

RIGHT_FORM, WRONG_FORM = 0.5, -0.5


class AnswerRewardConfig(BaseModel):
    """The weight of each term of the reward. A weight of 0 takes its term out."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    k: int = Field(default=1, ge=1, description="cut-off of NDCG; 1 rewards only the first item")
    qas_weight: float = Field(default=0.01, ge=0, description="w1: shared attributes with the right item")
    pas_weight: float = Field(default=0.01, ge=0, description="w2: cosine of item embeddings")
    format_weight: float = Field(default=0.1, ge=0, description="w_f: of the format's +0.5 or -0.5")


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
    """The terms of one answer.

    Args:
        vectors_ID: item embeddings; a zero vector (an item nobody met) has cosine 0 with every other.
    """
    right = request.candidates.index(request.answer)
    form = RIGHT_FORM if answer.is_well_formed else WRONG_FORM
    if answer.first is None:
        return RewardTerms(0.0, 0.0, 0.0, form)
    chosen = request.candidates[answer.first]
    return RewardTerms(
        ndcg_of(answer.ranked, right, config.k),
        query_alignment(graph, chosen, request.answer),
        preference_alignment(vectors_ID, chosen, request.answer),
        form,
    )


@dataclass(frozen=True, slots=True)
class RequestReward:
    """ReRec's reward as a reward function: answers to requests in, total rewards out.

    requests: by number, which a prompt carries as its user.
    titles: of a request's candidates, as its prompt shows them.
    vectors_ID: item embeddings.
    """

    requests: Mapping[int, Request]
    titles: Callable[[Request], Sequence[str]]
    graph: ItemGraph
    vectors_ID: Float32[np.ndarray, "I D"]
    config: AnswerRewardConfig

    def read(self, number: int, text: str, is_finished: bool) -> tuple[Answer, RewardTerms]:
        """The answer as it was read, and its terms."""
        request = self.requests[number]
        answer = read_answer(text, self.titles(request), is_finished=is_finished)
        return answer, reward_answer(answer, request, self.graph, self.vectors_ID, self.config)

    def __call__(
        self, prompts: Sequence[Prompt], completions: Sequence[Sequence[str]], /, **_: Any
    ) -> Float64[np.ndarray, "P N"]:
        """One reward per answer; answers count as finished."""
        return np.array(
            [
                [self.read(prompt.user, text, is_finished=True)[1].total(self.config) for text in texts]
                for prompt, texts in zip(prompts, completions, strict=True)
            ],
            dtype=np.float64,
        )


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
    """PAS: the cosine of two items' embeddings.

    Raises:
        DataError: an item has no vector.
    """
    if max(chosen, right) >= len(vectors_ID):
        raise DataError(
            f"every item needs an embedding, got {len(vectors_ID)} and item {max(chosen, right)}; "
            f"fit the embeddings on the same dataset"
        )
    one, other = (vectors_ID[item].astype(np.float64) for item in (chosen, right))
    lengths = float(np.linalg.norm(one) * np.linalg.norm(other))
    return float(np.clip(one @ other / lengths, -1.0, 1.0)) if lengths > 0 else 0.0
