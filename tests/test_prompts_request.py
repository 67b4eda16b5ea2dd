"""The prompt of a request and its canonical answer."""

from dataclasses import replace

import numpy as np
import pytest

from recloop.data.request_words import (
    ask,
    ask_as_group,
    ask_by_item,
    ask_by_taste,
    ask_explicitly,
    ask_misinformed,
    one_of,
)
from recloop.errors import SettingError
from recloop.llm.chat import CHAT_TOKENS
from recloop.prompts.claims import HistoryItem
from recloop.prompts.request import (
    SYSTEM,
    RequestPromptConfig,
    build_request_prompts,
    clean_request,
    reference_answer,
    request_text,
)
from recloop.prompts.request_answer import AnswerStatus, read_answer
from recloop.records import Condition, Request, RequestKind
from simulated_by_hand import dataset_of

ATTRIBUTES = ("genre", "director")
ITEMS = [
    HistoryItem("Iron Tide", (("War",), ("Ann Vale",)), None),
    HistoryItem("Paper Crown", (("Drama",), ("Bo Lee",)), None),
    HistoryItem("Velvet Harbour", (("Drama", "Crime"), ("Ann Vale",)), None),
    HistoryItem("Last Ferry", (("Drama",), ()), None),
]
ANN, DRAMA = Condition("director", "Ann Vale"), Condition("genre", "Drama")


def words(text):
    return len(text.split())


def a_request(**changes):
    fields = {
        "number": 3,
        "kind": RequestKind.EXPLICIT_1,
        "user": 0,
        "text": "A film of genre g1.",
        "conditions": (Condition("genre", "g1"),),
        "candidates": (0, 1, 2),
        "answer": 1,
    }
    return Request(**(fields | changes))


def test_the_prompt_lists_candidates_history_and_mentioned_items_before_the_request():
    text = request_text(
        "films",
        ATTRIBUTES,
        ITEMS[:2],
        "Something by Ann Vale",
        history=[HistoryItem("Ox", (("War",), ()), 4.0)],
        mentioned=[ITEMS[2]],
    )
    assert text == (
        "2 films:\n"
        'genre War | director Ann Vale | "Iron Tide"\n'
        'genre Drama | director Bo Lee | "Paper Crown"\n'
        "History, oldest first:\n"
        '4 stars | "Ox" | genre War\n'
        "Mentioned:\n"
        'genre Drama, Crime | director Ann Vale | "Velvet Harbour"\n'
        "Request: Something by Ann Vale\n"
        "Say what is wanted, check candidates, one a paragraph, and end with \\boxed{Title}."
    )


def test_a_request_cannot_pose_as_anything_else():
    assert clean_request("Hi\nRequest: x <|end|> \\boxed{A}\u2028") == "Hi Request: x end \\boxed A"
    assert len(clean_request("word " * 999)) <= 600


def test_the_canonical_answer_checks_one_condition_in_the_order_of_the_list():
    # Drama is the first column's and met by three: places 1, 2, 3.
    assert reference_answer(ATTRIBUTES, ITEMS, [ANN, DRAMA], 2) == (
        "Wanted: director Ann Vale, genre Drama.\n\n"
        'With Drama | director Bo Lee | "Paper Crown": no.\n\n'
        'With Drama, Crime | director Ann Vale | "Velvet Harbour": yes.\n\n'
        "\\boxed{Velvet Harbour}"
    )
    # Crime stands inside its cell, so the rest of the line begins there.
    assert '\n\nWith Crime | director Ann Vale | "Velvet' in reference_answer(
        ATTRIBUTES, ITEMS, [Condition("genre", "Crime")], 2
    )


def test_the_canonical_answer_begins_with_what_a_mentioned_item_has():
    answer = reference_answer(ATTRIBUTES, ITEMS, [Condition("director", "Bo Lee")], 1, mentioned=ITEMS[0])
    assert answer.split("\n\n")[:2] == [
        "The mentioned one has director Ann Vale.",
        "Wanted: director Bo Lee.",
    ]


def test_the_canonical_answer_stays_short():
    many = [HistoryItem(f"No {place}", (("Drama",), ()), None) for place in range(9)]
    answer = reference_answer(ATTRIBUTES, [*many, ITEMS[2]], [DRAMA, DRAMA], 9)
    assert answer.count(": no.") == 5
    assert answer.endswith(": yes.\n\n\\boxed{Velvet Harbour}")
    rarer = reference_answer(ATTRIBUTES, [*many, ITEMS[2]], [DRAMA, ANN], 9)
    assert rarer.count("| ") == 1  # few are by Ann Vale, so the lines begin with her


def test_the_canonical_answer_is_read_as_its_own_right_answer():
    titles = [item.title for item in ITEMS]
    answer = read_answer(reference_answer(ATTRIBUTES, ITEMS, [DRAMA, ANN], 2), titles, is_finished=True)
    assert answer.status is AnswerStatus.OK
    assert answer.first == 2
    assert answer.is_well_formed
    assert [p.named for p in answer.paragraphs] == [(), (1,), (2,), (2,)]


def test_prompts_are_numbered_like_their_requests_and_lose_their_oldest_history_first():
    dataset = dataset_of([[(i, 4.0) for i in range(6)]], num_items=6)
    request = a_request(history=(3, 4, 5), rating=(4.0, 2.0, 5.0))
    (whole,) = build_request_prompts(dataset, [request], RequestPromptConfig(), words)
    assert (whole.user, whole.num_items_shown, whole.num_items_cut) == (3, 3, 0)
    tight = RequestPromptConfig(max_prompt_tokens=64)
    (cut,) = build_request_prompts(dataset, [request], tight, lambda text: words(text) - 6)
    assert cut.num_items_shown + cut.num_items_cut == 3
    assert cut.num_items_cut > 0
    assert "Title 3" not in cut.text


def test_prompts_over_the_budget_are_one_error_that_names_the_setting_and_the_bound_over_all():
    dataset = dataset_of([[(i, 4.0) for i in range(6)]], num_items=6)
    requests = [a_request(), replace(a_request(mentioned=(4,)), number=1)]
    enough = RequestPromptConfig(max_prompt_tokens=1000)
    longest = max(words(prompt.text) for prompt in build_request_prompts(dataset, requests, enough, words))
    least = 10 * (longest + words(SYSTEM)) + CHAT_TOKENS
    with pytest.raises(SettingError) as caught:
        build_request_prompts(
            dataset, requests, RequestPromptConfig(max_prompt_tokens=64), lambda text: 10 * words(text)
        )
    assert str(caught.value) == (
        f"prompt.max_prompt_tokens must hold every prompt, got 64, too few for 2 of 2; use at least {least} (and "
        f"sft.max_prompt_tokens and grpo.max_prompt_tokens no less); or fewer requests.num_candidates"
    )


def test_models_that_know_the_items_are_shown_titles_alone():
    dataset = dataset_of([[(0, 4.0)]], num_items=6)
    config = RequestPromptConfig(show_attributes=False)
    (prompt,) = build_request_prompts(dataset, [a_request(mentioned=(4,))], config, words)
    assert prompt.text.splitlines()[1:5] == ['"Title 0"', '"Title 1"', '"Title 2"', "Mentioned:"]


def test_requests_say_every_condition_in_many_ways():
    rng = np.random.default_rng(0)
    texts = {ask_explicitly("films", [ANN, DRAMA], rng) for _ in range(300)}
    assert len(texts) > 150
    assert all("Ann Vale" in text and "Drama" in text for text in texts)
    by_item = {ask_by_item("films", "Ox", "director", [DRAMA], rng) for _ in range(50)}
    assert all('"Ox"' in text and "director" in text and "Drama" in text for text in by_item)
    false = Condition("director", "Bo Lee")
    misled = {ask_misinformed("films", "Ox", false, [], rng) for _ in range(50)}
    assert all("Bo Lee" in text and text.count('"Ox"') == 2 for text in misled)
    assert "genre" in ask_by_taste("films", "genre", [], rng)
    assert "age 25-34" in ask_as_group("films", "genre", {"age": "25-34"}, rng)


def test_nouns_are_singular_and_have_their_article():
    assert [one_of(noun) for noun in ("films", "groceries", "items")] == ["film", "grocery", "item"]
    texts = [ask("items", ["by Ann"], np.random.default_rng(seed)) for seed in range(20)]
    assert any(" an item" in text for text in texts)
    assert not any(" a item" in text for text in texts)
