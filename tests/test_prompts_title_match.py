"""Which title an entry names: every rule of the module, in cases written by hand."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recloop.prompts.title_match import Found, NoTitle, TitleIndex, distinct_titles, normalised

TITLES = [
    "Alien",
    "Alien 3",
    "The Matrix",
    "Good, the Bad and the Ugly, The",
    "Amélie",
    "Hamlet (1990)",
    "Hamlet (1996)",
    "Heat (1995)",
    "Rock & Rule",
    "Don't Look Now",
    "10 Things I Hate About You",
    "Batman: Gotham Knight - Special Edition Disc",
    "1984",
]
INDEX = TitleIndex(TITLES)


def named(text: str) -> str | NoTitle:
    found = INDEX.find_whole(normalised(text))
    return TITLES[found.title] if isinstance(found, Found) else found


@pytest.mark.parametrize(
    ("text", "title"),
    [
        ("Alien", "Alien"),
        ("ALIEN", "Alien"),
        ("Alien 3", "Alien 3"),
        ("Alien (1979)", "Alien"),
        ("Alien - it fits the mood", "Alien"),
        ("Alien: because it has the same director as before", "Alien"),
        ("Alien | genre Horror", "Alien"),
        ("Alien, a horror film", "Alien"),
        ("Matrix", "The Matrix"),
        ("Matrix, The", "The Matrix"),
        ("a matrix", "The Matrix"),
        ("The Good, the Bad and the Ugly", "Good, the Bad and the Ugly, The"),
        ("good the bad and the ugly", "Good, the Bad and the Ugly, The"),
        ("Amelie", "Amélie"),
        ("Ame\u0301lie", "Amélie"),
        ("Hamlet (1996)", "Hamlet (1996)"),
        ("Hamlet [1990]", "Hamlet (1990)"),
        ("Heat", "Heat (1995)"),
        ("Rock and Rule", "Rock & Rule"),
        ("Rock &amp; Rule", "Rock & Rule"),
        ("Dont look now", "Don't Look Now"),
        ("Don’t Look Now", "Don't Look Now"),
        ("10 Things I Hate About You", "10 Things I Hate About You"),
        ("Batman Gotham Knight", "Batman: Gotham Knight - Special Edition Disc"),
        ("1984", "1984"),
    ],
)
def test_a_title_is_known_however_it_is_written(text: str, title: str) -> None:
    assert named(text) == title


@pytest.mark.parametrize(
    "text",
    [
        "Alien Resurrection",
        "Aliens",
        "Alien: Covenant",
        "Heat Wave",
        "Heat (1972)",
        "Hamlet (1948)",
        "The",
        "Batman",
        "Batman Gotham",
        "",
        "???",
    ],
)
def test_another_title_is_none_of_them(text: str) -> None:
    assert named(text) is NoTitle.UNKNOWN


def test_a_title_two_items_could_have_is_neither() -> None:
    assert named("Hamlet") is NoTitle.AMBIGUOUS


def test_a_year_behind_a_title_may_be_the_next_title() -> None:
    assert named("Heat (1995), 1984") == "Heat (1995)"
    assert named("Heat (1972), 1995") is NoTitle.UNKNOWN


@pytest.mark.slow
@settings(deadline=None, max_examples=50)
@given(st.lists(st.text(alphabet="ab! (2)", max_size=6), max_size=8))
def test_distinct_titles_differ_in_words_and_the_first_of_each_stays(titles: list[str]) -> None:
    shown = distinct_titles(titles)
    index = TitleIndex(shown)
    assert len(shown) == len(titles)
    assert len({tuple(sorted(ns)) for ns in index._exact.values()}) == len(titles)
    assert distinct_titles(shown) == shown
