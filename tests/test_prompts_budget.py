"""Token budgets: texts counted by their lines have the tokens of the whole, and prompts are as long as they may be."""

import re
from types import SimpleNamespace

import numpy as np
import pytest

from recloop.data.lists import candidate_lists
from recloop.data.load import load_log
from recloop.llm.bundled import bundled_lm_folder
from recloop.llm.chat import CHAT_TOKENS, load_tokenizer, token_counter
from recloop.prompts.budget import NUM_CHECKED, counted_by_lines
from recloop.prompts.claims import Evidence, Polarity, weigh_history, write_summary
from recloop.prompts.lines import NOUNS, history_items
from recloop.prompts.template import ProfileFacts, open_template
from recloop.prompts.user_profile import (
    FACTORS,
    MAX_COUNTED,
    PromptConfig,
    _fit,
    count_lines,
    profile_writer,
    shown_item,
    write_prompts,
)


def texts(num: int) -> list[str]:
    rng = np.random.default_rng(0)
    lines = [f'{n % 5 + 1} stars | "The Lost {n}." | genre Drama, War | director Ann Vale.' for n in range(40)]
    drawn = (rng.choice(lines, 6).tolist() for _ in range(num))
    return [f"{len(one)} films, average 3.{place % 10} stars:\n" + "\n".join(one) for place, one in enumerate(drawn)]


def joined_after_full_stops(text: str) -> int:
    """As byte-pair tokenizers with tokens such as ``.\\n``: a line break belongs to the full stop before it."""
    return len(re.findall(r" ?\w+|[^\w\s]+\n*| ?[^\w\s]+|\s+", text))


def characters(text: str) -> int:
    return int(len(text) / 2.5) + 1


@pytest.mark.parametrize("count_tokens", [lambda text: len(text.split()), joined_after_full_stops])
def test_a_line_is_counted_once_and_the_sum_is_that_of_the_whole(count_tokens):
    calls: list[str] = []

    def counting(text: str) -> int:
        calls.append(text)
        return count_tokens(text)

    count = counted_by_lines(counting)
    for text in texts(NUM_CHECKED):
        count(text)
    calls.clear()
    more = texts(NUM_CHECKED + 300)
    assert [count(text) for text in more] == [count_tokens(text) for text in more]
    assert len(calls) < 20  # averages that were not met before


def test_texts_are_counted_whole_where_lines_do_not_add_up():
    count = counted_by_lines(characters)
    more = texts(NUM_CHECKED + 300)
    assert [count(text) for text in more] == [characters(text) for text in more]


def plain_count_lines(attributes, items, max_counted):
    """`count_lines` of a rated or implicit history, from all evidence, side by side."""
    evidence = weigh_history(attributes, items)
    is_rated = any(item.rating is not None for item in items)
    lines = ["Counted, likes above the average:" if is_rated else "Counted:"]
    for attribute in attributes:
        sides: list[list[Evidence]] = [
            [e for e in evidence if e.attribute == attribute and e.polarity is polarity][:max_counted]
            for polarity in Polarity
        ]
        claims = [SimpleNamespace(attribute=attribute, polarity=e.polarity, value=e.value) for s in sides for e in s]
        counts = "; ".join(", ".join(str(e.num_items) for e in side) for side in sides if side)
        lines.append(write_summary(claims, [attribute]) + (f" ({counts})" if counts else ""))
    return tuple(lines)


@pytest.mark.parametrize(("template", "budget"), [("counted", 300), ("counted", 120), ("attributed", 160)])
def test_prompts_are_those_of_a_search_that_tries_every_length_and_counts_whole_texts(template, budget):
    """The plain way: fewer counts until nothing but the oldest lines must go, then the most lines that fit."""
    log = load_log("simulated", users=60)
    histories = candidate_lists(log).histories
    count_tokens = token_counter(load_tokenizer(bundled_lm_folder()))
    config = PromptConfig(template=template, max_prompt_tokens=budget)
    writes, items_of = open_template(template), history_items(log)

    def plain(user: int):
        items = items_of(*histories.of(user))
        shown = tuple(shown_item(log.attributes, item) for item in items)
        rated = [item.rating for item in items if item.rating is not None]
        mean = sum(rated) / len(rated) if rated else None

        def text_of(num_shown: int, max_counted: int):
            counts = plain_count_lines(log.attributes, items, max_counted) if max_counted else ()
            latest = shown[len(shown) - num_shown :]
            facts = (NOUNS[log.domain], log.attributes, shown, latest, mean, counts, {}, FACTORS[log.domain])
            return writes(ProfileFacts(*facts))

        def fits(num_shown: int, max_counted: int) -> bool:
            text = text_of(num_shown, max_counted)
            return count_tokens(text.user) + count_tokens(text.system) + CHAT_TOKENS <= budget

        max_counted = MAX_COUNTED
        while not fits(0, max_counted) and max_counted:
            max_counted //= 2
        num_shown = max(n for n in range(len(shown) + 1) if fits(n, max_counted))
        return text_of(num_shown, max_counted).user, num_shown

    write = profile_writer(log, config, SimpleNamespace(count_tokens=count_tokens))
    found = write_prompts(write, histories, np.arange(log.num_users))
    assert [(prompt.text, prompt.num_items_shown) for prompt in found] == [plain(u) for u in range(log.num_users)]
    assert any(prompt.num_items_cut for prompt in found)


def test_the_most_lines_that_fit_are_found_with_few_looks():
    rng = np.random.default_rng(0)
    for _ in range(300):
        chars = rng.integers(5, 90, rng.integers(1, 40)).tolist()
        # Tokens a line are about in proportion to characters, or have nothing to do with them.
        tokens = [max(1, n // 3) for n in chars] if rng.random() < 0.5 else rng.integers(1, 30, len(chars)).tolist()
        room = int(rng.integers(0, sum(tokens) + 5))
        looks: list[int] = []

        def num_over(num_shown: int, max_counted: int, tokens=tokens, room=room, looks=looks) -> int:
            looks.append(num_shown)
            return sum(tokens[len(tokens) - num_shown :]) - room

        most = max(n for n in range(len(chars) + 1) if sum(tokens[len(tokens) - n :]) <= room)
        assert _fit(chars, num_over, 500) == (most, MAX_COUNTED)
        assert len(looks) <= 12


def test_counts_leave_nothing_out_that_all_evidence_has():
    log = load_log("simulated", users=40)
    histories, items_of = candidate_lists(log).histories, history_items(log)
    for user in range(log.num_users):
        items, rating = histories.of(user)
        for ratings in (rating, None):
            history = items_of(items, ratings)
            assert tuple(count_lines(log.attributes, history, 3)) == plain_count_lines(log.attributes, history, 3)
