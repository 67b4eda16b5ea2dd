"""Prompts: a user's history in words, and what the language model is asked to do with it.

Titles and values are data, not instructions: control characters, line breaks, quotes and the characters that
structure a line are taken out of them, and they are capped in length, so that nothing in a catalogue can end
a line, open a chat turn or pose as the task.

Source: KAR (arXiv 2306.10933), the structure of its user prompt. Deviations: the attributed template puts the
stars first and the item's named attributes beside its title, the header gives the user's mean rating, and the
task names the attributes, so that small models can read, count and be checked.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from recloop.errors import SettingError
from recloop.llm.chat import CHAT_TOKENS
from recloop.prompts.claims import (
    Basis,
    Claim,
    HistoryItem,
    Polarity,
    PopulationRates,
    population_rates,
    weigh_history,
    write_summary,
)
from recloop.records import Log, Domain, Histories, Prompt

SYSTEM = "You summarise a user's preferences, step by step."
MAX_VALUE_CHARS = 40

FACTORS = {
    Domain.MOVIES: "genre, director and actors, time period and country, character, plot and theme, "
    "mood and tone, critical acclaim and awards, production quality, soundtrack",
    Domain.BOOKS: "genre, author, writing style, theme, setting, length and complexity, time period, "
    "literary quality, critical acclaim",
    Domain.PRODUCTS: "category, brand, purpose, price range, quality, style",
    Domain.GENERIC: "kind, maker, theme, style, quality",
}
NOUNS = {Domain.MOVIES: "films", Domain.BOOKS: "books", Domain.PRODUCTS: "products", Domain.GENERIC: "items"}


class PromptConfig(BaseModel):
    """How a history is put into words."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    template: Literal["counted", "attributed", "plain"] = Field(
        default="counted",
        description="attributed: attributes beside each title; counted: the same, and under it which values the "
        "whole history repeats; plain: KAR's, titles and stars",
    )
    likes_by: Literal["rating", "share"] = Field(
        default="rating",
        description="what counted likes are: rated above the user's own mean (without stars: met twice); or "
        "share: met more often than in train users' histories",
    )
    max_prompt_tokens: int = Field(
        default=448, ge=64, description="token budget of a whole prompt; oldest lines are cut"
    )
    max_title_words: int = Field(default=8, ge=1, description="longer titles are cut to this many words")
    max_values: int = Field(default=3, ge=1, description="values of one attribute shown per item")
    include_profile: bool = Field(default=False, description="show the user's profile columns (age, gender, ...)")
    max_counted: int = Field(
        default=8, ge=1, description="values that a count line names on each of its sides, strongest first"
    )


def clean_value(text: str, max_chars: int = MAX_VALUE_CHARS) -> str:
    """An attribute value fit for a line: one line, no structural characters, at most `max_chars` characters.

    Example:
        >>> clean_value("Parts Co., Inc.; <b>\\n")
        'Parts Co. Inc. b'
    """
    return one_line(text, r'[|",;:<>\[\]{}]')[:max_chars].strip()


def clean_title(text: str, max_words: int) -> str:
    """A title fit for a line: one line, no quotes, bars or brackets, at most `max_words` words."""
    return " ".join(one_line(text, r'[|"<>\[\]{}]').split(" ")[:max_words])[:80].strip() or "untitled"


def clean_line(text: str, max_chars: int) -> str:
    """A sentence fit for a line: one line, no quotes, bars or brackets, at most `max_chars` characters."""
    return one_line(text, r'[|"<>\[\]{}]')[:max_chars].strip()


def one_line(text: str, structural: str) -> str:
    """Any text as one line without control characters and without what `structural`, a pattern, matches."""
    text = unicodedata.normalize("NFC", text)
    text = "".join(" " if unicodedata.category(c)[0] in "CZ" else c for c in text)
    return re.sub(r"\s+", " ", re.sub(structural, " ", text)).replace(" , ", ", ").strip()


def history_line(attributes: Sequence[str], item: HistoryItem) -> str:
    """One attributed line: ``5 stars | "Title" | genre Drama, War``; what is unknown is left out."""
    cells = [f"{attribute} {', '.join(values)}" for attribute, values in _known(attributes, item)]
    rating = [] if item.rating is None else [f"{item.rating:g} stars"]
    return " | ".join([*rating, f'"{item.title}"', *cells])


def candidate_line(attributes: Sequence[str], item: HistoryItem) -> str:
    """One line with the title last, what is unknown left out: ``genre Drama, War | director Lee | "Title"``.

    Who has found a value in it needs only to read on to come to the title, which a small model can.
    """
    cells = [f"{attribute} {', '.join(values)}" for attribute, values in _known(attributes, item)]
    return " | ".join([*cells, f'"{item.title}"'])


def line_from(attributes: Sequence[str], item: HistoryItem, attribute: str, value: str) -> str:
    """The rest of a `candidate_line` from one of its values on: ``War | director Lee | "Title"``.

    Raises:
        ValueError: the item does not have the value.
    """
    own = item.values[attributes.index(attribute)]
    rest = [", ".join(own[own.index(value) :])]
    later = attributes[attributes.index(attribute) + 1 :]
    rest += [f"{name} {', '.join(values)}" for name, values in _known(attributes, item) if name in later]
    return " | ".join([*rest, f'"{item.title}"'])


def _known(attributes: Sequence[str], item: HistoryItem) -> list[tuple[str, tuple[str, ...]]]:
    return [(attribute, values) for attribute, values in zip(attributes, item.values, strict=True) if values]


def preference_header(noun: str, items: Sequence[HistoryItem], num_shown: int) -> str:
    """The line above an attributed history: how many items, how rated on average, how many lines follow."""
    rated = [item.rating for item in items if item.rating is not None]
    average = f", average {sum(rated) / len(rated):.1f} stars" if rated else ""
    shown = "" if num_shown == len(items) else f"; the last {num_shown}"
    return f"{len(items)} {noun}{average}{shown}, oldest first:"


def preference_task(attributes: Sequence[str]) -> str:
    """The request under an attributed history."""
    return f"Analyse the preferences by {', '.join(attributes)}: likes and dislikes."


def attributed_text(
    noun: str,
    attributes: Sequence[str],
    items: Sequence[HistoryItem],
    extra: Sequence[str] = (),
    num_shown: int | None = None,
) -> str:
    """The user turn of the attributed template.

    Args:
        noun: what the items are, plural.
        attributes: their names, in the order of each item's values.
        items: the history, oldest first; may be empty.
        extra: whole lines between history and task.
        num_shown: lines for this many items, the latest; None for all.
    """
    num_shown = len(items) if num_shown is None else num_shown
    lines = [history_line(attributes, item) for item in items[len(items) - num_shown :]]
    header = preference_header(noun, items, num_shown)
    return "\n".join([header, *lines, *extra, preference_task(attributes)])


def plain_text(domain: Domain, items: Sequence[HistoryItem], extra: Sequence[str] = ()) -> str:
    """The user turn of KAR's template: titles and stars, and the domain's factors."""
    told = "; ".join(f'"{i.title}"' + ("" if i.rating is None else f", {i.rating:g} stars") for i in items)
    head = f"Given a user's {NOUNS[domain]} history over time, oldest first: {told or 'nothing yet'}."
    consider = f"Analyse the user's preferences (consider {FACTORS[domain]})"
    task = f"{consider}, with clear explanations from the history."
    return "\n".join([head, *extra, task])


def count_lines(
    attributes: Sequence[str],
    items: Sequence[HistoryItem],
    max_counted: int,
    population_rates: PopulationRates | None = None,
) -> list[str]:
    """What a history repeats: under a heading, per attribute a summary of all of it and then the counts.

    The counts stand apart from the values, so that what follows a value in a summary is what follows it here:
    a small model then names the next value, or none when none is left, by copying alone.

    Args:
        max_counted: values named on each side, strongest first.
        population rate: what the history is held against, see `recloop.prompts.claims.weigh_history`.

    Returns:
        With stars, or held against what is population rate, under ``Counted, likes above the average:``, lines such as
        ``By genre: likes Drama, War; dislikes Comedy. (6, 2; 3)``; without stars, under ``Counted:``,
        ``By genre: likes Drama; also Comedy. (6; 1)``
    """
    evidence = weigh_history(attributes, items, population_rates)
    is_two_sided = any(e.basis is not Basis.COUNT for e in evidence)
    lines = ["Counted, likes above the average:" if is_two_sided else "Counted:"]
    for attribute in attributes:
        sides = [
            [e for e in evidence if e.attribute == attribute and e.polarity is polarity][:max_counted]
            for polarity in Polarity
        ]
        claims = [Claim(attribute, e.polarity, e.value) for side in sides for e in side if e.polarity]
        counts = "; ".join(", ".join(str(e.num_items) for e in side) for side in sides if side)
        lines.append(write_summary(claims, [attribute]) + (f" ({counts})" if counts else ""))
    return lines


def history_items(dataset: Log, config: PromptConfig) -> Callable[[np.ndarray, np.ndarray], list[HistoryItem]]:
    """A function from (items, stars) of one history to its cleaned lines; catalogues are cleaned once."""
    titles = [clean_title(t, config.max_title_words) for t in dataset.items["title"].to_list()]
    columns = [
        [tuple(filter(None, map(clean_value, values[: config.max_values]))) for values in dataset.items[f].to_list()]
        for f in dataset.attributes
    ]

    def lines_of(items: np.ndarray, rating: np.ndarray) -> list[HistoryItem]:
        return [
            HistoryItem(titles[i], tuple(c[i] for c in columns), None if np.isnan(s) else float(s))
            for i, s in zip(items.tolist(), rating.tolist(), strict=True)
        ]

    return lines_of


def population_rates_of(
    dataset: Log, histories: Histories, users: np.ndarray, config: PromptConfig
) -> PopulationRates | None:
    """What the histories of these users usually hold; None where likes go by stars."""
    if config.likes_by == "rating":
        return None
    lines_of = history_items(dataset, config)
    return population_rates(dataset.attributes, (lines_of(*histories.of(user)) for user in users.tolist()))


def build_prompts(
    dataset: Log,
    histories: Histories,
    users: np.ndarray,
    config: PromptConfig,
    count_tokens: Callable[[str], int],
    population_rates: PopulationRates | None = None,
    around: int = CHAT_TOKENS,
) -> list[Prompt]:
    """One preference prompt per user; the oldest lines are cut until the prompt fits the token budget.

    Args:
        users: user indices.
        count_tokens: tokens of a text under the language model's tokenizer.
        population rate: what histories are held against, as `population_rates_of` gives it.
        around: tokens of the chat template, as `chat_tokens` counts them.

    Returns:
        Prompts in the order of `users`, each telling how many items it shows and how many were cut.

    Raises:
        SettingError: the budget does not even hold a prompt with an empty history.
    """
    lines_of = history_items(dataset, config)
    profiles = _profiles(dataset) if config.include_profile else {}
    prompts = []
    for user in users.tolist():
        items = lines_of(*histories.of(user))
        budget = config.max_prompt_tokens - around - count_tokens(SYSTEM)
        shown, text = _fit(dataset, items, profiles.get(user), config, count_tokens, population_rates, budget)
        prompts.append(Prompt(user, SYSTEM, text, shown, len(items) - shown))
    return prompts


def _fit(
    dataset: Log,
    items: list[HistoryItem],
    profile: str | None,
    config: PromptConfig,
    count_tokens: Callable[[str], int],
    population_rates: PopulationRates | None,
    budget: int,
) -> tuple[int, str]:
    """The longest suffix of the history whose prompt fits: (items shown, text).

    Counts say more in a token than lines do, so they are shortened only where the prompt would not hold
    them without any line.
    """

    def render(num_shown: int) -> str:
        shown = items[len(items) - num_shown :]
        extra = [profile] if profile else []
        noun = NOUNS[dataset.domain]
        match config.template:
            case "plain":
                return plain_text(dataset.domain, shown, extra)
            case "attributed":
                return attributed_text(noun, dataset.attributes, shown, extra)
            case "counted":
                counts = count_lines(dataset.attributes, items, max_counted, population_rates) if max_counted else []
                return attributed_text(noun, dataset.attributes, items, [*counts, *extra], num_shown)

    max_counted = config.max_counted if config.template == "counted" else 0
    while max_counted and count_tokens(render(0)) > budget:
        max_counted //= 2
    text = render(len(items))
    if count_tokens(text) <= budget:
        return len(items), text
    fits, too_many = 0, len(items)  # bisection: `fits` lines fit, `too_many` do not
    if count_tokens(render(0)) > budget:
        raise SettingError(
            f"max_prompt_tokens must hold a prompt without any history, got {config.max_prompt_tokens}; "
            f"use at least {count_tokens(render(0)) + config.max_prompt_tokens - budget}"
        )
    while too_many - fits > 1:
        middle = (fits + too_many) // 2
        if count_tokens(render(middle)) <= budget:
            fits = middle
        else:
            too_many = middle
    return fits, render(fits)


def _profiles(dataset: Log) -> dict[int, str]:
    """By user, what the log says of them; an empty cell says nothing."""
    names = [c for c in dataset.users.columns if c not in ("user", "user_id")]
    profiles: dict[int, str] = {}
    for row in dataset.users.iter_rows(named=True):
        told = [f"{n} {clean_value(str(row[n]))}" for n in names if row[n] is not None and row[n] != ""]
        if told:
            profiles[row["user"]] = f"The user: {', '.join(told)}."
    return profiles
