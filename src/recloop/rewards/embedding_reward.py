"""A reward that needs no reranker: how much nearer a text is to the items its user went on to like than to the others.

Source: the embedding reward of BLUE (arXiv 2605.06981). Ours: the mean over the user's lists, of candidates alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from recloop.records import Group, Lists, Prompt

if TYPE_CHECKING:
    from jaxtyping import Float32, Float64

    from recloop.encoders.sentence import TextEncoder


@dataclass(frozen=True, slots=True)
class EmbeddingReward:
    """Mean cosine between a text and the positive candidates of a list less that with the others, mean over lists.

    lists: of the users whose number a prompt carries; a user whose lists have only positives, or none, gets 0.
    item_vectors_ID: of every item's text, by the same encoder.

    Raises:
        LeakageError: the lists belong to another group than the reward users.
    """

    lists: Lists
    encoder: TextEncoder
    item_vectors_ID: Float32[np.ndarray, "I D"]
    name: str = "embedding"

    def __post_init__(self) -> None:
        self.lists.require(Group.REWARD)

    def __call__(
        self, prompts: Sequence[Prompt], completions: Sequence[Sequence[str]], /, **_: Any
    ) -> Float64[np.ndarray, "P N"]:
        """One reward per completion, between -2 and 2; an empty text gets 0."""
        rewards_PN = np.zeros((len(prompts), len(completions[0]) if completions else 0))
        if not rewards_PN.size:
            return rewards_PN
        flat = self.encoder.encode([text for completions_N in completions for text in completions_N])
        texts_PND = _unit(flat).reshape(*rewards_PN.shape, -1)
        for row, prompt in enumerate(prompts):
            rewards_PN[row] = texts_PND[row] @ self._direction(prompt.user)
        return rewards_PN * np.array([[bool(text) for text in completions_N] for completions_N in completions])

    def _direction(self, user: int) -> Float64[np.ndarray, " D"]:
        """From the mean of the other candidates to that of the positive ones; the mean over the user's lists."""
        lists = self.lists.take(self.lists.user_B == user)
        is_good_BL = lists.is_item_BL & (lists.labels_BL > 0)
        is_other_BL = lists.is_item_BL & ~is_good_BL
        has_both_B = is_good_BL.any(axis=1) & is_other_BL.any(axis=1)
        found_D = np.zeros(self.item_vectors_ID.shape[1])
        for list_number in np.flatnonzero(has_both_B):
            vectors_LD = _unit(self.item_vectors_ID[lists.items_BL[list_number]])
            good, other = (is_of_BL[list_number] for is_of_BL in (is_good_BL, is_other_BL))
            found_D += vectors_LD[good].mean(axis=0) - vectors_LD[other].mean(axis=0)
        return found_D / max(1, has_both_B.sum())


def _unit(vectors: np.ndarray) -> np.ndarray:
    """Rows of length 1; rows of zeros stay."""
    wide = vectors.astype(np.float64)
    return wide / np.maximum(np.linalg.norm(wide, axis=-1, keepdims=True), 1e-12)
