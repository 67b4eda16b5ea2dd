"""What the cache and a language model behind a server exchange: asks, answers, and what is known from before."""

from __future__ import annotations

from dataclasses import dataclass

from recloop.llm.server.cost import Usage
from recloop.records import Completion, Prompt

NO_USAGE = Usage()


@dataclass(frozen=True, slots=True)
class Ask:
    """One prompt and the numbers of the completions wanted of it."""

    prompt: Prompt
    completions: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class ServerReply:
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
