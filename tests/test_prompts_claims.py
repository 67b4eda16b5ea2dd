"""What a summary says, what a history supports, and the way there and back."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recloop.prompts.claims import (
    NO_PREFERENCE,
    Basis,
    Claim,
    HistoryItem,
    Polarity,
    parse_claims,
    population_rates,
    true_claims,
    weigh_history,
    write_summary,
)

ATTRIBUTES = ("genre", "director")


def item(rating: float | None, genres: tuple[str, ...], director: str = "Ann Vale") -> HistoryItem:
    return HistoryItem("Some Title", (genres, (director,)), rating)


def test_truth_follows_the_mean_of_the_history():
    # mean of 5, 4, 2, 1 is 3: Drama has mean 4.5 over two items, War 1.5, Comedy only one item.
    history = [item(5, ("Drama",)), item(4, ("Drama", "Comedy")), item(2, ("War",)), item(1, ("War",))]
    told = dict(true_claims(("genre", "director"), history))
    assert told[Claim("genre", Polarity.LIKES, "Drama")] == pytest.approx(3.0)  # (5-3) + (4-3)
    assert told[Claim("genre", Polarity.DISLIKES, "War")] == pytest.approx(3.0)
    # Comedy was met once; Ann Vale stands exactly at the mean
    assert not any(claim.value in ("Comedy", "Ann Vale") for claim in told)


def test_a_value_twice_on_one_item_counts_once():
    evidence = weigh_history(ATTRIBUTES, [item(5, ("Drama", "Drama")), item(1, ("War",))])
    assert next(e for e in evidence if e.value == "Drama").num_items == 1


def test_without_rating_counting_decides():
    history = [item(None, ("Bolts",)), item(None, ("Bolts", "Nuts"), "Bo Lin")]
    claims = {claim for claim, _ in true_claims(ATTRIBUTES, history)}
    assert Claim("genre", Polarity.LIKES, "Bolts") in claims
    assert Claim("genre", Polarity.ALSO, "Nuts") in claims
    assert not any(claim.polarity is Polarity.DISLIKES for claim in claims)


value = st.from_regex(r"[A-Z][a-z]{1,6}( [A-Z][a-z]{1,6}| Jr\.|-[A-Z][a-z]+|'s)?", fullmatch=True)
claim = st.builds(Claim, st.sampled_from(ATTRIBUTES), st.sampled_from(Polarity), value)


@pytest.mark.slow
@settings(max_examples=200, deadline=None)
@given(st.lists(claim, max_size=8, unique=True))
def test_what_is_written_is_read_back(claims: list[Claim]):
    parsed = parse_claims(write_summary(claims), ATTRIBUTES)
    assert parsed.is_well_formed
    assert set(parsed.claims) == set(claims)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "I like films.",
        "By genre: likes Drama",
        "By genre: likes .",
        "By genre: adores Drama.",
        "By genre: likes Drama. By genre: likes War.",
        "By genre: likes Drama, Drama.",
        "By genre: likes Drama,, War.",
        "Well. By genre: likes Drama.",
        "By colour: likes Red.",
    ],
)
def test_what_breaks_the_form_is_noticed(text: str):
    assert not parse_claims(text, ATTRIBUTES).is_well_formed


def test_sound_parts_of_a_broken_text_still_count():
    parsed = parse_claims("By genre: likes Drama. By director: admires Ann Vale.", ATTRIBUTES)
    assert parsed.claims == (Claim("genre", Polarity.LIKES, "Drama"),)
    assert not parsed.is_well_formed


DRAMA_NOT_WAR = (Claim("genre", Polarity.LIKES, "Drama"), Claim("genre", Polarity.DISLIKES, "War"))


@pytest.mark.parametrize("between", ["\n", "\n\n", " \n  "])
def test_sections_may_stand_on_lines_of_their_own(between: str):
    parsed = parse_claims(
        f"By genre: likes Drama; dislikes War.{between}By director: likes J. Lee Thompson.", ATTRIBUTES
    )
    assert parsed.is_well_formed
    assert parsed.claims == (*DRAMA_NOT_WAR, Claim("director", Polarity.LIKES, "J. Lee Thompson"))


@pytest.mark.parametrize(
    "prose",
    [
        " They clearly enjoy the classics.",
        " Overall, a viewer of slow films, by Ann Vale.",
        " It shows that Drama wins.",
        "\nA fan of Ann Vale.",
        "\n\nDrama it is.",
    ],
)
def test_prose_after_a_section_is_no_value_and_breaks_the_form(prose: str):
    parsed = parse_claims(f"By genre: likes Drama; dislikes War.{prose}", ATTRIBUTES)
    assert parsed.claims == DRAMA_NOT_WAR
    assert not parsed.is_well_formed
    among = parse_claims(f"By genre: likes Drama; dislikes War.{prose} By director: likes Ann Vale.", ATTRIBUTES)
    assert among.claims == (*DRAMA_NOT_WAR, Claim("director", Polarity.LIKES, "Ann Vale"))
    assert not among.is_well_formed


@pytest.mark.parametrize(
    "name",
    [
        "Parts Co. Inc",
        "Dr. Seuss",
        "Vol. 2",
        "Vol. 2 of the complete works",
        "J. R. R. Tolkien",
        "Cecil B. DeMille and his men",
        "Acme Intl. Parts for the home",
        "Mr. Fix. Tape & Glue",
        "Yahoo! Inc",
        "dr. seuss and the cat",
        "Bread\nand Roses",
    ],
)
def test_a_name_with_full_stops_stays_whole(name: str):
    claims = [Claim(attribute, p, name) for attribute in ATTRIBUTES for p in (Polarity.LIKES, Polarity.DISLIKES)]
    parsed = parse_claims(write_summary([*claims, Claim("genre", Polarity.ALSO, "tape")]), ATTRIBUTES)
    assert set(parsed.claims) == {*claims, Claim("genre", Polarity.ALSO, "tape")}
    assert parsed.is_well_formed


def test_nothing_to_say_is_well_formed():
    assert write_summary([]) == NO_PREFERENCE
    assert parse_claims(NO_PREFERENCE, ATTRIBUTES).is_well_formed
    mixed = parse_claims(write_summary([], ["genre"]), ATTRIBUTES)
    assert mixed.is_well_formed
    assert mixed.attributes == ("genre",)
    assert not mixed.claims


def test_weighing_equals_a_plain_count():
    rng = np.random.default_rng(0)
    genres = np.array(["A", "B", "C", "D"])
    history = [
        item(float(rng.integers(1, 6)), tuple(genres[rng.random(4) < 0.5].tolist()), str(rng.choice(genres)))
        for _ in range(30)
    ]
    mean = np.mean([i.rating for i in history])
    for evidence in weigh_history(ATTRIBUTES, history):
        column = ATTRIBUTES.index(evidence.attribute)
        rating = [i.rating for i in history if evidence.value in i.values[column]]
        assert evidence.num_items == len(rating)
        assert evidence.excess == pytest.approx(sum(s - mean for s in rating), abs=1e-5)


def test_held_against_what_is_usual_a_history_says_what_is_more_and_what_is_less() -> None:
    rates = population_rates(
        ATTRIBUTES,
        [
            [item(5, ("War", "Drama")), item(1, ("Drama",))],  # War in half of it, Drama in all
            [item(3, ("Drama",), "X"), item(3, ("Noir", "Noir"), "X")],
            [],  # says nothing and is not counted
        ],
    )
    assert rates["genre", "Drama"] == 0.75
    assert rates["genre", "War"] == rates["genre", "Noir"] == 0.25
    assert rates["director", "X"] == 0.5
    history = [item(5, ("War",)) for _ in range(4)] + [item(1, ("Drama",)) for _ in range(4)]
    claims = dict(true_claims(ATTRIBUTES, history, rates))
    # 8 items: usually 2 War (4 here), 6 Drama (4 here, at most 4.5), 2 Noir (none here), 4 by X (none
    # here), 4 by Ann Vale (8 here).
    assert claims == {
        Claim("genre", Polarity.LIKES, "War"): pytest.approx(2 / 3**0.5),
        Claim("genre", Polarity.DISLIKES, "Drama"): pytest.approx(2 / 7**0.5),
        Claim("genre", Polarity.DISLIKES, "Noir"): pytest.approx(2 / 3**0.5),
        Claim("director", Polarity.DISLIKES, "X"): pytest.approx(4 / 5**0.5),
        Claim("director", Polarity.LIKES, "Ann Vale"): pytest.approx(4 / 5**0.5),
    }
    assert not [e for e in weigh_history(ATTRIBUTES, history) if e.basis is not Basis.RATING]


def test_too_little_to_be_usual_says_nothing() -> None:
    rates = {("genre", "War"): 0.4, ("genre", "Noir"): 0.01}
    history = [item(5, ("Drama",)), item(4, ("Noir",)), item(4, ("Noir",))]
    found = {e.value: e.polarity for e in weigh_history(ATTRIBUTES, history, rates) if e.attribute == "genre"}
    assert found == {"Drama": None, "Noir": Polarity.LIKES}  # of War 1.2 are population rate, of Drama 1 was met


def test_without_attributes_claims_are_about_titles_in_quotes() -> None:
    films = [HistoryItem(title, (), rating) for title, rating in (("Heat, The", 5.0), ("Mr. No; a life", 1.0))]
    [old, new] = films
    assert [claim for claim, _ in true_claims((), films)] == [
        Claim("title", Polarity.DISLIKES, new.title),  # the latest first
        Claim("title", Polarity.LIKES, old.title),
    ]
    assert true_claims((), [replace(old, rating=None)])[0][0] == Claim("title", Polarity.LIKES, old.title)
    assert true_claims((), [replace(old, rating=3.0), replace(new, rating=3.0)]) == []  # neither above nor below
    text = write_summary([claim for claim, _ in true_claims((), films)])
    assert text == 'By title: likes "Heat, The"; dislikes "Mr. No; a life".'
    found = parse_claims(text, ())
    assert found.is_well_formed
    assert found.claims == (
        Claim("title", Polarity.LIKES, old.title),
        Claim("title", Polarity.DISLIKES, new.title),
    )
    several = 'By title: likes "A", "B, c"; dislikes "D. E".'
    assert [claim.value for claim in parse_claims(several, ()).claims] == ["A", "B, c", "D. E"]


@pytest.mark.parametrize(
    "text",
    [
        "By title: likes Heat.",
        'By title: likes "Heat", .',
        'By title: likes "Heat" "Big".',
        'By title: likes "Heat',
        'By title: likes "Heat". So it is, they say.',
        'By genre: likes "Heat".',
        'By title: loves "Heat".',
        "By title: likes ;.",
    ],
)
def test_titles_that_break_the_form_are_noticed(text: str) -> None:
    assert not parse_claims(text, ()).is_well_formed


def test_a_title_is_never_compared_with_other_users() -> None:
    told = true_claims((), [HistoryItem("Heat", (), None)], {("title", "Heat"): 0.9})
    assert told == [(Claim("title", Polarity.LIKES, "Heat"), 1.0)]
