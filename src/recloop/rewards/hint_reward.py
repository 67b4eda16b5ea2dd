"""The reward of a hint: the metric of the ranking that is written with it, over that without a hint.

Source: Re2LLM (arXiv 2403.16427), reinforcement utilisation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from recloop.prompts.next_item import parse_ranking
from recloop.records import Prompt
from recloop.rerankers.metrics import NOT_RANKED, metric_of_rank

if TYPE_CHECKING:
    from jaxtyping import Float64, Int64


def hint_gains(metric: str, ranks_SH: Int64[np.ndarray, "S H"]) -> Float64[np.ndarray, "S H"]:
    """The gain of each hint in each session.

    Args:
        ranks_SH: of the sessions' answers, from 1; `NOT_RANKED` where not named. Column 0 is without a hint.
    """
    values_SH = metric_of_rank(metric, ranks_SH)
    return values_SH - values_SH[:, :1]


@dataclass(frozen=True, slots=True)
class HintReward:
    """The hint reward as a reward function: rankings written with a hint in, their gain out."""

    metric: str
    num_ranked: int

    def __call__(
        self,
        prompts: Sequence[Prompt],
        completions: Sequence[Sequence[str]],
        /,
        *,
        titles: Sequence[Sequence[str]],
        answer_place: Sequence[int],
        rank_without: Sequence[int],
        **_: Any,
    ) -> Float64[np.ndarray, "P N"]:
        """One gain per ranking.

        Args:
            titles: of each session's candidates.
            answer_place: which candidate is right.
            rank_without: its rank in the answer without a hint, from 1; `NOT_RANKED` where not named.
        """
        rows = zip(prompts, completions, titles, answer_place, rank_without, strict=True)
        ranks = [
            [before, *(parse_ranking(text, names, self.num_ranked).rank_of(place) or NOT_RANKED for text in texts)]
            for _, texts, names, place, before in rows
        ]
        return hint_gains(self.metric, np.array(ranks, dtype=np.int64).reshape(len(prompts), -1))[:, 1:]
