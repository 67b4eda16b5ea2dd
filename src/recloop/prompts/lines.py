"""Items, requests and sentences as lines of a prompt.

Titles and values are data, not instructions. Control characters, line breaks, quotes and the characters that
structure a line are taken out of them, and their length is capped. So nothing in a catalogue can end a line, open a
chat turn or pose as the task.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache, lru_cache
from math import isnan

import numpy as np

from recloop.data.item_graph import MAX_VALUES
from recloop.prompts.claims import HistoryItem
from recloop.records import Domain, Log

# A history has dozens of lines: longer titles and values would leave room for fewer items.
MAX_TITLE_WORDS, MAX_TITLE_CHARS, MAX_VALUE_CHARS = 8, 80, 40
Numbers = Sequence[int] | Sequence[float] | np.ndarray
NOUNS = {Domain.MOVIES: "films", Domain.BOOKS: "books", Domain.PRODUCTS: "products", Domain.GENERIC: "items"}


@lru_cache(maxsize=2**16)
def clean_value(text: str) -> str:
    """An attribute value fit for a line: without structural characters, at most 40 characters.

    Example:
        >>> clean_value("Parts Co., Inc.; <b>\\n")
        'Parts Co. Inc. b'
    """
    return one_line(text, r'[|",;:<>\[\]{}]')[:MAX_VALUE_CHARS].strip()


def clean_title(text: str) -> str:
    """A title fit for a line: without quotes, bars and brackets, at most 8 words and 80 characters."""
    words = one_line(text, r'[|"<>\[\]{}]').split(" ")[:MAX_TITLE_WORDS]
    return " ".join(words)[:MAX_TITLE_CHARS].strip() or "untitled"


def clean_line(text: str, max_chars: int) -> str:
    """A sentence fit for a line: without quotes, bars and brackets, at most `max_chars` characters."""
    return one_line(text, r'[|"<>\[\]{}]')[:max_chars].strip()


def one_line(text: str, structural: str) -> str:
    """Any text as one line without control characters and without what `structural`, a pattern, matches."""
    if not (text.isascii() and text.isprintable()):
        text = unicodedata.normalize("NFC", text)
        text = "".join(" " if unicodedata.category(c)[0] in "CZ" else c for c in text)
    return re.sub(r"\s+", " ", re.sub(structural, " ", text)).replace(" , ", ", ").strip()


def clean_item(title: str, values: Sequence[Sequence[str]]) -> HistoryItem:
    """An item fit for a line: its title and the first values of every attribute, cleaned and cut; no rating."""
    kept = tuple(tuple(filter(None, map(clean_value, told[:MAX_VALUES]))) for told in values)
    return HistoryItem(clean_title(title), kept, None)


def history_items(log: Log, attributes: Sequence[str] | None = None) -> Callable[..., list[HistoryItem]]:
    """A function from item numbers and ratings to cleaned items; an item is cleaned when first asked for.

    Ratings are None, or NaN in one place, where they are unknown. The items have the log's attributes, or these.
    """
    rows = log.items.select("title", *(log.attributes if attributes is None else attributes)).rows()

    @cache
    def cleaned(item: int) -> HistoryItem:
        title, *values = rows[item]
        return clean_item(title, values)

    def items_of(items: Numbers, ratings: Numbers | None = None) -> list[HistoryItem]:
        shown = [cleaned(item) for item in np.asarray(items, dtype=np.int64).tolist()]
        if ratings is None:
            return shown
        pairs = zip(shown, np.asarray(ratings).tolist(), strict=True)
        return [HistoryItem(one.title, one.values, None if isnan(rating) else rating) for one, rating in pairs]

    return items_of


def history_line(attributes: Sequence[str], item: HistoryItem) -> str:
    """One item of a history: ``5 stars | "Title" | genre Drama, War``; what is unknown is left out."""
    rating = [] if item.rating is None else [f"{item.rating:g} stars"]
    return " | ".join([*rating, f'"{item.title}"', *_cells(attributes, item)])


def candidate_line(attributes: Sequence[str], item: HistoryItem) -> str:
    """One line with the title last, what is unknown left out: ``genre Drama, War | director Lee | "Title"``.

    A small model that has found a value in it only has to copy what follows to come to the title.
    """
    return " | ".join([*_cells(attributes, item), f'"{item.title}"'])


def line_from(attributes: Sequence[str], item: HistoryItem, attribute: str, value: str) -> str:
    """The rest of a `candidate_line` from a value on, which it must have: ``War | director Lee | "Title"``."""
    column = attributes.index(attribute)
    own = item.values[column]
    rest = replace(item, values=item.values[column + 1 :])
    return " | ".join([", ".join(own[own.index(value) :]), candidate_line(attributes[column + 1 :], rest)])


def _cells(attributes: Sequence[str], item: HistoryItem) -> list[str]:
    """The known attributes of an item: ``genre Drama, War``."""
    pairs = zip(attributes, item.values, strict=True)
    return [f"{attribute} {', '.join(values)}" for attribute, values in pairs if values]
