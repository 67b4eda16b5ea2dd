"""How the cache and a language model behind a server work together: prompts go in one by one, answers come back."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from recloop.llm.language_model import Sampling
from recloop.llm.server.cost import Usage
from recloop.records import Completion, Prompt

NO_USAGE = Usage()


@dataclass(frozen=True, slots=True)
class Ask:
    """One prompt and the numbers of the completions wanted of it."""

    prompt: Prompt
    completions: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Answer:
    """Some completions of one ask, perhaps not all of them yet; none when there is only usage, or no news.

    ask: position among the asks, in the order they were taken; -1 without completions.
    usage: since the last answer.
    """

    ask: int
    completions: tuple[Completion, ...]
    usage: Usage


@dataclass(frozen=True, slots=True)
class Standing:
    """What is known of a model from earlier work.

    usage: of the whole run so far; budgets count from here.
    has_answered: whether it has ever given a usable completion. A server that refuses everything is set up
        wrongly; one that has answered before refuses single prompts.
    """

    usage: Usage = NO_USAGE
    has_answered: bool = False


@runtime_checkable
class StreamingModel(Protocol):
    """A language model whose answers come one by one, cost something and may fail one by one."""

    @property
    def name(self) -> str: ...

    def answer(self, asks: Iterator[Ask], sampling: Sampling, standing: Standing) -> Generator[list[Answer]]:
        """Answer every ask; `asks` is read, in the caller's thread, whenever there is room for more.

        Yields what has come since the last time, and something at least every second. Taking the next list
        means that the last one is safe: this bounds what a kill can lose. An error is raised after everything
        received has been yielded.
        """
        ...
