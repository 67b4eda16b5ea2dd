"""Prompts with a common beginning, so that it is read once: Re2LLM's are the same but for some forty tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile

LEAST_SHARE = 0.5  # guess: of each member's length; to share less saves little and widens the batch
MOST_OWN = 4.0  # guess: the members' own tokens, in lengths of the head


@dataclass(frozen=True, slots=True)
class Head:
    """A common beginning of prompts."""

    length: int  # of the beginning; the whole length for a prompt that stands alone
    members: tuple[int, ...]  # positions of the prompts, at least one


def alone(prompts: Sequence[Sequence[object]]) -> list[Head]:
    """Every prompt by itself."""
    return [Head(len(prompt), (position,)) for position, prompt in enumerate(prompts)]


def share_heads(prompts: Sequence[str] | Sequence[tuple[int, ...]], growth: int) -> list[Head]:
    """Heads in lexicographic order of their prompts; each position is in one.

    A prompt joins its neighbour in that order where at least `LEAST_SHARE` of both is common, each keeps a token
    of its own, and the members' own tokens stay below `MOST_OWN` heads, since attention masks them for all others.

    Args:
        prompts: token ids, or texts.
        growth: how much each may grow, in the same units.

    Example:
        >>> share_heads(["to be or not", "a rose", "to be or so"], 1)
        [Head(length=6, members=(1,)), Head(length=9, members=(0, 2))]
    """
    groups: list[list[int]] = []
    lengths: list[int] = []
    total = longest = 0  # over the members of the last group
    for position in sorted(range(len(prompts)), key=prompts.__getitem__):
        prompt = prompts[position]
        if groups:
            first = prompts[groups[-1][0]]
            length = min(lengths[-1], len(first) - 1, len(prompt) - 1, _num_common(first, prompt))
            own = total + len(prompt) + (len(groups[-1]) + 1) * (growth - length)
            if length >= LEAST_SHARE * max(longest, len(prompt)) and own <= MOST_OWN * length:
                groups[-1].append(position)
                lengths[-1] = length
                total, longest = total + len(prompt), max(longest, len(prompt))
                continue
        groups.append([position])
        lengths.append(len(prompt))
        total = longest = len(prompt)
    return [Head(length, tuple(group)) for length, group in zip(lengths, groups, strict=True)]


def _num_common(first: Sequence[object], second: Sequence[object]) -> int:
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(first, second, strict=False)))
