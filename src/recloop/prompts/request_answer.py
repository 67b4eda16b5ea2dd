"""Answers to requests: their paragraphs, the titles these name, and the item in the box.

Every answer is read, scored and counted by this rule:

1. An answer that the token limit cut is ``endless`` and answers nothing, box or not.
2. Boxes with different contents are ``two_boxes`` and answer nothing: hedging is not rewarded.
3. No box, or an empty one, is ``no_box`` and answers nothing. In a box a command for letters (``\\text{...}``,
   ``\\emph`` and similar) stands for what its braces hold. A box with other braces in it is none.
4. A box holds a title, or a ranked list of titles separated by `` ; `` or line ends. The first that names no
   candidate, or more than one, makes the answer ``no_candidate``; the titles before it count.
5. Otherwise the answer is ``ok``. It is also well formed when there is exactly one box, at the very end, after
   a paragraph of reasoning.

Titles match when their words do: accents, casing, punctuation, articles (``Matrix, The``) and a year do not matter,
unless the year contradicts or two candidates differ by nothing else. The longest title at a place is meant. Running
text names a title of one word only inside quotation marks, or capitalised within a sentence: ``It``, not ``it``.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import pairwise

STYLE = r"\\(?:text(?:bf|it|rm|sf|tt|sc)?|math(?:bf|it|rm|sf|tt)|emph)\s*"
STYLED = re.compile(STYLE + r"\{([^{}]*)\}")
BOX = re.compile(rf"\\boxed\s*\{{((?:{STYLE}\{{[^{{}}]*\}}|[^{{}}])*)\}}")
BLANK_LINES = re.compile(r"\n[ \t]*(?:\n[ \t]*)+")
WORD = re.compile(r"&|\w+(?:['’]\w+)*")
YEAR = re.compile(r"(?:18|19|20)\d\d")
GROUP = re.compile(r"\s*\(([^()]*)\)")
LEADING_ARTICLES = ("the", "a", "an")
ARTICLES = re.compile("the|an?|las?|les?|el|los|il|lo|gli|der|die|das|den|det")
QUOTES = tuple("\"'“”‘’«»*_{")


class AnswerStatus(StrEnum):
    """How an answer counts, by the rule of this module."""

    OK = "ok"
    NO_CANDIDATE = "no_candidate"
    NO_BOX = "no_box"
    TWO_BOXES = "two_boxes"
    ENDLESS = "endless"


@dataclass(frozen=True, slots=True)
class Paragraph:
    """A paragraph of an answer, its box and the blank lines after it included; together they cover the text."""

    start: int
    end: int
    named: tuple[int, ...]  # positions of the candidates it names, ascending


@dataclass(frozen=True, slots=True)
class Answer:
    """What an answer says. ranked: positions of candidates, best first. box: characters of the box that decides."""

    status: AnswerStatus
    ranked: tuple[int, ...]
    is_well_formed: bool
    paragraphs: tuple[Paragraph, ...]
    box: tuple[int, int] | None = None

    @property
    def first(self) -> int | None:
        """The candidate it decides for."""
        return self.ranked[0] if self.ranked else None


@dataclass(frozen=True, slots=True)
class Title:
    """A title for matching. names: its words, and those of its other names; year: None if unknown."""

    names: tuple[tuple[str, ...], ...]
    year: str | None


def read_title(text: str) -> Title:
    """The words and the year of a title.

    Example:
        >>> read_title("Boat, The (Das Boot) (1981)")
        Title(names=(('boat',), ('das', 'boot')), year='1981')
        >>> read_title("The Matrix").names == read_title("MATRIX, THE (1999)").names
        True
    """
    groups = [group.strip() for group in GROUP.findall(text)]
    years = [group for group in groups if YEAR.fullmatch(group)]
    main = GROUP.sub("", text).strip()
    aliases = [re.sub(r"^a\.?\s?k\.?\s?a\.?\s+", "", g, flags=re.I) for g in groups if g not in years]
    names = [name for one in (main, *aliases) if (name := _name(one))]
    return Title(tuple(dict.fromkeys(names)), years[-1] if years else None)


def are_tellable(titles: Sequence[str]) -> bool:
    """Whether each of these titles matches itself and no other."""
    known = [read_title(title) for title in titles]
    return all(_match(title, known) == [place] for place, title in enumerate(known))


def read_answer(text: str, titles: Sequence[str], *, is_finished: bool) -> Answer:
    """An answer read by the rule of this module.

    Args:
        titles: of the candidates, as they were shown.
        is_finished: False when the token limit cut the text.

    Example:
        >>> text = 'Wanted: war.\\n\\n\\\\boxed{Iron Tide}'
        >>> answer = read_answer(text, ["Iron Tide", "Ox"], is_finished=True)
        >>> answer.status.value, answer.ranked, answer.is_well_formed, answer.paragraphs[1]
        ('ok', (0,), True, Paragraph(start=14, end=31, named=(0,)))
    """
    known = [read_title(title) for title in titles]
    bounds = [0, *(found.end() for found in BLANK_LINES.finditer(text)), len(text)]
    paragraphs = tuple(
        Paragraph(start, end, _named_in(text[start:end], known)) for start, end in pairwise(bounds) if end > start
    )
    boxes = [(box, STYLED.sub(r"\1", box[1])) for box in BOX.finditer(text)]
    filled = [(box, content) for box, content in boxes if _words(content)]
    if not is_finished:
        return Answer(AnswerStatus.ENDLESS, (), False, paragraphs)
    if len({_words(content) for _, content in filled}) > 1:
        return Answer(AnswerStatus.TWO_BOXES, (), False, paragraphs)
    if not filled:
        return Answer(AnswerStatus.NO_BOX, (), False, paragraphs)
    box, content = filled[0]
    ranked, is_whole = _read_box(content, known)
    has_reasoning = any(char.isalnum() for char in text[: box.start()])
    is_at_end = len(boxes) == 1 and not text[box.end() :].strip(" .\n\t$*")
    status = AnswerStatus.OK if is_whole else AnswerStatus.NO_CANDIDATE
    return Answer(status, ranked, is_whole and has_reasoning and is_at_end, paragraphs, box.span())


def _read_box(content: str, known: Sequence[Title]) -> tuple[tuple[int, ...], bool]:
    """The candidates a box ranks, and whether it names nothing else; a repeated one counts once."""
    is_one = len(_match(read_title(content), known)) == 1
    parts = [content] if is_one else re.split(r"\s;\s|\n", content)
    ranked: dict[int, None] = {}
    for part in filter(str.strip, parts):
        matches = _match(read_title(re.sub(r"^\s*\d+[.)]\s+", "", part)), known)
        if len(matches) != 1:
            return tuple(ranked), False
        ranked[matches[0]] = None
    return tuple(ranked), True


def _match(wanted: Title, known: Sequence[Title]) -> list[int]:
    """Positions of the titles that `wanted` can mean; those of its own year only where it gives one."""
    names = set(wanted.names)
    same = [place for place, title in enumerate(known) if names & set(title.names)]
    if wanted.names:  # a main title outranks an alternative one
        main = [place for place in same if known[place].names[:1] == wanted.names[:1]]
        same = main or same
    if wanted.year is None:
        return same
    agreeing = [place for place in same if known[place].year == wanted.year]
    return agreeing or [place for place in same if known[place].year is None]


def _named_in(text: str, known: Sequence[Title]) -> tuple[int, ...]:
    """Candidates that a paragraph names: the longest title at each place, from left to right."""
    told = [(plain, found.span()) for found in WORD.finditer(text) if (plain := _plain(found.group()))]
    words, spans = tuple(plain for plain, _ in told), [span for _, span in told]
    by_name: dict[tuple[str, ...], list[int]] = {}
    for place, title in enumerate(known):
        for name in title.names:
            by_name.setdefault(name, []).append(place)
    longest_first = sorted({len(name) for name in by_name}, reverse=True)
    named: set[int] = set()
    at = 0
    while at < len(words):
        for length in longest_first:
            name = words[at : at + length]
            if name in by_name and (len(name) > 1 or _is_set_apart(text, *spans[at])):
                after = words[at + length] if at + length < len(words) else ""
                is_year = YEAR.fullmatch(after) is not None
                named.update(n for n in by_name[name] if not is_year or known[n].year in (after, None))
                at += len(name)
                break
        else:
            at += 1
    return tuple(sorted(named))


def _is_set_apart(text: str, start: int, end: int) -> bool:
    """Whether a word stands between quotation marks, stars or braces, or is capitalised in mid-sentence."""
    before, after = text[:start].rstrip(" "), text[end:].lstrip(" ")
    opened = re.sub(r"(?i)(?:^|(?<=[^\w]))(?:the|an?)$", "", before).rstrip(" ")
    if opened.endswith(QUOTES) and after.startswith((*QUOTES, "}", ",", "(", ".")):
        return True
    is_mid_sentence = before[-1:].isalnum() or before.endswith((",", ";", ")"))
    return is_mid_sentence and text[start].isupper()


def _name(text: str) -> tuple[str, ...]:
    """A title's words without its article, at the front or after the last comma."""
    head, comma, tail = text.rpartition(",")
    words = _words(head) if comma and ARTICLES.fullmatch(tail.strip().casefold()) else _words(text)
    without = words[1:] if words and words[0] in LEADING_ARTICLES else words
    return without or words


def _words(text: str) -> tuple[str, ...]:
    return tuple(plain for word in WORD.findall(text) if (plain := _plain(word)))


def _plain(word: str) -> str:
    """A word without case, accents and apostrophes; ``&`` is ``and``."""
    if word == "&":
        return "and"
    return "".join(c for c in unicodedata.normalize("NFKD", word.casefold()) if c.isalnum())
