"""Matching of titles: which of some known titles a piece of an answer names.

Words are compared, with HTML entities resolved, without accents, case, apostrophes and punctuation, and with ``&``
read as ``and``. So a title with a comma, in quotes or without its colon is the same title. Then, in this order:

1. the longest title at the place wins: ``Alien 3`` is not ``Alien``;
2. an article may be absent, or follow (``Matrix, The``), and a year in brackets may be absent;
3. something must end the title (a line's end, a bracket, a bar, a comma, a dash, an explanation after a
   colon): ``Heat Wave`` does not name ``Heat``;
4. if a year follows that is not the title's own, it is another title;
5. three words or more with which only one title begins stand for it, if they are the whole entry;
6. what could be two titles is neither.
"""

from __future__ import annotations

import html
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from itertools import islice

ARTICLES = frozenset({"the", "a", "an"})
WORD = re.compile(r"\w+")
YEAR_AT_END = re.compile(r"\s*[(\[]((?:18|19|20)\d\d)[)\]]\s*$")
YEAR_NEXT = re.compile(r"\s*[(\[]((?:18|19|20)\d\d)[)\]]")
ARTICLE_AT_END = re.compile(r",\s*(the|an?)$")
IN_BRACKETS = re.compile(r"\s*[(\[][^)\]\n]*[)\]]")
# A colon ends a title only before an explanation; a subtitle is shorter (guess: six words).
ENDS_TITLE = re.compile(r"\s*(?:$|[\"”“»|(\[,;*.!?>\n)\]]|\s[-–—]+\s|:\s*$|:(?:\s+\S+){6,})")
AND_NEXT = re.compile(r"\s+(?:and|then)\s")
MIN_SHORTENED_WORDS = 3


class NoTitle(Enum):
    """Why an entry names no title."""

    UNKNOWN = "unknown"
    AMBIGUOUS = "ambiguous"


@dataclass(frozen=True, slots=True)
class Found:
    """A title in a text. end: where it and brackets after it end in the normalised text."""

    title: int
    end: int


def normalised(text: str) -> str:
    """The text without entities, accents, case and apostrophes; punctuation stays."""
    text = unicodedata.normalize("NFKD", html.unescape(text))
    text = "".join(c for c in text if not unicodedata.combining(c)).casefold()
    return re.sub(r"['’‘`´]", "", text).replace("&", " and ")


def words_of(text: str) -> tuple[str, ...]:
    """The words of a normalised text; a text without words is one word."""
    return tuple(WORD.findall(text)) or (text.strip(),)


def distinct_titles(titles: Sequence[str]) -> list[str]:
    """The titles, those that read alike numbered from the second on.

    Example:
        >>> distinct_titles(["Hamlet", "HAMLET!", "Heat"])
        ['Hamlet', 'HAMLET! (2)', 'Heat']
    """
    taken: set[tuple[str, ...]] = {words_of(normalised(title)) for title in titles}
    shown: dict[tuple[str, ...], str] = {}
    for title in titles:
        own, number = title, 1
        while (words := words_of(normalised(own))) in shown or (number > 1 and words in taken):
            number += 1
            own = f"{title} ({number})"
        shown[words] = own
    return list(shown.values())


class TitleIndex:
    """Known titles, no two with the same words (`distinct_titles`), indexed by the words they may be written with."""

    def __init__(self, titles: Sequence[str]) -> None:
        years = (YEAR_AT_END.search(title) for title in titles)
        self._years = tuple(year and year[1] for year in years)
        self._exact: dict[tuple[str, ...], set[int]] = {}
        self._loose: dict[tuple[str, ...], set[int]] = {}
        for number, title in enumerate(titles):
            text = normalised(title)
            self._exact.setdefault(words_of(text), set()).add(number)
            for words in ways_to_write(text):
                self._loose.setdefault(words, set()).add(number)
        self._longest = max((len(words) for words in (*self._exact, *self._loose)), default=0)

    def find(self, text: str, start: int = 0, *, inline: bool = False) -> Found | NoTitle:
        """The title that a normalised text names at `start`; `inline`: ``and`` may follow, as in a sentence."""
        spans = [(m.group(), m.end()) for m in islice(WORD.finditer(text, start), self._longest + 1)]
        verdict = NoTitle.UNKNOWN
        for skipped in (0, 1) if spans and spans[0][0] in ARTICLES else (0,):
            for length in range(len(spans), skipped, -1):
                words, end = tuple(word for word, _ in spans[skipped:length]), spans[length - 1][1]
                if not ENDS_TITLE.match(text, end) and not (inline and AND_NEXT.match(text, end)):
                    continue
                for index in (self._exact, self._loose):
                    found = {n for n in index.get(words, ()) if self._year_fits(n, text, end)}
                    if len(found) == 1:
                        told = IN_BRACKETS.match(text, end)
                        return Found(found.pop(), told.end() if told else end)
                    if found:
                        verdict = NoTitle.AMBIGUOUS
        return verdict

    def find_whole(self, text: str) -> Found | NoTitle:
        """The title that a whole entry names: the entry begins with it, or is the beginning of it."""
        found = self.find(text)
        if isinstance(found, Found):
            return found
        words = words_of(text)
        longer = {n for w, ns in self._exact.items() if w[: len(words)] == words for n in ns}
        if len(words) >= MIN_SHORTENED_WORDS and len(longer) == 1:
            return Found(longer.pop(), len(text))
        return found

    def _year_fits(self, title: int, text: str, end: int) -> bool:
        told = YEAR_NEXT.match(text, end)
        return told is None or self._years[title] in (None, told[1])


def ways_to_write(text: str) -> set[tuple[str, ...]]:
    """All ways to write a normalised title: with or without its year; its article before, after or absent."""
    year = YEAR_AT_END.search(text)
    name = YEAR_AT_END.sub("", text) if year else text
    behind = ARTICLE_AT_END.search(name)
    words = words_of(name)
    if behind:
        article, bare = behind[1], words[:-1]
    elif words[0] in ARTICLES:
        article, bare = words[0], words[1:]
    else:
        article, bare = "", words
    forms = {(article, *bare), bare, (*bare, article)} if article and bare else {words}
    return forms | ({(*form, year[1]) for form in forms} if year else set())
