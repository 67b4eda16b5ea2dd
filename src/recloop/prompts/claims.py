"""Claims about preferences: the canonical text that makes them, and which of them a history supports.

The canonical text is short on purpose, so that it can be parsed, counted and checked against the history:

    By genre: likes Drama, Thriller; dislikes Comedy. By director: likes Ann Vale. By era: mixed.

In a history with ratings, a value is *liked* when at least two items carry it and their mean rating is above the
mean of the history, *disliked* when it is below. Without ratings a value is liked when at least two items carry it,
and ``also`` names values of one item. Compared with population rates, a value is liked when clearly more items
carry it than in other users' histories, and disliked when clearly fewer do.

Where items have no attributes, claims are about titles, in quotes: ``By title: likes "Heat, The (1995)", "Big";
dislikes "Alien".`` A title is liked when it was rated above the mean of the history, or has no rating.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from itertools import zip_longest
from typing import NamedTuple

from recloop.llm.completion_text import SENTENCE_END

NO_PREFERENCE = "No clear preference."
TITLE = "title"  # what claims are about where items have no attributes
MORE, LESS = 1.25, 0.75  # guesses: times the expected number of items, from which on it is clearly more, or fewer
FEWEST = 2.0  # items that carry a value, or are expected to, before anything is said
MIN_PROSE_WORDS = 3  # guess: fewer after a full stop are the rest of a name

LINE_END = r"(?<=\.)(?<!\b[A-Z]\.)[ \t]*\n\s*"
OUTSIDE_QUOTES = re.compile(r'; (?=[^"]*(?:"[^"]*"[^"]*)*$)')
QUOTED_SECTION = re.compile(r'(?:"[^"]*"|[^".])*\.')
TITLES = re.compile(r'"[^"]+"(?:, "[^"]+")*')
ABBREVIATED = re.compile(
    r"\b(?:Co|Corp|Inc|Ltd|Intl|Mfg|Bros|Dept|Dr|Mr|Mrs|Ms|Prof|Jr|Sr|St|Mt|Ft|Vol|No|Pt|Ed|Misc|vs)\.$"
)
OPENING = re.compile(r"(?:Overall|However|Generally|In (?:all|summary|short|general|addition)),\s+")

PopulationRates = Mapping[tuple[str, str], float]
"""(attribute, value) -> the mean over users of the share of a history's items that carry it."""


class Polarity(StrEnum):
    """What a claim says of a value; the words are those of the text."""

    LIKES = "likes"
    DISLIKES = "dislikes"
    ALSO = "also"  # implicit logs only: one item carries it


POLARITIES = tuple(Polarity)


@dataclass(frozen=True, slots=True)
class HistoryItem:
    """One item of a history: its values, attribute by attribute; `rating` is None when the log is implicit."""

    title: str
    values: tuple[tuple[str, ...], ...]
    rating: float | None


@dataclass(frozen=True, slots=True)
class Claim:
    """One statement about a user: this value of this attribute is liked, disliked or occurs."""

    attribute: str
    polarity: Polarity
    value: str


class Basis(StrEnum):
    """What a claim rests on."""

    RATING = "rating"  # rated above or below the user's own mean
    SHARE = "share"  # in more or fewer items than in other users' histories
    COUNT = "count"  # in how many items


class Evidence(NamedTuple):  # dozens a user: a third of the time that a dataclass takes
    """What a history says about one value."""

    attribute: str
    value: str
    num_items: int
    excess: float  # (rating - mean of the history) summed over items; or items above the expected; 0 for counts
    basis: Basis
    num_expected: float = 0.0  # items that carry it in other histories of this length; 0 without a comparison

    @property
    def polarity(self) -> Polarity | None:
        """The claim this evidence supports, or None when it supports none."""
        if self.basis is Basis.RATING:  # first, since it is asked most often
            is_clear = self.num_items >= self._fewest and abs(self.excess) >= 1e-9
            return (Polarity.LIKES if self.excess > 0 else Polarity.DISLIKES) if is_clear else None
        if self.basis is Basis.COUNT:
            return Polarity.LIKES if self.num_items >= self._fewest else Polarity.ALSO
        if self.num_items >= max(FEWEST, MORE * self.num_expected):
            return Polarity.LIKES
        is_rare = self.num_expected >= FEWEST and self.num_items <= LESS * self.num_expected
        return Polarity.DISLIKES if is_rare else None

    @property
    def _fewest(self) -> float:
        return 1 if self.attribute == TITLE else FEWEST

    @property
    def strength(self) -> float:
        """How much the history supports it: excess in ratings, excess over its noise, or number of items."""
        if self.basis is Basis.COUNT:
            return float(self.num_items)
        return abs(self.excess) / (self.num_expected + 1) ** 0.5  # none is expected where ratings are compared


@dataclass(frozen=True, slots=True)
class ParsedCompletion:
    """The claims of one text, and whether all of it has the canonical form."""

    claims: tuple[Claim, ...]
    attributes: tuple[str, ...]  # that the text has a section for, in its order, `mixed` ones included
    is_well_formed: bool


def weigh_history(
    attributes: Sequence[str],
    history: Iterable[HistoryItem],
    population_rates: PopulationRates | None = None,
    fewest: int = 1,
) -> list[Evidence]:
    """Evidence for every value of a history, attribute by attribute, strongest first; for titles the latest first.

    Args:
        attributes: names, in the order of each item's `values`; without any, the evidence is about titles.
        history: the items shown; all have ratings, or none has.
        population_rates: what to compare the history with; None to go by its ratings, or by counts alone. With
            them, a value that no item carries has evidence where items are expected to. Titles are not compared.
        fewest: by ratings, values that fewer items carry are left out.
    """
    items = list(history)
    if are_titles := not attributes:
        attributes, population_rates, fewest = (TITLE,), None, 1
        items = [HistoryItem(item.title, ((item.title,),), item.rating) for item in reversed(items)]
    rating = [item.rating for item in items if item.rating is not None]
    mean = sum(rating) / len(rating) if rating else 0.0
    columns = tuple(attributes)
    sums: dict[tuple[str, str], tuple[int, float]] = {}  # items that carry a value, and their excess
    for item in items:
        above = 0.0 if item.rating is None else item.rating - mean
        for key in _distinct_values(columns, item.values):
            num, excess = sums.get(key, (0, 0.0))
            sums[key] = num + 1, excess + above
    if population_rates is not None:
        nums = {key: num for key, (num, _) in sums.items()}
        expected_of = {
            key: expected
            for key, share in population_rates.items()
            if ((expected := share * len(items)) >= FEWEST or key in nums) and key[0] in columns
        }
        found = [
            Evidence(*key, nums.get(key, 0), nums.get(key, 0) - expected, Basis.SHARE, expected)
            for key, expected in (dict.fromkeys(nums, 0.0) | expected_of).items()
        ]
    elif rating:
        known = ((key, num, excess) for key, (num, excess) in sums.items() if num >= fewest)
        found = [Evidence(*key, num, round(excess, 6), Basis.RATING) for key, num, excess in known]
    else:
        found = [Evidence(*key, num, 0.0, Basis.COUNT) for key, (num, _) in sums.items()]
    if are_titles:
        return found
    place = {attribute: number for number, attribute in enumerate(columns)}
    return sorted(found, key=lambda e: (place[e.attribute], -e.strength, e.value))


@lru_cache(maxsize=2**16)
def _distinct_values(attributes: tuple[str, ...], values: tuple[tuple[str, ...], ...]) -> tuple[tuple[str, str], ...]:
    """The values of one item, each with its attribute."""
    pairs = zip(attributes, values, strict=True)
    return tuple((attribute, value) for attribute, told in pairs for value in dict.fromkeys(told))


def population_rates(attributes: Sequence[str], histories: Iterable[Sequence[HistoryItem]]) -> PopulationRates:
    """The share of a history that carries each value: the mean over these histories, empty ones left out."""
    sums: dict[tuple[str, str], float] = defaultdict(float)
    columns, num_histories = tuple(attributes), 0
    for items in histories:
        num_histories += bool(items)
        for item in items:
            for key in _distinct_values(columns, item.values):
                sums[key] += 1 / len(items)
    return {key: total / num_histories for key, total in sums.items()}


def true_claims(
    attributes: Sequence[str], history: Iterable[HistoryItem], population_rates: PopulationRates | None = None
) -> list[tuple[Claim, float]]:
    """Every claim the history supports with its strength, attribute by attribute, strongest first."""
    return [
        (Claim(evidence.attribute, evidence.polarity, evidence.value), evidence.strength)
        for evidence in weigh_history(attributes, history, population_rates)
        if evidence.polarity is not None
    ]


def write_summary(claims: Sequence[Claim], attributes: Sequence[str] | None = None) -> str:
    """The canonical text of these claims: in a section likes, dislikes, then `also`, each in the given order.

    Args:
        attributes: the sections in their order, "mixed" where nothing is claimed; None: as first mentioned.

    Example:
        >>> write_summary([Claim("genre", Polarity.LIKES, "Drama"), Claim("genre", Polarity.DISLIKES, "War")])
        'By genre: likes Drama; dislikes War.'
    """
    by_attribute: dict[str, dict[Polarity, list[str]]] = {attribute: {} for attribute in attributes or ()}
    for claim in claims:
        by_attribute.setdefault(claim.attribute, {}).setdefault(claim.polarity, []).append(claim.value)
    return " ".join(write_section(*section) for section in by_attribute.items()) or NO_PREFERENCE


def write_section(attribute: str, values_of: Mapping[Polarity, Sequence[str]]) -> str:
    """One section of a summary, "mixed" where nothing is claimed."""
    parts = [
        f"{polarity.value} {', '.join(written_value(attribute, value) for value in values_of[polarity])}"
        for polarity in POLARITIES
        if values_of.get(polarity)
    ]
    return f"By {attribute}: {'; '.join(parts) or 'mixed'}."


def written_value(attribute: str, value: str) -> str:
    """A value as the canonical text has it: titles, which may hold commas, in quotes."""
    return f'"{value}"' if attribute == TITLE else value


def parse_claims(text: str, attributes: Sequence[str]) -> ParsedCompletion:
    """The claims of a text, and whether it has the canonical form; parts that do not have it are skipped.

    Sections may stand on lines of their own. Prose after a section, on a new line or as a sentence, is no
    part of its values, but names with full stops (``Dr. Seuss``) are. A line goes on in the next unless it ends
    in a full stop that is not an initial's. Sections have the names in `attributes`; without any, ``title``.

    Example:
        >>> parse_claims("By genre: likes Drama; dislikes War. By era: mixed.", ("genre", "era")).attributes
        ('genre', 'era')
    """
    text = text.strip()
    if text == NO_PREFERENCE:
        return ParsedCompletion((), (), True)
    names = "|".join(re.escape(attribute) for attribute in sorted(attributes or (TITLE,), key=len, reverse=True))
    starts = list(section_heads(names).finditer(text))
    claims: list[Claim] = []
    is_clean = bool(starts) and starts[0].start() == 0
    for start, following in zip_longest(starts, starts[1:]):
        body = text[start.end() : following.start() if following else len(text)].strip()
        said = _without_prose(start[1], body)
        found = _parse_section(start[1], said)
        is_clean = is_clean and found is not None and said == body
        claims.extend(found or ())
    seen = tuple(dict.fromkeys(start[1] for start in starts))
    is_clean = is_clean and len(set(claims)) == len(claims) and len(seen) == len(starts)
    return ParsedCompletion(tuple(dict.fromkeys(claims)), seen, is_clean)


def section_heads(names: str) -> re.Pattern[str]:
    """A pattern for the beginning of a section; `names`, a pattern for attribute names, is its group 1."""
    return re.compile(rf"(?:^|(?<=\. )|{LINE_END})By ({names}): ")


def _without_prose(attribute: str, body: str) -> str:
    """A section's body without the prose after it."""
    if attribute == TITLE:
        section = QUOTED_SECTION.match(body)
        return section[0] if section else body
    body = re.split(LINE_END, body, maxsplit=1)[0]
    for end in SENTENCE_END.finditer(body):
        if not ABBREVIATED.search(body, 0, end.start()) and _is_prose(body[end.end() :]):
            return body[: end.start()]
    return body


def _is_prose(text: str) -> bool:
    """Whether a text begins like a sentence: at least three words up to a comma, most of them in lower case."""
    clause = re.split(r"[,;.!?]", OPENING.sub("", text, count=1), maxsplit=1)[0]
    words = [word for word in clause.split() if word[0].isalpha()]
    return len(words) >= MIN_PROSE_WORDS and 2 * sum(word[0].islower() for word in words) > len(words)


def _parse_section(attribute: str, body: str) -> list[Claim] | None:
    """Claims of one section's body, or None when it breaks the form."""
    if not body.endswith("."):
        return None
    if body == "mixed.":
        return []
    claims: list[Claim] = []
    is_quoted = attribute == TITLE
    split = _split_titles if is_quoted else _split_values
    for part in OUTSIDE_QUOTES.split(body[:-1]) if is_quoted else body[:-1].split("; "):
        head, _, rest = part.partition(" ")
        values = split(rest)
        if head not in {p.value for p in Polarity} or not values:
            return None
        claims.extend(Claim(attribute, Polarity(head), value) for value in values)
    return claims


def _split_values(listed: str) -> list[str]:
    """The values of a list; none where one is missing."""
    values = [value.strip() for value in listed.split(", ")]
    return values if all(values) and not any("," in value for value in values) else []


def _split_titles(listed: str) -> list[str]:
    """The titles of a list, each in quotes; none where it is not such a list."""
    return [title.strip() for title in listed[1:-1].split('", "')] if TITLES.fullmatch(listed) else []
