"""One true summary out of the many a history supports, and at each of its words all that would be true.

A drawn summary teaches how summaries vary; what else could stand at each place teaches what is wrong. A model
taught with the drawn words alone needs many draws to find out that it is not the word that matters but the
set it came from.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from recloop.language.claims import NO_PREFERENCE, Evidence, Polarity

MAX_ANSWER_WORDS = 34  # keeps answers within 64 tokens
MAX_COUNTED = 8  # values a prompt counts on each side, by default; no others can be copied
FIRST_SHARE = 0.7  # of sides that begin with the strongest value
END = ""  # the option that nothing more is said


@dataclass(frozen=True, slots=True)
class Habits:
    """How summaries of one kind of history vary.

    sides: the share of sections that have a side where they can, and the most values in it.
    breadth: the larger, the more columns a summary tells of; at 0 every number of them is as likely.
    tries: sizes of a side are the largest of so many draws.
    """

    sides: tuple[tuple[Polarity, float, int], ...]
    breadth: float
    tries: int


RATED = Habits(((Polarity.LIKES, 1.0, 4), (Polarity.DISLIKES, 0.65, 3)), breadth=1.2, tries=1)
# Without stars most histories are short and support few sides: drafts differ by the sides they leave out.
UNRATED = Habits(((Polarity.LIKES, 0.6, 6), (Polarity.ALSO, 0.6, 6)), breadth=0.2, tries=2)


@dataclass(frozen=True, slots=True)
class Choice:
    """One place of a summary: the pieces of text that may stand there, and the one that does."""

    options: tuple[str, ...]
    taken: str


@dataclass(frozen=True, slots=True)
class Summary:
    """A true summary as the choices that made it; the last one is always `END`."""

    choices: tuple[Choice, ...]

    @property
    def text(self) -> str:
        return "".join(choice.taken for choice in self.choices)


def draw_summary(facets: Sequence[str], evidence: Sequence[Evidence], rng: np.random.Generator) -> Summary:
    """One true summary: some facets in some order, in each a run of claims, stronger ones first.

    The values of a side follow one another as they do in the evidence and in the prompt's counts, mostly
    from the strongest on: what comes after a value can be copied, and no value is named twice.
    """
    pools = {
        facet: {
            polarity: [e.value for e in evidence if e.facet == facet and e.polarity is polarity][:MAX_COUNTED]
            for polarity in Polarity
        }
        for facet in facets
    }
    if not any(values for sides in pools.values() for values in sides.values()):
        return Summary((Choice((NO_PREFERENCE,), NO_PREFERENCE), Choice((END,), END)))
    habits = RATED if any(e.has_stars for e in evidence) else UNRATED
    weights = np.arange(1, len(facets) + 1) ** habits.breadth
    count = int(rng.choice(len(facets), p=weights / weights.sum())) + 1
    left = [facets[int(c)] for c in rng.permutation(len(facets))]
    choices: list[Choice] = []
    for number in range(count):
        lead = " " if number else ""
        options = tuple(f"{lead}By {facet}:" for facet in left)
        if number:
            options += (END,)
        if number and _num_words(choices) > MAX_ANSWER_WORDS - 4:
            break
        choices.append(Choice(options, options[0]))
        choices += _draw_section(pools[left.pop(0)], MAX_ANSWER_WORDS - _num_words(choices), habits, rng)
    may_go_on = left and _num_words(choices) <= MAX_ANSWER_WORDS - 4
    choices.append(Choice((*(f" By {facet}:" for facet in left), END) if may_go_on else (END,), END))
    return Summary(tuple(choices))


def _draw_section(
    pool: dict[Polarity, list[str]], num_words: int, habits: Habits, rng: np.random.Generator
) -> list[Choice]:
    """What follows ``By genre:``, in at most about so many words."""
    sides = [polarity for polarity in Polarity if pool[polarity]]
    named = {polarity for polarity, share, _ in habits.sides if pool[polarity] and rng.random() < share}
    says_something = pool[Polarity.LIKES] or pool[Polarity.ALSO]
    if says_something and not named:
        named = {sides[int(rng.integers(len(sides)))]}
    wanted = [
        (polarity, int(rng.integers(1, most + 1, size=habits.tries).max()))
        for polarity, _, most in habits.sides
        if polarity in named
    ]
    if not wanted:
        options = [f" {polarity.value}" for polarity in sides]
        return [Choice((*options, " mixed"), " mixed"), Choice((".",), ".")]
    choices: list[Choice] = []
    for number, (polarity, size) in enumerate(wanted):
        options = tuple(f" {p.value}" for p in sides)
        if not number and not says_something:
            options += (" mixed",)
        choices.append(Choice(options, f" {polarity.value}"))
        values, sides = pool[polarity], sides[sides.index(polarity) + 1 :]
        start = 0 if rng.random() < FIRST_SHARE else int(rng.integers(len(values)))
        stop = min(start + size, len(values))
        for place in range(start, stop):
            options = values if place == start else values[place:]
            choices.append(Choice(tuple(f" {value}" for value in options), f" {values[place]}"))
            if _num_words(choices) >= num_words:
                return [*choices, Choice((".",), ".")]
            marks = (*([","] if place + 1 < len(values) else []), *([";"] if sides else []), ".")
            ends_side, is_last_side = place + 1 == stop, number + 1 == len(wanted)
            mark = "," if not ends_side else "." if is_last_side else ";"
            choices.append(Choice(marks, mark))
    return choices


def _num_words(choices: Sequence[Choice]) -> int:
    return sum(len(choice.taken.split()) for choice in choices if choice.taken not in {",", ";", "."})
