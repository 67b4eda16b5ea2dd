"""The three turns of reflection word for word, and the hints that a reply to the last one leaves."""

import pytest

from recloop.prompts.lines import clean_item
from recloop.prompts.next_item import SessionText, next_item_text
from recloop.prompts.reflection import (
    ASK_ANALYSIS,
    ASK_WRONG,
    names_title,
    parse_hints,
    reflection_text,
    says_yes,
    write_hint,
)
from recloop.prompts.title_match import normalised

JAWS, HEAT, UP = (
    clean_item(title, [[genre]]) for title, genre in (("Jaws", "Horror"), ("Heat", "Crime"), ("Up", "Horror"))
)
SESSION = SessionText("films", ("genre",), (JAWS,), (HEAT, UP))


def test_every_turn_holds_the_one_before_and_the_reply_to_it() -> None:
    replies = ["The list went by director.", "It shares\nthe genre."]
    first, second, third = (reflection_text(SESSION, ["Heat"], 1, UP, 2, replies[:num_told]) for num_told in range(3))
    assert first == f'{next_item_text(SESSION, "", 1)}\nThe list was: "Heat".\n{ASK_WRONG}'
    assert second == (
        f'{first}\nReply: The list went by director.\nThe right one was: genre Horror | "Up"\n{ASK_ANALYSIS}'
    )
    assert third.startswith(f"{second}\nReply: It shares the genre.\nWrite at most 2 short hints")


def test_the_answer_is_not_told_before_the_second_turn() -> None:
    told = reflection_text(SESSION, ["Heat"], 1, UP, 2).replace(next_item_text(SESSION, "", 1), "")
    assert '"Up"' not in told


def test_the_canonical_hint_passes_its_own_rules() -> None:
    hint = write_hint("genre")
    parsed = parse_hints(hint, ["Heat", "Up"], 1)
    assert parsed.hints == (hint,)


def test_hints_come_from_any_list_style_and_all_else_is_counted() -> None:
    reply = (
        "Here are some hints:\n"
        "1. Hint: Prefer candidates of the same genre.\n"
        '- "Weigh the latest items most."\n'
        "* Prefer candidates of the same genre\n"
        "3) Recommend Up to this viewer.\n"
        "Be bold\n"
        f"4. {'very ' * 60}long\n"
        "5. Consider the era of the films.\n"
    )
    parsed = parse_hints(reply, ["Heat", "Up"], 2)
    assert parsed.hints == ("Prefer candidates of the same genre.", "Weigh the latest items most.")
    assert (parsed.num_leaking, parsed.num_unfit, parsed.num_repeated, parsed.num_beyond) == (1, 2, 1, 1)


@pytest.mark.parametrize(
    ("text", "is_named"),
    [
        ("Recommend Heat next.", True),
        ("Feel the heat of the moment.", False),
        ("Heat matters in such films.", False),  # first word: a capital tells nothing
        ("Put 'the Quiet Bridge' first.", True),
        ("put quiet bridge first", True),
        ("Quiet films with a bridge.", False),
        ("Show The Matrix (1999) now.", True),
        ("Matrix algebra is not needed.", False),
    ],
)
def test_a_hint_that_names_a_title_is_found(text: str, is_named: bool) -> None:
    assert names_title(text, ["Heat", "Quiet Bridge", "The Matrix"]) is is_named


@pytest.mark.parametrize(
    ("text", "title", "is_named"),
    [
        ("Recommend Amélie next.", "Amélie", True),
        ("Recommend Ame\u0301lie next.", "Amélie", True),
        ("Recommend Amelie next.", "Amélie", True),
        ("Put Émigré first.", "Émigré", True),
        ("Help the émigré on.", "Émigré", False),
        ("Put 300 first.", "300", True),
        ("300 comes first.", "300", True),
        ("Try 8mm now.", "8MM (1999)", True),
        ("Put M first.", "M", True),
        ("What I would watch.", "A.I.", False),
        ("Recommend 千と千尋 next.", "千と千尋", True),
        ("Look for «Брат» then.", "Брат", True),
        ("Look for a брат then.", "Брат", False),
        ("Try (Ocean’s) now.", "Ocean's", True),
        ("Prefer films like Godfather.", "The Godfather", True),
        ("Prefer the Godfather.", "Godfather, The (1972)", True),
        ("Prefer stories of a godfather.", "The Godfather", False),
        ("Prefer quiet bridge next.", "A Quiet Bridge", True),
    ],
)
def test_a_title_is_found_in_any_script_and_without_its_article(text: str, title: str, is_named: bool) -> None:
    assert names_title(text, [title]) is is_named


def test_a_title_numbered_apart_is_still_that_title() -> None:
    assert names_title("Choose quiet bridge now.", ["Quiet Bridge (2)"])


@pytest.mark.parametrize(
    ("text", "is_yes"),
    [("Yes.", True), ('"yes", it does', True), ("No", False), ("Not yes", False), ("", False)],
)
def test_yes_is_a_reply_that_begins_so(text: str, is_yes: bool) -> None:
    assert says_yes(text) is is_yes


def test_normalised_text_keeps_punctuation() -> None:
    assert normalised("Amélie’s, &amp; co") == "amelies,  and  co"
