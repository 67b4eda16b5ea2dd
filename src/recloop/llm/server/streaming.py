"""What the cache and a model behind a server agree on: asks go in one by one, answers come back as they arrive."""

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
    """Some completions of one ask, perhaps not yet all; none when only something was spent or time has passed.

    ask: position among the asks, in the order they were taken; -1 without completions.
    spent: since the last answer.
    """

    ask: int
    completions: tuple[Completion, ...]
    spent: Usage


@dataclass(frozen=True, slots=True)
class Standing:
    """What is known of a model from before.

    spent: by the whole run so far; budgets count from here.
    has_answered: whether it has ever given a usable completion. A server that refuses everything is set up
        wrongly; one that has answered may be believed when it refuses a prompt.
    """

    spent: Usage = NO_USAGE
    has_answered: bool = False


@runtime_checkable
class StreamingModel(Protocol):
    """A language model whose answers come one by one, cost something and may fail one by one."""

    @property
    def name(self) -> str: ...

    def answer(self, asks: Iterator[Ask], sampling: Sampling, standing: Standing) -> Generator[list[Answer]]:
        """Answer every ask; `asks` is read, in the caller's thread, whenever there is room for more.

        Yields what has come since the last time: something at least every second, if only to say that
        nothing came. Asking for the next means that the last is safe: what is sent meanwhile is bounded by
        what may be lost in a kill. An error is raised after all that was received has been handed over.
        """
        ...
