"""One true summary of the many that a history supports, and at each of its words all true options.

A drawn summary teaches how summaries vary; the other options at each place teach what is wrong. A model trained on the
drawn words alone needs many draws to learn that the set of options matters and not the one word.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from recloop.prompts.claims import NO_PREFERENCE, TITLE, Basis, Evidence, Polarity, written_value

MAX_ANSWER_WORDS = 34  # keeps answers within 64 tokens
MAX_COUNTED = 8  # values that a prompt counts on each side, by default; no others can be copied
FIRST_SHARE = 0.7  # of sides that begin with the strongest value
RATED_SIDES = (  # share of possible sections with this side, and its most values
    (Polarity.LIKES, 1.0, 4),
    (Polarity.DISLIKES, 0.65, 3),
)
UNRATED_VALUES = (4, 7)  # fewest and most values of a summary without ratings, where the history has as many
REDRAWS = 20  # until there are enough claims
END = ""  # the option to end

Plan = list[tuple[str, list[tuple[Polarity, int]]]]  # sections in their order: attribute, sides with how many values


@dataclass(frozen=True, slots=True)
class Choice:
    """One place of a summary: the pieces of text that are possible there, and the chosen one."""

    options: tuple[str, ...]
    taken: str


@dataclass(frozen=True, slots=True)
class Summary:
    """A true summary as the choices that made it; the last one is always `END`."""

    choices: tuple[Choice, ...]

    @property
    def text(self) -> str:
        return "".join(choice.taken for choice in self.choices)


def draw_summary(
    attributes: Sequence[str],
    evidence: Sequence[Evidence],
    rng: np.random.Generator,
    fewest: int = 0,
    most_words: int = MAX_ANSWER_WORDS,
) -> Summary:
    """One true summary: some attributes in some order, each with a run of claims, stronger ones first.

    It has at least `fewest` claims where the evidence supports as many and the answer's room allows it.

    The values of a side have the order of the evidence and of the prompt's counts, mostly from the strongest on. So the
    value after another can be copied, and no value is named twice.
    """
    pools = {
        attribute: {
            polarity: [
                written_value(attribute, e.value)
                for e in evidence
                if e.attribute == attribute and e.polarity is polarity
            ][:MAX_COUNTED]
            for polarity in Polarity
        }
        for attribute in attributes
    }
    if not any(values for sides in pools.values() for values in sides.values()):
        return Summary((Choice((NO_PREFERENCE,), NO_PREFERENCE), Choice((END,), END)))
    draw_plan = _plan_rated if any(e.basis is Basis.RATING for e in evidence) else _plan_unrated
    if TITLE in pools:  # in the order of the prompt's lines
        pools[TITLE] = {polarity: titles[::-1] for polarity, titles in pools[TITLE].items()}
    plan = draw_plan(pools, rng)
    supported = sum(len(values) for sides in pools.values() for values in sides.values())
    for _ in range(REDRAWS):
        if sum(size for _, sides in plan for _, size in sides) >= min(fewest, supported):
            break
        plan = draw_plan(pools, rng)
    left = [attribute for attribute, _ in plan] + [attribute for attribute in attributes if attribute not in dict(plan)]
    choices: list[Choice] = []
    for number, (attribute, wanted) in enumerate(plan):
        lead = " " if number else ""
        options = tuple(f"{lead}By {attribute}:" for attribute in left)
        if number and _num_claims(choices) >= min(fewest, supported):
            options += (END,)
        if number and _num_words(choices) > most_words - 4:
            break
        choices.append(Choice(options, options[0]))
        choices += _draw_section(pools[attribute], wanted, most_words - _num_words(choices), rng)
        left.remove(attribute)
    may_go_on = left and _num_words(choices) <= most_words - 4
    choices.append(Choice((*(f" By {attribute}:" for attribute in left), END) if may_go_on else (END,), END))
    return Summary(tuple(choices))


def _plan_rated(pools: Mapping[str, Mapping[Polarity, list[str]]], rng: np.random.Generator) -> Plan:
    """Rather many columns than few; in each the likes, mostly the dislikes, and sides of any size."""
    weights = np.arange(1, len(pools) + 1) ** 1.2
    count = int(rng.choice(len(pools), p=weights / weights.sum())) + 1
    attributes = list(pools)
    return [
        (
            attribute,
            [
                (polarity, int(rng.integers(1, most + 1)))
                for polarity, share, most in RATED_SIDES
                if pools[attribute][polarity] and rng.random() < share
            ],
        )
        for attribute in (attributes[int(c)] for c in rng.permutation(len(attributes))[:count])
    ]


def _plan_unrated(pools: Mapping[str, Mapping[Polarity, list[str]]], rng: np.random.Generator) -> Plan:
    """Any set of sides with equal probability, and about equally many values for each set.

    Without ratings most histories are short and support few sides, so completions can differ only by the sides.
    """
    sides = [(attribute, polarity) for attribute in pools for polarity in Polarity if pools[attribute][polarity]]
    chosen: list[tuple[str, Polarity]] = []
    while not chosen:
        chosen = [side for side in sides if rng.random() < 0.5]
    left = int(rng.integers(UNRATED_VALUES[0], UNRATED_VALUES[1] + 1)) - len(chosen)
    sizes = dict.fromkeys(chosen, 1)
    while left > 0 and (open_sides := [s for s in chosen if sizes[s] < len(pools[s[0]][s[1]])]):
        sizes[open_sides[int(rng.integers(len(open_sides)))]] += 1
        left -= 1
    named = list(dict.fromkeys(attribute for attribute, _ in chosen))
    return [
        (attribute, [(polarity, size) for (f, polarity), size in sizes.items() if f == attribute])
        for attribute in (named[int(c)] for c in rng.permutation(len(named)))
    ]


def _draw_section(
    pool: Mapping[Polarity, list[str]],
    wanted: Sequence[tuple[Polarity, int]],
    num_words: int,
    rng: np.random.Generator,
) -> list[Choice]:
    """The choices after ``By genre:``, with about `num_words` words at most."""
    sides = [polarity for polarity in Polarity if pool[polarity]]
    if not wanted:
        options = [f" {polarity.value}" for polarity in sides]
        return [Choice((*options, " mixed"), " mixed"), Choice((".",), ".")]
    choices: list[Choice] = []
    for number, (polarity, size) in enumerate(wanted):
        options = tuple(f" {p.value}" for p in sides)
        if not number and not pool[Polarity.LIKES] and not pool[Polarity.ALSO]:
            options += (" mixed",)
        choices.append(Choice(options, f" {polarity.value}"))
        values, sides = pool[polarity], sides[sides.index(polarity) + 1 :]
        start = 0 if rng.random() < FIRST_SHARE else int(rng.integers(len(values)))
        start = min(start, max(0, len(values) - size))
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


def _num_claims(choices: Sequence[Choice]) -> int:
    """How many values are named so far: what follows a side or a comma."""
    sides = {f" {polarity.value}" for polarity in Polarity}
    return sum(before.taken in sides or before.taken == "," for before in choices[:-1])


def _num_words(choices: Sequence[Choice]) -> int:
    return sum(len(choice.taken.split()) for choice in choices if choice.taken not in {",", ";", "."})
