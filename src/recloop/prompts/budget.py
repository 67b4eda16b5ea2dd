"""Token budgets of prompts: texts counted by their lines, one error over all prompts that cannot be cut far enough."""

from __future__ import annotations

import gc
import re
from collections.abc import Callable, Collection, Generator, Iterable
from contextlib import contextmanager
from functools import lru_cache
from typing import TypeVar

from recloop.errors import SettingError

Given = TypeVar("Given")
Made = TypeVar("Made")
NUM_CHECKED = 200  # texts that are counted whole too
LINES_KEPT, PARTS_KEPT = 2**18, 2**19  # about 100 MB each
# A line with the space before it, as most tokenizers take it, or with the space after it, where ".\n" can be a token.
WAYS_TO_CUT = re.compile(r"\s*\S[^\n]*"), re.compile(r"\S[^\n]*\s*")
PARTS = re.compile(r"""(?<=\w)(?=[,;] | \| \w)|(?<= ")(?=\w)""")  # of a line: values, and what is in quotes


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
    with _no_collection():
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


@contextmanager
def _no_collection() -> Generator[None]:
    """Without the search for cycles: prompts have none, and it would go through millions of them again and again."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def counted_by_lines(count_tokens: Callable[[str], int]) -> Callable[[str], int]:
    """Counts as `count_tokens`, for texts that share lines and parts of lines: each of them is counted once.

    Few tokenizers have tokens that reach over the end of a line, or over a comma after a word. The first texts are
    counted whole too, and so are all others unless both gave the same for every one of them.
    """
    ways = [_by_lines(count_tokens, lines) for lines in WAYS_TO_CUT]
    checked: set[str] = set()

    def count(text: str) -> int:
        if not ways:
            return count_tokens(text)
        if len(checked) >= NUM_CHECKED or text in checked:
            return ways[0](text)
        checked.add(text)
        num_tokens = count_tokens(text)
        ways[:] = [way for way in ways if way(text) == num_tokens]
        return num_tokens

    return count


def _by_lines(count_tokens: Callable[[str], int], lines: re.Pattern[str]) -> Callable[[str], int]:
    num_before = {before: count_tokens(before) for before in ("", "x", "\n", ' "')}

    @lru_cache(maxsize=PARTS_KEPT)
    def of_part(part: str, before: str) -> int:
        return count_tokens(before + part) - num_before[before]

    @lru_cache(maxsize=LINES_KEPT)
    def of_line(line: str, before: str) -> int:
        first, *others = PARTS.split(line)
        return of_part(first, before) + sum(of_part(part, "x" if part[0] in ",; " else ' "') for part in others)

    def count(text: str) -> int:
        first, *others = lines.findall(text) or [""]
        return of_line(first, "") + sum(of_line(line, "x" if line[0] == "\n" else "\n") for line in others)

    return count
