"""Online curriculum: which requests the next epoch trains on, and in which order.

Source: ReRec (arXiv 2604.07851). A request's difficulty is the mean of ``1 - r`` over its answers of the last
epoch in which it was asked. Easy ones are dropped and the rest goes from easy to hard.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict, Field

from recloop.errors import DataError


class CurriculumConfig(BaseModel):
    """How the next epoch's requests are chosen."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    is_on: bool = Field(default=True, description="off: every epoch asks every request, in random order")
    threshold: float = Field(default=0.1, description="tau: requests of a smaller difficulty are dropped")


@dataclass(frozen=True, slots=True)
class Epoch:
    """What one epoch asks.

    numbers: requests in their order, a whole number of batches.
    num_dropped: too easy and not asked.
    num_returned: too easy and asked again, since fewer than a batch was left or to fill the last batch.
    num_left_over: not asked because they fill no batch; the hardest ones.
    """

    numbers: tuple[int, ...]
    num_dropped: int
    num_returned: int
    num_left_over: int


def difficulty(rewards: Sequence[float]) -> float:
    """Mean of ``1 - r`` over the answers to one request.

    Raises:
        DataError: there is none.
    """
    if not rewards:
        raise DataError("a request's difficulty needs an answer, got none; sample it first")
    return sum(1 - reward for reward in rewards) / len(rewards)


def plan_epoch(difficulties: Mapping[int, float], batch: int, config: CurriculumConfig) -> Epoch:
    """The next epoch.

    Args:
        difficulties: of every request ever asked, by number; a dropped one keeps the last it had.
        batch: requests of one optimiser step.

    Raises:
        DataError: there are fewer requests than one batch holds.

    Example:
        >>> plan_epoch({7: 0.9, 8: 0.0, 9: 0.4, 10: 0.05}, 2, CurriculumConfig()).numbers
        (9, 7)
        >>> plan_epoch({7: 0.9, 8: 0.0, 9: 0.01, 10: 0.05}, 2, CurriculumConfig())
        Epoch(numbers=(8, 9, 10, 7), num_dropped=0, num_returned=3, num_left_over=0)
    """
    if len(difficulties) < batch:
        raise DataError(
            f"an epoch needs a batch of {batch} requests at least, got {len(difficulties)}; "
            f"lower the batch or make more requests"
        )
    by_difficulty = sorted(difficulties, key=lambda number: (difficulties[number], number))
    easy = [number for number in by_difficulty if difficulties[number] < config.threshold]
    kept = by_difficulty[len(easy) :]
    # The hardest of the easy come back first: all of them when less than a batch is left.
    num_returned = len(easy) if len(kept) < batch else min(-len(kept) % batch, len(easy))
    asked = easy[len(easy) - num_returned :] + kept
    num_asked = len(asked) // batch * batch
    return Epoch(tuple(asked[:num_asked]), len(easy) - num_returned, num_returned, len(asked) - num_asked)
