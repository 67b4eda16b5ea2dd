"""The values and titles that prose names, found by their words, each with the sign the text gives it.

Words are compared without case, accents, hyphens and the ending of a plural; ``90s`` and ``nineties`` are ``1990s``.
The longest name at a place wins, and a place is read once. Where words alone could be chance, more is asked for:

* a title needs capitals at both ends, or quotes; a title of one word needs them inside a sentence;
* a value of one word needs the capital too, where its attribute has many values (brands, names);
* numbers below 100 and names of one or two letters need quotes; a "viewing history" is no genre.

The sign of a name comes from cue words (`recloop.prompts.sign_cues`). Synonyms and adjectives ("romantic") name
nothing.
"""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from recloop.prompts.claims import TITLE, Polarity
from recloop.prompts.lines import clean_title, clean_value
from recloop.prompts.sign_cues import SPOT, signs_of
from recloop.prompts.title_match import ways_to_write
from recloop.records import Log

MANY_VALUES = 50  # guess: more are names, and a name can be an ordinary word
WORD = re.compile(r"\w+")
JOINED = re.compile(r"[-/.]? ?| [-/] |[,:] | \(")
QUOTES = frozenset("\"'\u201c\u201d\u2018\u2019\xab\xbb")
_TENS = ("twen", "thir", "for", "fif", "six", "seven", "eigh", "nine")
DECADES = {f"{name}ties": f"19{n}0s" for n, name in enumerate(_TENS, 2)}
DATA_HISTORY = re.compile(r"\b(?:\w+ing|the|this|their|his|her|its|user|person|viewer|reader|purchase|watch) $", re.I)
QUOTED_BEFORE, QUOTED_AFTER = re.compile(r'["\u201c](?:[A-Z]\w* )+$'), re.compile(r'(?: [A-Z]\w*)*["\u201d]')
INNER_CAPITAL = re.compile(r"(?:[^.!?\n]\s|[\"'\u201c\u2018])[A-Z]\w* $")


@dataclass(frozen=True, slots=True)
class Mention:
    """A value or title that a text names.

    attribute: of the value, or ``title``.
    polarity: LIKES, DISLIKES, or None where the text gives no sign.
    """

    attribute: str
    value: str
    polarity: Polarity | None


@dataclass(frozen=True, slots=True)
class Catalogue:
    """The names that texts are searched for.

    names: words -> attribute and value of each name that is written so.
    beginnings: the first words of every name.
    rare: attributes whose values of one word need a capital.
    """

    names: Mapping[tuple[str, ...], tuple[tuple[str, str], ...]]
    beginnings: frozenset[tuple[str, ...]]
    rare: frozenset[str]


def index_catalogue(values: Mapping[str, Iterable[str]], titles: Iterable[str]) -> Catalogue:
    """An index of values, by attribute, and titles; a title also without its article and its year."""
    names: dict[tuple[str, ...], dict[tuple[str, str], None]] = defaultdict(dict)
    kept = {attribute: tuple(dict.fromkeys(own)) for attribute, own in values.items()}
    for attribute, own in kept.items():
        for value in own:
            names[_words(_plain(value))][attribute, value] = None
    plain = {title: _plain(title).casefold() for title in dict.fromkeys(titles)}
    exact = {_words(written) for written in plain.values()}
    for title, written in plain.items():
        own_words = _words(written)
        for words in (_words(" ".join(way)) for way in ways_to_write(written)):
            if words == own_words or words not in exact:
                names[words][TITLE, title] = None
    names.pop((), None)
    beginnings = frozenset(words[:n] for words in names for n in range(1, len(words) + 1))
    rare = frozenset(attribute for attribute, own in kept.items() if len(own) > MANY_VALUES)
    return Catalogue({words: tuple(found) for words, found in names.items()}, beginnings, rare)


def catalogue_of(log: Log) -> Catalogue:
    """An index of a log's values and titles, cleaned as prompts show them."""
    told = {name: log.items[name].explode().drop_nulls().unique(maintain_order=True) for name in log.attributes}
    values = {name: filter(None, map(clean_value, column)) for name, column in told.items()}
    return index_catalogue(values, map(clean_title, log.items["title"]))


def find_mentions(text: str, catalogue: Catalogue) -> tuple[Mention, ...]:
    """The values and titles that a text names, each with each of its signs once, in their order.

    Example:
        >>> films = index_catalogue({"genre": ["Comedy", "Drama"]}, ["Big", "Lost River"])
        >>> [(m.value, str(m.polarity)) for m in find_mentions("A fan of dramas and Big, but not of comedy.", films)]
        [('Drama', 'likes'), ('Big', 'likes'), ('Comedy', 'dislikes')]
        >>> find_mentions("A big lost river.", films)
        ()
    """
    text = _plain(text)
    masked: list[str] = []
    names: list[tuple[str, str]] = []
    at = 0
    for start, end, name in _spots(text, catalogue):
        masked += [text[at:start], SPOT]
        names.append(name)
        at = end
    signs = signs_of("".join([*masked, text[at:]]).casefold()) if names else ()
    return tuple(dict.fromkeys(Mention(*name, sign) for name, sign in zip(names, signs, strict=True)))


def _spots(text: str, catalogue: Catalogue) -> Iterator[tuple[int, int, tuple[str, str]]]:
    """Begin, end and name of every place that names something."""
    tokens = [(m.start(), m.end()) for m in WORD.finditer(text)]
    words = [_stem(text[start:end]) for start, end in tokens]
    at = 0
    while at < len(words):
        length, key, found = 0, (words[at],), None
        lengths: list[int] = []
        while key in catalogue.beginnings:
            length += 1
            if key in catalogue.names:
                lengths.append(length)
            last = at + length
            if last == len(words) or not JOINED.fullmatch(text, tokens[last - 1][1], tokens[last][0]):
                break
            key += (words[last],)
        for length in reversed(lengths):
            start, end = tokens[at][0], tokens[at + length - 1][1]
            entries = catalogue.names[tuple(words[at : at + length])]
            if found := _named(text, start, end, entries, catalogue.rare):
                yield start, end, found
                at += length
                break
        if not found:
            at += 1


def _named(
    text: str, start: int, end: int, entries: Sequence[tuple[str, str]], rare: frozenset[str]
) -> tuple[str, str] | None:
    """Which of the names with these words a place stands for; None where it may be chance."""
    span, before, after = text[start:end], text[max(0, start - 40) : start], text[end : end + 40]
    words = WORD.findall(span)
    is_quoted = before[-1:] in QUOTES and after.lstrip(",.!?")[:1] in QUOTES
    is_capital = all(word[0].isupper() or word[0].isdigit() for word in (words[0], words[-1]))
    if not is_quoted and QUOTED_BEFORE.search(before) and QUOTED_AFTER.match(after):
        return None
    values = [] if re.search("[,:(]", span) else [name for name in entries if name[0] != TITLE]
    titles = [name for name in entries if name[0] == TITLE and _is_written(words, name[1])]
    if len(words) == 1 and not is_quoted:
        opens = before.rstrip(" ")[-1:] in ("", *".!?\n")
        stands_out = is_capital and (not opens or after.lstrip(" ")[:1] in ("", *",;\n"))
        is_part = INNER_CAPITAL.search(before) or (after[:1] in (" ", "-") and after[1:2].isupper())
        is_chance = len(span) < 3 or (span == "history" and DATA_HISTORY.search(before))
        values = [name for name in values if not is_chance and (stands_out or name[0] not in rare)]
        titles = titles if stands_out and not is_chance and not is_part and not span.isdigit() else []
    elif not is_quoted and not is_capital:
        titles = []
    if values and not (is_quoted and titles):
        if len(values) == 1:
            return values[0]
        return max(values, key=lambda name: text.casefold().rfind(name[0].casefold(), 0, start))
    return titles[0] if len(titles) == 1 else None


def _is_written(words: Sequence[str], title: str) -> bool:
    """Whether a title has these words as they are: its plurals are other titles."""
    return {word.casefold() for word in words} <= {*WORD.findall(_plain(title).casefold())}


@lru_cache(maxsize=100_000)
def _stem(word: str) -> str:
    """A word without case and the ending of a plural; a decade with its century."""
    word = word.casefold()
    if word[0].isdigit():
        return f"{20 if word < '3' else 19}{word}" if re.fullmatch(r"\d0s", word) else word
    if word in DECADES:
        return DECADES[word]
    if len(word) < 4 or not word.endswith("s") or word.endswith("ss"):
        return word
    if word.endswith("ies") and len(word) > 4:
        return word[:-3] + "y"
    return word[:-2] if word.endswith(("ches", "shes", "xes", "sses")) else word[:-1]


def _words(plain: str) -> tuple[str, ...]:
    return tuple(map(_stem, WORD.findall(plain)))


def _plain(text: str) -> str:
    """A text with its capitals, but without accents, apostrophes inside words and the possessive."""
    if not text.isascii():
        text = unicodedata.normalize("NFKD", text.replace("\u2019", "'").replace(SPOT, " "))
        text = "".join(c for c in text if not unicodedata.combining(c))
    if "'" in text:
        text = re.sub(r"(?<=[^\W\d])'s\b|(?<=\w)'(?=\w)", "", text)
    return text.replace("&", " and ") if "&" in text else text
