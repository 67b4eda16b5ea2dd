"""Token budgets of prompts: one error over all prompts that cannot be cut far enough."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from typing import TypeVar

from recloop.errors import SettingError

Given = TypeVar("Given")
Made = TypeVar("Made")


class PromptTooLong(SettingError):
    """A prompt is over its budget with all cut that may be; `least` is the budget that would hold it."""

    def __init__(self, setting: str, budget: int, least: int) -> None:
        super().__init__(f"{setting} must hold the prompt, got {budget}; use at least {least}")
        self.setting, self.budget, self.least = setting, budget, least


def within_budget(
    make: Callable[[Given], Made], given: Iterable[Given], beside: Collection[str] = (), hint: str = ""
) -> list[Made]:
    """What `make` makes of each; one SettingError, with the bound over all, where it raises `PromptTooLong`.

    Args:
        beside: further settings that must not be below the budget, by their full names.
        hint: what else would do.
    """
    made: list[Made] = []
    over: list[PromptTooLong] = []
    for one in given:
        try:
            made.append(make(one))
        except PromptTooLong as error:
            over.append(error)
    if over:
        also = f" (and {' and '.join(beside)} no less)" if beside else ""
        raise SettingError(
            f"{over[0].setting} must hold every prompt, got {over[0].budget}, too few for {len(over):,} of "
            f"{len(over) + len(made):,}; use at least {max(one.least for one in over)}{also}{hint}"
        ) from over[0]
    return made
