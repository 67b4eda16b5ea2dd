"""Answers to requests, read by the written rule: hand-written cases."""

import pytest

from recloop.prompts.request_answer import AnswerStatus, are_tellable, read_answer, read_title

FILMS = (
    "Matrix, The (1999)",
    "Rocky (1976)",
    "Rocky II (1979)",
    "Alien (1979)",
    "Aliens (1986)",
    "Fly, The (1958)",
    "Fly, The (1986)",
    "It (1990)",
    "Boat, The (Das Boot) (1981)",
    "Amélie & Friends (2001)",
    "Dr. Strangelove or: How I Learned (1963)",
    "8 1/2 (1963)",
)
REASON = "Something dark is wanted.\n\n"


def ranked(boxed, titles=FILMS):
    return read_answer(f"{REASON}\\boxed{{{boxed}}}", titles, is_finished=True)


@pytest.mark.parametrize(
    ("boxed", "place"),
    [
        ("Matrix, The (1999)", 0),
        ("The Matrix", 0),
        ("the MATRIX (1999)", 0),
        ("Matrix", 0),
        ("Rocky", 1),
        ("Rocky II", 2),
        ("rocky ii (1979)", 2),
        ("Alien", 3),
        ("Aliens", 4),
        ("The Fly (1958)", 5),
        ("Fly, The (1986)", 6),
        ('"It"', 7),
        ("Das Boot", 8),
        ("The Boat (1981)", 8),
        ("Amelie and Friends", 9),
        ("Dr Strangelove, or How I Learned", 10),
        ("8 1/2", 11),
        ("\\text{Rocky II}", 2),
        (" \\textbf{ Rocky II } ", 2),
        ("\\mathrm {Rocky II}", 2),
        ("\\textit{Rocky II} (1979)", 2),
        ("\\text{The }\\emph{Matrix}", 0),
    ],
)
def test_a_boxed_title_is_matched_whatever_its_spelling(boxed, place):
    answer = ranked(boxed)
    assert answer.status is AnswerStatus.OK
    assert answer.ranked == (place,)
    assert answer.is_well_formed


@pytest.mark.parametrize(
    "boxed",
    [
        "The Fly",  # of two, by nothing but the year
        "Alien (1980)",  # a year that contradicts
        "Rocky III",
        "Rock",
        "The",
        "a film by Ann Vale",
        "Rocky, Aliens",  # two in one breath, not a ranked list
    ],
)
def test_a_title_that_is_no_single_candidate_answers_nothing(boxed):
    answer = ranked(boxed)
    assert answer.status is AnswerStatus.NO_CANDIDATE
    assert answer.ranked == ()
    assert not answer.is_well_formed


@pytest.mark.parametrize(
    ("text", "is_finished", "status", "places"),
    [
        ("\\boxed{Rocky} or \\boxed{Alien}", True, AnswerStatus.TWO_BOXES, ()),
        ("Yes. \\boxed{Rocky} \\boxed{Rocky}", True, AnswerStatus.OK, (1,)),
        ("Rocky it is.", True, AnswerStatus.NO_BOX, ()),
        ("Empty: \\boxed{ }", True, AnswerStatus.NO_BOX, ()),
        ("", True, AnswerStatus.NO_BOX, ()),
        ("Half: \\boxed{Rocky", True, AnswerStatus.NO_BOX, ()),
        ("Half: \\boxed{\\text{Rocky}", True, AnswerStatus.NO_BOX, ()),
        ("Empty: \\boxed{\\text{}}", True, AnswerStatus.NO_BOX, ()),
        ("Sum: \\boxed{\\frac{Rocky}{2}}", True, AnswerStatus.NO_BOX, ()),
        ("Yes. \\boxed{\\text{Rocky}} \\boxed{Rocky}", True, AnswerStatus.OK, (1,)),
        ("\\boxed{\\text{Rocky}} or \\boxed{\\text{Alien}}", True, AnswerStatus.TWO_BOXES, ()),
        ("Rocky! \\boxed{Rocky}", False, AnswerStatus.ENDLESS, ()),
        ("on and on " * 999, False, AnswerStatus.ENDLESS, ()),
    ],
)
def test_odd_answers_have_a_status_and_a_score_each(text, is_finished, status, places):
    answer = read_answer(text, FILMS, is_finished=is_finished)
    assert answer.status is status
    assert answer.ranked == places
    assert not answer.is_well_formed


@pytest.mark.parametrize(
    ("text", "is_well_formed"),
    [
        ("Why.\n\n\\boxed{Rocky}", True),
        ("Why. \\boxed{Rocky}.\n", True),
        ("\\boxed{Rocky}", False),  # no reasoning
        ("Why.\n\n\\boxed{Rocky} Enjoy!", False),  # goes on
        ("\n \n\\boxed{Rocky}", False),
    ],
)
def test_well_formed_means_reasoning_then_one_box_then_the_end(text, is_well_formed):
    answer = read_answer(text, FILMS, is_finished=True)
    assert answer.ranked == (1,)
    assert answer.is_well_formed is is_well_formed


def test_a_ranked_list_counts_up_to_the_first_that_is_no_candidate():
    assert ranked("Rocky ; Alien ; The Matrix").ranked == (1, 3, 0)
    assert ranked("\\text{Rocky} ; \\text{Alien}").ranked == (1, 3)
    assert ranked("1. Rocky\n2. Alien\n3. Rocky").ranked == (1, 3)
    cut = ranked("Rocky ; Heat ; Alien")
    assert cut.ranked == (1,)
    assert cut.status is AnswerStatus.NO_CANDIDATE
    assert ranked("One ; Two", ["One ; Two", "One"]).ranked == (0,)  # a title with a semicolon of its own


def test_paragraphs_cover_the_text_and_end_where_blank_lines_end():
    text = "First.\nStill first.\n\nSecond.\n \n\n\\boxed{Alien}\n"
    paragraphs = read_answer(text, FILMS, is_finished=True).paragraphs
    assert [text[p.start : p.end] for p in paragraphs] == [
        "First.\nStill first.\n\n",
        "Second.\n \n\n",
        "\\boxed{Alien}\n",
    ]


def test_a_box_and_its_paragraph_stand_where_they_stand_in_the_text():
    text = "Why.\n\n\\boxed{\\text{Alien}}"
    answer = read_answer(text, FILMS, is_finished=True)
    assert text[slice(*answer.box)] == "\\boxed{\\text{Alien}}"
    assert [(text[p.start : p.end], p.named) for p in answer.paragraphs] == [
        ("Why.\n\n", ()),
        ("\\boxed{\\text{Alien}}", (3,)),
    ]


@pytest.mark.parametrize(
    ("text", "places"),
    [
        ("Aliens is louder than Alien was.", (3,)),  # the first word of a sentence is no sign
        ("I thought of Rocky II first.", (2,)),
        ("Not ROCKY II but the other, Rocky.", (1, 2)),
        ("it was good, and so was the boat.", ()),  # a word alone is not a title
        ('"It" was good.', (7,)),
        ("It was good.", ()),
        ("Better: **Aliens** or “Rocky”.", (1, 4)),
        ("That of 1986, The Fly (1986).", (6,)),
        ("Any of them, Fly (1986) or Fly (1958).", (5, 6)),
        ("the alien (1980) we met", ()),
        ("\\boxed{Alien}", (3,)),
        ("Wanted: director Das Boot.", (8,)),
    ],
)
def test_titles_named_in_running_text(text, places):
    (paragraph,) = read_answer(text, FILMS, is_finished=True).paragraphs
    assert paragraph.named == places


def test_titles_that_cannot_be_told_apart_are_found():
    assert are_tellable(FILMS)
    assert not are_tellable(["Heat (1995)", "Heat"])
    assert not are_tellable(["The Fly", "Fly, The"])
    assert are_tellable(["Fly, The (1958)", "Fly, The (1986)"])
    assert not are_tellable(["???", "Heat"])  # nothing to match by


def test_a_title_is_its_words():
    assert read_title("Ox").names == (("ox",),)
    assert read_title("The").names == (("the",),)
    assert read_title("Schindler's List (1993)") == read_title("Schindlers list (1993)")
    assert read_title("City of Lost Children, The (a.k.a. Cité) (1995)").names == (
        ("city", "of", "lost", "children"),
        ("cite",),
    )
