"""Prompts about users: a history in words, cut to a token budget, and the request to describe the preferences.

What a prompt says is up to its template (`recloop.prompts.template`).

Source: KAR (arXiv 2306.10933), the structure of its user prompt. Deviations: the attributed template puts the
rating first and the item's named attributes beside its title, the header gives the user's mean rating, and the
task names the attributes, so that small models can read, count and be checked.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from functools import cache, lru_cache
from itertools import accumulate
from math import isnan
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, field_validator

from recloop.llm.chat import CHAT_TOKENS, chat_tokens
from recloop.llm.language_model import LanguageModel
from recloop.progress import SILENT, Progress
from recloop.prompts import claims
from recloop.prompts.budget import LINES_KEPT, PromptTooLong, counted_by_lines, within_budget
from recloop.prompts.claims import Evidence, HistoryItem, PopulationRates
from recloop.prompts.lines import NOUNS, clean_value, history_items, history_line
from recloop.prompts.template import ProfileFacts, PromptTemplate, PromptText, ShownItem, known_template, open_template
from recloop.records import CandidateLists, Domain, Group, Histories, Log, Prompt
from recloop.settings import setting, validate

MAX_COUNTED = 8  # values that a count line names on each of its sides, strongest first
USERS_AT_ONCE = 1_000  # between two signs of progress
CHARS_PER_TOKEN = 2.5  # guess, on the safe side for English titles: where no language model counts tokens
FACTORS = {
    Domain.MOVIES: "genre, director and actors, time period and country, character, plot and theme, "
    "mood and tone, critical acclaim and awards, production quality, soundtrack",
    Domain.BOOKS: "genre, author, writing style, theme, setting, length and complexity, time period, "
    "literary quality, critical acclaim",
    Domain.PRODUCTS: "category, brand, purpose, price range, quality, style",
    Domain.GENERIC: "kind, maker, theme, style, quality",
}


ProfileWriter = Callable[[int, np.ndarray, np.ndarray], Prompt]


class PromptConfig(BaseModel, frozen=True, extra="forbid"):
    """How a history is put into words."""

    template: Literal["counted", "attributed", "short", "plain", "dpo4rec"] | Path = setting(
        "counted",
        "attributed: attributes beside each title; counted: the same, and under it which values the "
        "whole history repeats; short: asks for two sentences; plain: KAR's, titles and ratings; dpo4rec: the same by "
        "factors, with the user's description; or a .jinja file of your own",
    )
    likes_by: Literal["rating", "share"] = setting(
        "rating",
        "what counted likes are: rated above the user's own mean (without ratings: met twice); or "
        "share: met more often than in train users' histories",
    )
    max_prompt_tokens: int = setting(448, "token budget of a whole prompt; oldest lines are cut", ge=64)
    include_profile: bool = setting(False, "show the user's profile columns (age, gender, ...)")

    @field_validator("template")
    @classmethod
    def _is_a_template(cls, template: str | Path) -> str | Path:
        return known_template(template)


def profile_prompts(
    log: Log,
    lists: CandidateLists,
    template: str | Path | PromptTemplate = "counted",
    *,
    lm: LanguageModel | None = None,
    users: Sequence[int] | np.ndarray | None = None,
    **settings: Any,
) -> list[Prompt]:
    """One prompt per user that asks a language model to describe the user's preferences.

    Args:
        log: the log.
        lists: its candidate lists; prompts show the knowledge windows that they follow.
        template: the name of a built-in one, a ``.jinja`` file, or an object that writes the prompt
            (`recloop.prompts.template` names the variables).
        lm: counts the tokens of the budget; None estimates them from the characters.
        users: whose prompts; None for everybody who has a list.
        settings: further fields of `PromptConfig`, e.g. ``max_prompt_tokens``, ``include_profile``.

    Raises:
        SettingError: an unknown template or setting, a template that fails, or a budget too small for any prompt.

    Example:
        >>> from recloop.data.lists import candidate_lists
        >>> from recloop.data.load import load_log
        >>> log = load_log(users=20)
        >>> prompts = profile_prompts(log, candidate_lists(log), "attributed", users=[0])
        >>> prompts[0].text.splitlines()[-1]
        'Analyse the preferences by era, genre, director: likes and dislikes.'
    """
    writes = open_template(template)
    named = {"template": template} if isinstance(template, str | Path) else {}
    config = validate(PromptConfig, {**named, **settings})
    if users is None:
        users = np.unique(np.concatenate([lists.of(group).user_B for group in Group]))
    rates = population_rates_of(log, lists.histories, np.unique(lists.train.user_B), config)
    write = profile_writer(log, config, lm, rates, writes)
    return write_prompts(write, lists.histories, np.asarray(users))


def write_prompts(
    write: ProfileWriter,
    histories: Histories,
    users: np.ndarray,
    beside: Sequence[str] = (),
    progress: Progress = SILENT,
) -> list[Prompt]:
    """The prompts of these users; `beside` as of `within_budget`."""
    with progress.stage("prompts", len(users), "users") as step:

        def counted() -> Iterator[int]:
            for first in range(0, len(users), USERS_AT_ONCE):
                some = users[first : first + USERS_AT_ONCE].tolist()
                yield from some
                step(len(some))

        return within_budget(lambda user: write(user, *histories.of(user)), counted(), beside)


def profile_writer(
    log: Log,
    config: PromptConfig,
    lm: LanguageModel | None = None,
    population_rates: PopulationRates | None = None,
    template: PromptTemplate | None = None,
) -> ProfileWriter:
    """A function from a user, the items and the ratings of a history (oldest first) to the prompt.

    The oldest items are left out until the prompt fits the token budget; the prompt says how many it shows. `lm`
    counts tokens, its chat template's included (None estimates them); `template` takes the place of the configured one.
    """
    items_of = history_items(log)

    @lru_cache(maxsize=LINES_KEPT)
    def line_of(number: int, rating: float | None) -> tuple[HistoryItem, ShownItem]:
        (item,) = items_of([number], None if rating is None else [rating])
        return item, shown_item(log.attributes, item)

    profiles = _profiles(log) if config.include_profile else {}
    writes = template or open_template(config.template)
    count_whole = lm.count_tokens if lm is not None else lambda text: int(len(text) / CHARS_PER_TOKEN) + 1
    count_user, count_system = counted_by_lines(count_whole), lru_cache(maxsize=LINES_KEPT)(count_whole)
    budget = config.max_prompt_tokens - (CHAT_TOKENS if lm is None else chat_tokens(lm))

    def write(user: int, items: np.ndarray, rating: np.ndarray) -> Prompt:
        ratings = [None if isnan(one) else one for one in rating.tolist()]
        lines = list(map(line_of, items.tolist(), ratings))
        history, shown = tuple(item for item, _ in lines), tuple(line for _, line in lines)
        rated = [item.rating for item in history if item.rating is not None]
        mean = sum(rated) / len(rated) if rated else None

        @cache
        def counts_of(max_counted: int) -> tuple[str, ...]:
            return tuple(count_lines(log.attributes, history, max_counted, population_rates)) if max_counted else ()

        @cache
        def render(num_shown: int, max_counted: int) -> PromptText:
            latest = shown[len(shown) - num_shown :]
            counts, profile = counts_of(max_counted), profiles.get(user, {})
            noun, factors = NOUNS[log.domain], FACTORS[log.domain]
            return writes(ProfileFacts(noun, log.attributes, shown, latest, mean, counts, profile, factors))

        def num_over(num_shown: int, max_counted: int) -> int:
            text = render(num_shown, max_counted)
            return count_user(text.user) + count_system(text.system) - budget

        num_shown, max_counted = _fit([len(item.line) for item in shown], num_over, config.max_prompt_tokens)
        text = render(num_shown, max_counted)
        return Prompt(user, text.system, text.user, num_shown, len(history) - num_shown)

    return write


def _fit(num_chars: Sequence[int], num_over: Callable[[int, int], int], max_prompt_tokens: int) -> tuple[int, int]:
    """How many of the latest items, and how many counts on each side, a prompt has room for.

    `num_chars` of each item's line, oldest first, tell where to look first.
    """
    num_items, max_counted = len(num_chars), MAX_COUNTED
    most = num_over(num_items, max_counted)
    if most <= 0:
        return num_items, max_counted
    # Counts say more per token than lines, so they are shortened only where without any line it would not fit.
    while (least := num_over(0, max_counted)) > 0 and max_counted:
        max_counted //= 2
    if max_counted < MAX_COUNTED and (most := num_over(num_items, max_counted)) <= 0:
        return num_items, max_counted
    if least > 0:
        raise PromptTooLong("prompt.max_prompt_tokens", max_prompt_tokens, max_prompt_tokens + least)
    chars = list(accumulate(reversed(num_chars)))
    fits, too_many, step = 0, num_items, 1
    num_shown = bisect_right(chars, chars[-1] * -least / (most - least))
    while too_many - fits > 1:
        if not fits < num_shown < too_many:
            num_shown = (fits + too_many) // 2
        if num_over(num_shown, max_counted) <= 0:
            fits, num_shown = num_shown, num_shown + step
        else:
            too_many, num_shown = num_shown, num_shown - step
        step *= 2
    return fits, max_counted


def shown_item(attributes: Sequence[str], item: HistoryItem) -> ShownItem:
    """An item as templates see it."""
    values = dict(zip(attributes, item.values, strict=True))
    return ShownItem(item.title, item.rating, values, history_line(attributes, item))


def count_lines(
    attributes: Sequence[str],
    items: Sequence[HistoryItem],
    max_counted: int,
    population_rates: PopulationRates | None = None,
) -> list[str]:
    """What a history repeats: a heading, then per attribute a summary of all of it and the counts.

    The counts follow all values, so that what follows a value in a summary also follows it here: a small model then
    names the next value, or none when none is left, by copying alone.

    `max_counted` is the most values on each side, strongest first. With ratings or population rates:
    ``By genre: likes Drama, War; dislikes Comedy. (6, 2; 3)``, else ``By genre: likes Drama; also Comedy. (6; 1)``
    """
    evidence = claims.weigh_history(attributes, items, population_rates, fewest=int(claims.FEWEST))
    is_rated = any(item.rating is not None and any(item.values) for item in items)
    is_two_sided = is_rated or any(e.basis is not claims.Basis.COUNT for e in evidence)
    lines = ["Counted, likes above the average:" if is_two_sided else "Counted:"] if attributes else []
    sides: dict[tuple[str, claims.Polarity], list[Evidence]] = defaultdict(list)
    for one in evidence:
        if (polarity := one.polarity) is not None:
            sides[one.attribute, polarity].append(one)
    for attribute in attributes:
        told = {polarity: sides[attribute, polarity][:max_counted] for polarity in claims.POLARITIES}
        counts = "; ".join(", ".join(str(e.num_items) for e in side) for side in told.values() if side)
        values = {polarity: [e.value for e in side] for polarity, side in told.items()}
        lines.append(claims.write_section(attribute, values) + (f" ({counts})" if counts else ""))
    return lines


def population_rates_of(
    log: Log, histories: Histories, users: np.ndarray, config: PromptConfig
) -> PopulationRates | None:
    """The share of these users' histories that carries each value; None where likes go by ratings."""
    if config.likes_by == "rating":
        return None
    items_of = history_items(log)
    return claims.population_rates(log.attributes, (items_of(*histories.of(user)) for user in users.tolist()))


def _profiles(log: Log) -> dict[int, dict[str, str]]:
    """By user, the profile columns that say something."""
    names = [column for column in log.users.columns if column not in ("user", "user_id")]
    return {
        row["user"]: {name: clean_value(str(row[name])) for name in names if row[name] not in (None, "")}
        for row in log.users.iter_rows(named=True)
    }
