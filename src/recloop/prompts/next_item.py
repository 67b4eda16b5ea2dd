"""Next-item prompts: a session and its candidates in words, and the ranking that an answer gives.

The lines of a prompt: the items of the session (oldest first), the candidates, the latest item once more, a hint if
there is one, the task. The canonical answer of a small model names the attribute value it goes by, then writes the
candidates that share it as the rest of their line; any other list of titles is read in the same way:

    By director Ann Vale:
    1. Ann Vale | "Quiet Bridge"
    2. Ann Vale, Bo Lee | genre Drama | "Glass Harbour"

Source: Re2LLM (arXiv 2403.16427), its next-item prompt. Deviations: candidates have lines of their own with
their attributes; the titles of candidates all differ; the answer is parsed by a written rule.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

from recloop.errors import SettingError
from recloop.prompts.claims import HistoryItem
from recloop.prompts.lines import candidate_line, clean_line
from recloop.prompts.title_match import Found, NoTitle, TitleIndex, distinct_titles, normalised

SYSTEM = "You recommend the next item."
HINT = "Hint: "
LATEST = "Latest: "
MAX_HINT_CHARS = 240
NUM_RANKED = 10  # titles asked for, as in the paper

# `1.` `1)` `(1)` `#1:` `-` `*` `•`, a bullet and a number, and quotes or brackets that open
LIST_MARK = re.compile(r"^\s*(?:[-*•·–—>]+\s+)?(?:(?:#?\(?\d{1,3}\s?[.):\]]+|#\d{1,3})\s+)?[\s\"“”«\[({*_]*")
HAS_MARK = re.compile(r"^\s*(?:[-*•·–—]+\s|#?\(?\d{1,3}\s?[.):\]]+\s|#\d{1,3}\s)")
INLINE_NUMBER = re.compile(r"(?<=[\s,;])#?\(?\d{1,2}[.)]\s")
SEPARATOR = re.compile(r"[,;>|\n]|\s(?:and|then)\s|\s[-–—]\s")
BETWEEN = re.compile(r"[\s,;>|\"“”«»\[\](){}.*_\-–—:]*")
JOINING = re.compile(r"(?:and|then)\s+[\s\"“”«\[(*_]*")
LINE_OF_ITEM = re.compile(r"^(\s*(?:\d{1,3}[.)]\s*)?)[^\n]*\|\s*[\"“]([^\"”\n]+)[\"”]\s*$", re.MULTILINE)
MAX_ENTRY_WORDS = 12  # guess: an unknown entry longer than this is prose, not a title


@dataclass(frozen=True, slots=True)
class SessionText:
    """What a prompt shows: cleaned items (oldest first), candidates in their order, and a plural noun for them."""

    noun: str
    attributes: tuple[str, ...]
    shown: tuple[HistoryItem, ...]
    candidates: tuple[HistoryItem, ...]


@dataclass(frozen=True, slots=True)
class Ranking:
    """The candidates an answer ranks, best first, and its defects."""

    places: tuple[int, ...]  # positions among the candidates, each once, at most as many as were asked for
    num_invented: int  # entries that name no candidate
    num_repeated: int  # entries that name one again
    num_ambiguous: int  # entries that could be two candidates
    num_missing: int  # how many fewer than asked for
    num_beyond: int  # candidates named after the last place asked for

    @property
    def defects(self) -> dict[str, int]:
        """The counts by name."""
        return {name: count for name, count in asdict(self).items() if name.startswith("num_")}

    def rank_of(self, candidate: int) -> int | None:
        """The place of a candidate, from 1; None where it is not ranked."""
        return self.places.index(candidate) + 1 if candidate in self.places else None


def clean_hint(text: str) -> str:
    """A hint fit for a line."""
    return clean_line(text, MAX_HINT_CHARS)


def next_item_text(session: SessionText, hint: str = "", num_ranked: int = NUM_RANKED) -> str:
    """The user turn: session, candidates, hint, task. SettingError without items or candidates of different titles."""
    titles = [item.title for item in session.candidates]
    if not session.shown or not titles or distinct_titles(titles) != titles:
        raise SettingError(
            f"a next-item prompt needs an item and candidates of different titles, got "
            f"{len(session.shown)} items and {len(titles)} candidates; use with_distinct_titles"
        )
    told = [candidate_line(session.attributes, item) for item in session.shown]
    offered = [candidate_line(session.attributes, item) for item in session.candidates]
    hints = [HINT + clean_hint(hint)] if hint.strip() else []
    task = (
        f"Rank the {min(num_ranked, len(offered))} candidates most likely to be the next of these {session.noun}, "
        f"one title per line."
    )
    lines = [f"{len(told)} {session.noun}, oldest first:", *told, f"{len(offered)} candidates:", *offered]
    return "\n".join([*lines, LATEST + told[-1], *hints, task])


def with_distinct_titles(items: Sequence[HistoryItem]) -> tuple[HistoryItem, ...]:
    """The items, those whose titles read alike numbered from the second on."""
    titles = distinct_titles([item.title for item in items])
    return tuple(replace(item, title=title) for title, item in zip(titles, items, strict=True))


def parse_ranking(text: str, titles: Sequence[str], num_ranked: int) -> Ranking:
    """The candidates an answer names, in its order, at most `num_ranked`; `titles` are those that the prompt shows.

    If several lines are marked as a list or begin with a candidate, each line is one entry; lines that are none (a
    greeting, an explanation) are skipped. Any other answer is read as one list within a sentence, separated by
    commas, semicolons, arrows, numbers or ``and``. Of a line with bars that ends in a quoted title, that title is
    the entry. `recloop.prompts.title_match` decides what an entry names.

    Example:
        >>> parse_ranking("Sure! 1. Alien, 2. The Heat and Jaws", ["Heat", "Alien"], 2).places
        (1, 0)
    """
    index = TitleIndex(titles)

    def title_of(line: re.Match[str]) -> str:
        is_title = isinstance(index.find_whole(normalised(line[2])), Found)
        return line[1] + line[2] if is_title else line[0]

    listed: list[Found | NoTitle] = []
    told: list[str] = []
    num_listed, has_inner_list = 0, False
    for line in filter(str.strip, normalised(LINE_OF_ITEM.sub(title_of, text)).splitlines()):
        entry = LIST_MARK.sub("", line, count=1)
        # A title may look like a mark (`4: Rise of ...`), so a line is first read as it is.
        whole = index.find_whole(line)
        what = whole if isinstance(whole, Found) else index.find_whole(entry)
        is_listed = isinstance(what, Found) or HAS_MARK.match(line) is not None
        num_listed += is_listed
        has_inner_list = has_inner_list or len(INLINE_NUMBER.findall(entry)) >= 2
        if is_listed or what is NoTitle.AMBIGUOUS or _may_be_title(entry):
            listed.append(what)
        if is_listed or not line.rstrip().endswith(":"):
            told.append(line)
    is_list = num_listed >= 2 and not has_inner_list
    return _ranking(listed if is_list else _inline_entries("\n".join(told), index), min(num_ranked, len(titles)))


def _may_be_title(entry: str) -> bool:
    """Whether an unmarked line between entries stands for a title: short, and no sentence."""
    has_words = re.search(r"\w", entry) is not None
    is_short = len(entry.split()) <= MAX_ENTRY_WORDS
    return has_words and is_short and not entry.rstrip().endswith((":", ".", "!", "?"))


def _inline_entries(text: str, index: TitleIndex) -> list[Found | NoTitle]:
    """The entries of a list within a sentence; none where no piece of it names a candidate."""
    is_title = isinstance(index.find(text, 0, inline=True), Found)
    text = INLINE_NUMBER.sub(", ", text if is_title else LIST_MARK.sub("", text, count=1))
    entries: list[Found | NoTitle] = []
    place = 0
    while place < len(text):
        place = max(place, _end_of(BETWEEN, text, place))
        if place >= len(text):
            break
        named = index.find(text, place, inline=True)
        if not isinstance(named, Found):  # a title may begin with `and`, so that word is skipped second
            place = _end_of(JOINING, text, place)
            named = index.find(text, place, inline=True)
        if isinstance(named, Found):
            entries.append(named)
            place = named.end
            continue
        next_one = SEPARATOR.search(text, place)
        end = next_one.start() if next_one else len(text)
        piece = text[place:end]
        colon = piece.find(": ")
        if colon >= 0 and not entries:  # a preface ("My picks: ...") names nothing
            place += colon + 2
            continue
        whole = index.find_whole(piece)
        if isinstance(whole, Found) or whole is NoTitle.AMBIGUOUS or _may_be_title(piece.rstrip(". ")):
            entries.append(whole)
        place = end + 1
    return entries if any(what is not NoTitle.UNKNOWN for what in entries) else []


def _end_of(pattern: re.Pattern[str], text: str, start: int) -> int:
    match = pattern.match(text, start)
    return match.end() if match else start


def _ranking(named: Sequence[Found | NoTitle], num_ranked: int) -> Ranking:
    found = [what.title for what in named if isinstance(what, Found)]
    places = tuple(dict.fromkeys(found))
    num_ambiguous = sum(what is NoTitle.AMBIGUOUS for what in named)
    return Ranking(
        places[:num_ranked],
        num_invented=len(named) - len(found) - num_ambiguous,
        num_repeated=len(found) - len(places),
        num_ambiguous=num_ambiguous,
        num_missing=max(0, num_ranked - len(places)),
        num_beyond=max(0, len(places) - num_ranked),
    )
