"""Several fits of one reranker as one: they differ by the seed, and what only one of them sees cancels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import log_softmax

from recloop.errors import SettingError
from recloop.ranking.fitted import FittedReranker

if TYPE_CHECKING:
    from jaxtyping import Float32

    from recloop.records import Lists, UserVectors


@dataclass(frozen=True, slots=True)
class Ensemble:
    """Rerankers that score together."""

    members: tuple[FittedReranker, ...]

    def __post_init__(self) -> None:
        if not self.members:
            raise SettingError("an ensemble needs a member, got none; give it fitted rerankers")

    @classmethod
    def load(cls, folders: Sequence[Path]) -> Ensemble:
        """Read members that `FittedReranker.save` wrote.

        Raises:
            DataError: a folder does not hold a whole reranker.
        """
        return cls(tuple(FittedReranker.load(folder) for folder in folders))

    def score(self, lists: Lists, user_vectors: UserVectors | None) -> Float32[np.ndarray, "B N L"]:
        """As `FittedReranker.score`; of several members, the mean of their log-softmax over each list.

        A member's scores mean something only against one another within a list, and their spread is its
        confidence: the mean of log-probabilities keeps that.
        """
        if len(self.members) == 1:
            return self.members[0].score(lists, user_vectors)
        total_BNL = sum(log_softmax(member.score(lists, user_vectors), axis=-1) for member in self.members)
        return np.asarray(total_BNL / len(self.members), dtype=np.float32)
