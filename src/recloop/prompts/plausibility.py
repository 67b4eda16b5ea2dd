"""Whether what a language model writes is what was asked for: shares over a few completions, and their bounds."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import comb

from recloop.prompts.claims import parse_claims
from recloop.records import Completion, CompletionStatus, Prompt

# Of the bundled model: 95 to 99% on logs like those it was taught, 39 to 61% with columns that it does not know.
MIN_IN_FORM = 0.7
# `recloop preflight rerec --quick`, whose run is of use: 65% finished, 60% readable. Of 20, fewer than 30% would be
# found in one of 1,000 such runs. On titles that the model cannot copy 2% are readable.
MIN_FINISHED = 0.3
MIN_READABLE = 0.3
MIN_GROUNDED = 0.8  # of the bundled model on simulated data: 99%; invented and glued values bring it far below
FEWEST_CLAIMS = 10  # guess: fewer say nothing about a share
MAX_REPEATING = 0.3  # of the bundled model untrained on real catalogues: 7%; after a training that broke it: 52%
MIN_DISTINCT = 0.2  # guess: users who all get one text cannot be told apart by it
MAX_TAIL = 0.001  # a model that ignores the question has so few hits in one of a thousand runs
LOOP_WORDS = 4
ANOTHER = "another lm.name (smollm2 reads columns of any name)"
WORD = re.compile(r"\w+")


@dataclass(frozen=True, slots=True)
class Finding:
    """One share over a few completions; `at_least` and `at_most` are its bounds, `do` what helps beyond them."""

    what: str
    share: float
    at_least: float = 0.0
    at_most: float = 1.0
    do: str = ""

    @property
    def is_within(self) -> bool:
        """Whether it keeps to its bounds."""
        return self.at_least <= self.share <= self.at_most

    @property
    def bound(self) -> str:
        """As in ``at least 70%``; empty where there is none."""
        if self.at_least > 0:
            return f"at least {self.at_least:.0%}"
        return f"at most {self.at_most:.0%}" if self.at_most < 1 else ""

    @property
    def told(self) -> str:
        """As in ``in form 35% (at least 70%)``."""
        return f"{self.what} {self.share:.0%}" + (f" ({self.bound})" if self.bound else "")


def check_profiles(
    prompts: Sequence[Prompt], completions: Sequence[Completion], attributes: Sequence[str], *, is_canonical: bool
) -> tuple[Finding, ...]:
    """Texts about users: form, values that stand in the prompt, repetition.

    Args:
        is_canonical: the texts must have the canonical form (`recloop.prompts.claims`), not only an end.
    """
    parsed = [parse_claims(one.text, attributes) for one in completions]
    readable = f"use attributes the model can read, or {ANOTHER}"
    findings = [_finished(completions)]
    if is_canonical:
        form = _share(one.is_well_formed for one in parsed)
        findings.append(Finding("in canonical form", form, MIN_IN_FORM, do=readable))
    shown = [prompt.text.casefold() for prompt in prompts]
    grounded = [_stands_in(c.value, text) for text, one in zip(shown, parsed, strict=True) for c in one.claims]
    if grounded:
        least = MIN_GROUNDED if len(grounded) >= FEWEST_CLAIMS else 0.0
        findings.append(Finding("claims on values of the prompt", _share(grounded), least, do=readable))
    repeating = _share(repeats(one.text) for one in completions)
    findings.append(
        Finding("repeating itself", repeating, at_most=MAX_REPEATING, do="lower lm.max_tokens, or " + readable)
    )
    if len(set(shown)) > 1:
        distinct = len({one.text for one in completions}) / len(set(shown))
        same = f"histories that tell users apart (ratings that differ, more attributes), or {ANOTHER}"
        findings.append(Finding("different texts of different prompts", distinct, MIN_DISTINCT, do=same))
    return tuple(findings)


def check_replies(
    completions: Sequence[Completion], is_readable: Sequence[bool], hits: Sequence[bool], chance: float, at: str
) -> tuple[Finding, ...]:
    """Replies that name candidates: how many can be read, and how many are right against a random order.

    Args:
        chance: the share of hits of a random order. at: what a hit is, e.g. ``hits at 1``.
    """
    num = len(hits)
    tail = sum(comb(num, k) * chance**k * (1 - chance) ** (num - k) for k in range(sum(hits) + 1))
    form = f"titles as the prompt shows them (years and commas in titles confuse small models), or {ANOTHER}"
    return (
        _finished(completions),
        Finding("replies that can be read", _share(is_readable), MIN_READABLE, do=form),
        Finding(f"{at}, by chance {chance:.0%}", _share(hits), chance if tail < MAX_TAIL else 0.0, do=ANOTHER),
    )


def repeats(text: str) -> bool:
    """Whether more than half of a text's runs of words have stood in it before, or a value stands twice in a list.

    Example:
        >>> repeats("By genre: likes Drama, War, Drama."), repeats("By genre: likes Drama, War.")
        (True, False)
    """
    for part in re.split(r"[.;:\n]", text):
        values = [value.strip() for value in part.removeprefix(" likes").removeprefix(" dislikes").split(",")]
        if len(values) > 1 and max(Counter(values).values()) > 1:
            return True
    words = WORD.findall(text.casefold())
    runs = [tuple(words[n : n + LOOP_WORDS]) for n in range(len(words) - LOOP_WORDS + 1)]
    return 2 * len(set(runs)) < len(runs)


def _finished(completions: Sequence[Completion]) -> Finding:
    usable = _share(one.is_finished and one.status is CompletionStatus.OK for one in completions)
    return Finding("usable and finished", usable, MIN_FINISHED, do=f"raise lm.max_tokens, or use {ANOTHER}")


def _stands_in(value: str, text: str) -> bool:
    return re.search(rf"(?<!\w){re.escape(value.casefold())}(?!\w)", text) is not None


def _share(found: Iterable[bool]) -> float:
    held = list(found)
    return sum(held) / len(held)
