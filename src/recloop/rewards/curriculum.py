"""Online curriculum: which requests the next epoch trains on, and in which order.

Source: ReRec (arXiv 2604.07851). Easy requests are dropped and the rest goes from easy to hard. Ours: requests
without a good answer sit out one epoch. They would come last, with only penalties to learn from for many steps, and a
model that had learnt to answer would forget it (docs/log.md, "Hopeless requests come last").
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from pydantic import BaseModel, model_validator

from recloop.errors import DataError, SettingError
from recloop.settings import setting, shown_first


class CurriculumConfig(BaseModel, frozen=True, extra="forbid"):
    """How the next epoch's requests are chosen."""

    is_on: bool = shown_first(True, "off: every epoch asks every request, in random order")
    threshold: float = setting(0.1, "tau: requests of a smaller difficulty are dropped")
    too_hard: float | None = setting(
        0.9, "requests of a larger difficulty sit out one epoch; none: nobody, as published"
    )
    same_budget: bool = setting(
        True,
        "add epochs until as many requests were asked as without a curriculum; off: the same number "
        "of epochs, which ask fewer",
    )

    @model_validator(mode="after")
    def _leaves_something(self) -> CurriculumConfig:
        if self.too_hard is not None and self.too_hard <= self.threshold:
            raise SettingError(
                f"curriculum.too_hard must be above curriculum.threshold, got {self.too_hard} and "
                f"{self.threshold}; raise too_hard, or set it to none"
            )
        return self


@dataclass(frozen=True, slots=True)
class Epoch:
    """The requests of one epoch.

    numbers: requests in their order, a whole number of batches.
    num_dropped: too easy and not asked.
    num_returned: too easy and asked again, to fill the last batch or since fewer than one was left.
    num_left_over: not asked because they fill no batch or the budget ends; the hardest ones.
    num_resting: too hard and not asked, in this epoch.
    """

    numbers: tuple[int, ...]
    num_dropped: int = 0
    num_returned: int = 0
    num_left_over: int = 0
    num_resting: int = 0

    def cut_to(self, most: int) -> Epoch:
        """The epoch's first `most` requests."""
        num_cut = max(0, len(self.numbers) - most)
        return replace(self, numbers=self.numbers[:most], num_left_over=self.num_left_over + num_cut)


def difficulty(rewards: Sequence[float]) -> float:
    """Mean of ``1 - r`` over the answers to one request, of which there is one at least."""
    return sum(1 - reward for reward in rewards) / len(rewards)


def plan_epoch(
    difficulties: Mapping[int, float], batch: int, config: CurriculumConfig, not_asked: Collection[int] = ()
) -> Epoch:
    """The next epoch.

    Args:
        difficulties: of every request ever asked, by number; a dropped one keeps the last it had.
        batch: requests of one optimiser step.
        not_asked: those that the last epoch did not ask; they do not sit out this one.

    Raises:
        DataError: there are fewer requests than one batch holds.

    Example:
        >>> plan_epoch({7: 0.9, 8: 0.0, 9: 0.4, 10: 0.05}, 2, CurriculumConfig()).numbers
        (9, 7)
        >>> plan_epoch({7: 0.95, 8: 0.2, 9: 0.4, 10: 0.05}, 2, CurriculumConfig())
        Epoch(numbers=(8, 9), num_dropped=1, num_returned=0, num_left_over=0, num_resting=1)
        >>> plan_epoch({7: 0.9, 8: 0.0, 9: 0.01, 10: 0.05}, 2, CurriculumConfig())
        Epoch(numbers=(8, 9, 10, 7), num_dropped=0, num_returned=3, num_left_over=0, num_resting=0)
    """
    if len(difficulties) < batch:
        raise DataError(
            f"an epoch needs a batch of {batch} requests, got {len(difficulties)}; lower it or make more requests"
        )
    by_difficulty = sorted(difficulties, key=lambda number: (difficulties[number], number))
    easy = [number for number in by_difficulty if difficulties[number] < config.threshold]
    others = by_difficulty[len(easy) :]
    limit = math.inf if config.too_hard is None else config.too_hard
    resting = {number for number in others if difficulties[number] > limit and number not in not_asked}
    if len(difficulties) - len(resting) < batch:
        resting = set()  # else there would be no epoch
    kept = [number for number in others if number not in resting]
    # The hardest of the easy come back first: all of them when less than a batch is left.
    num_returned = len(easy) if len(kept) < batch else min(-len(kept) % batch, len(easy))
    asked = easy[len(easy) - num_returned :] + kept
    num_asked = len(asked) // batch * batch
    numbers = tuple(asked[:num_asked])
    return Epoch(numbers, len(easy) - num_returned, num_returned, len(asked) - num_asked, len(resting))
