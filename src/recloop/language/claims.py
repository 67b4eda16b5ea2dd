"""What a preference summary claims, what is true of a history, and the text form that joins the two.

The canonical text is short on purpose: it can be parsed, counted and checked against the history:

    By genre: likes Drama, Thriller; dislikes Comedy. By director: likes Ann Vale. By era: mixed.

Truth, for a history with stars: a value is *liked* when at least two items carry it and their mean rating
is above the mean of the history, *disliked* when it is below. Without stars a value is liked when at least
two items carry it, and ``also`` names values that were met once.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

NO_PREFERENCE = "No clear preference."


class Polarity(StrEnum):
    """What is said of a value; the word is the one the text uses."""

    LIKES = "likes"
    DISLIKES = "dislikes"
    ALSO = "also"  # implicit logs only: met once


@dataclass(frozen=True, slots=True)
class HistoryItem:
    """One line of a history: `values` holds, facet by facet, the item's values; `stars` None if implicit."""

    title: str
    values: tuple[tuple[str, ...], ...]
    stars: float | None


@dataclass(frozen=True, slots=True)
class Claim:
    """One statement about a user: this value of this facet is liked, disliked or was met."""

    facet: str
    polarity: Polarity
    value: str


@dataclass(frozen=True, slots=True)
class Evidence:
    """What a history says about one value. `excess` sums (stars - mean of the history) over its items."""

    facet: str
    value: str
    num_items: int
    excess: float
    has_stars: bool

    @property
    def polarity(self) -> Polarity | None:
        """The claim this evidence supports, or None when it supports none."""
        if not self.has_stars:
            return Polarity.LIKES if self.num_items >= 2 else Polarity.ALSO
        if self.num_items < 2 or abs(self.excess) < 1e-9:
            return None
        return Polarity.LIKES if self.excess > 0 else Polarity.DISLIKES

    @property
    def strength(self) -> float:
        """How strongly the history speaks: the absolute excess in stars, or the number of items."""
        return abs(self.excess) if self.has_stars else float(self.num_items)


@dataclass(frozen=True, slots=True)
class ParsedDraft:
    """The claims of one text, and whether every part of it followed the canonical form."""

    claims: tuple[Claim, ...]
    facets: tuple[str, ...]  # facets the text has a section for, in its order, `mixed` ones included
    is_well_formed: bool


def weigh_history(facets: Sequence[str], history: Iterable[HistoryItem]) -> list[Evidence]:
    """Evidence for every value of a history, facet by facet, strongest first.

    Args:
        facets: names, in the order of each item's `values`.
        history: the items shown, stars all given or all None.
    """
    items = list(history)
    stars = [item.stars for item in items if item.stars is not None]
    mean = sum(stars) / len(stars) if stars else 0.0
    counts: dict[tuple[int, str], int] = defaultdict(int)
    excess: dict[tuple[int, str], float] = defaultdict(float)
    for item in items:
        for column, values in enumerate(item.values):
            for value in dict.fromkeys(values):
                counts[column, value] += 1
                excess[column, value] += 0.0 if item.stars is None else item.stars - mean
    found = [
        Evidence(facets[column], value, count, round(excess[column, value], 6), bool(stars))
        for (column, value), count in counts.items()
    ]
    order = {facet: position for position, facet in enumerate(facets)}
    return sorted(found, key=lambda e: (order[e.facet], -e.strength, e.value))


def true_claims(facets: Sequence[str], history: Iterable[HistoryItem]) -> list[tuple[Claim, float]]:
    """Every claim the history supports with its strength, facet by facet, strongest first."""
    return [
        (Claim(evidence.facet, evidence.polarity, evidence.value), evidence.strength)
        for evidence in weigh_history(facets, history)
        if evidence.polarity is not None
    ]


def write_summary(claims: Sequence[Claim], facets: Sequence[str] | None = None) -> str:
    """The canonical text of these claims.

    Inside a section likes come first, then dislikes, then `also`, each in the given order.

    Args:
        claims: what to say.
        facets: the sections in their order, "mixed" where nothing is claimed; None: as first mentioned.

    Example:
        >>> write_summary([Claim("genre", Polarity.LIKES, "Drama"), Claim("genre", Polarity.DISLIKES, "War")])
        'By genre: likes Drama; dislikes War.'
    """
    by_facet: dict[str, dict[Polarity, list[str]]] = {facet: {} for facet in facets or ()}
    for claim in claims:
        by_facet.setdefault(claim.facet, {}).setdefault(claim.polarity, []).append(claim.value)
    sections = []
    for facet, by_polarity in by_facet.items():
        parts = [f"{p.value} {', '.join(by_polarity[p])}" for p in Polarity if p in by_polarity]
        sections.append(f"By {facet}: {'; '.join(parts) or 'mixed'}.")
    return " ".join(sections) or NO_PREFERENCE


def parse_claims(text: str, facets: Sequence[str]) -> ParsedDraft:
    """Read the claims of a text in canonical form; what does not follow it is skipped and noted.

    Args:
        text: a draft.
        facets: the facet names the prompt asked for.

    Example:
        >>> parse_claims("By genre: likes Drama; dislikes War. By era: mixed.", ("genre", "era")).facets
        ('genre', 'era')
    """
    text = text.strip()
    if text == NO_PREFERENCE:
        return ParsedDraft((), (), True)
    heads = "|".join(re.escape(facet) for facet in sorted(facets, key=len, reverse=True))
    starts = list(re.finditer(rf"(?:^|(?<=\. ))By ({heads}): ", text)) if facets else []
    claims: list[Claim] = []
    seen: list[str] = []
    is_clean = bool(starts) and starts[0].start() == 0
    for position, start in enumerate(starts):
        end = starts[position + 1].start() if position + 1 < len(starts) else len(text)
        body = text[start.end() : end].strip()
        facet = start.group(1)
        found = _parse_section(facet, body)
        is_clean = is_clean and found is not None and facet not in seen
        seen.append(facet)
        claims.extend(found or ())
    is_clean = is_clean and len(set(claims)) == len(claims)
    return ParsedDraft(tuple(dict.fromkeys(claims)), tuple(dict.fromkeys(seen)), is_clean)


def _parse_section(facet: str, body: str) -> list[Claim] | None:
    """Claims of one section's body, or None when it breaks the form."""
    if not body.endswith("."):
        return None
    body = body[:-1]
    if body == "mixed":
        return []
    claims: list[Claim] = []
    for part in body.split("; "):
        head, _, rest = part.partition(" ")
        if head not in {p.value for p in Polarity} or not rest:
            return None
        values = [value.strip() for value in rest.split(", ")]
        if not all(values) or any("," in value for value in values):
            return None
        claims.extend(Claim(facet, Polarity(head), value) for value in values)
    return claims
