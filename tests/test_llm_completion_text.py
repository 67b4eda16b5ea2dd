import pytest
from hypothesis import given
from hypothesis import strategies as st

from recloop.llm.completion_text import (
    MAX_REPLY_CHARS,
    first_sentences,
    is_refusal,
    printable,
    shorten_completion,
    tidy,
    tidy_completion,
)
from recloop.records import Completion, CompletionStatus

OK, EMPTY, REFUSED = CompletionStatus.OK, CompletionStatus.EMPTY, CompletionStatus.REFUSED
PLAIN = "By genre: likes Drama, War; dislikes Comedy. By director: likes Ann Vale."


@pytest.mark.parametrize(
    ("raw", "text", "status"),
    [
        (PLAIN, PLAIN, OK),
        (f"  {PLAIN}\n", PLAIN, OK),
        (f"<think>\nTwo dramas.\n</think>\n\n{PLAIN}", PLAIN, OK),
        (f"Two dramas, says the template.\n</think>\n{PLAIN}", PLAIN, OK),
        (f"<THINKING>a</THINKING>{PLAIN}<reasoning>b</reasoning>", PLAIN, OK),
        ("<think>I was cut off before I could", "", EMPTY),
        (f"{PLAIN}<think>and then", PLAIN, OK),
        ("", "", EMPTY),
        (" \n\t", "", EMPTY),
        ("```\n```", "", EMPTY),
        (f"```text\n{PLAIN}\n```", PLAIN, OK),
        ("## Likes\n\n- **Drama**\n* _War_\n> `noir`", "Likes\n\nDrama\n_War_\nnoir", OK),
        ("5 * 3 stars, 2 ** 3", "5 * 3 stars, 2 ** 3", OK),
        (f"{PLAIN}<|im_end|>", PLAIN, OK),
        (f"<|assistant|>{PLAIN}</s>", PLAIN, OK),
        ("Likes\x00 dramas\x1b[31m \ud800of\ufffd war", "Likes dramas[31m of war", OK),
        ("I'm sorry, but I can't help with that.", "", REFUSED),
        ("I am sorry, I cannot assist with this request.", "", REFUSED),
        ("I’m sorry, but I won’t do this", "", REFUSED),
        ("I cannot provide an analysis of this person.", "", REFUSED),
        ("As an AI language model, I don't have opinions.", "", REFUSED),
        ("Unfortunately, I am unable to analyse it.", "", REFUSED),
        ("<think>No.</think>I must decline.", "", REFUSED),
        ("I can't get enough of westerns, this user would say.", None, OK),
        ("Sorry films are disliked: Ox, Sea.", None, OK),
        ("The user is sorry to miss dramas.", None, OK),
    ],
)
def test_an_answer_is_tidied(raw, text, status):
    tidied, found, reason = tidy(raw)
    assert (tidied, found) == (raw if text is None else text, status)
    assert bool(reason) == (tidied != raw.strip() or status is not OK)


def test_an_endless_answer_is_put_aside():
    assert tidy("a" * (MAX_REPLY_CHARS + 1))[1] is CompletionStatus.TOO_LONG
    assert tidy("a" * MAX_REPLY_CHARS)[1] is OK
    completion = tidy_completion(Completion(0, 0, "word " * 1_000_000, 9, True, -1.0))
    assert (completion.text, completion.status, len(completion.raw)) == ("", CompletionStatus.TOO_LONG, 2000)


def test_a_long_text_that_begins_with_an_excuse_says_something():
    excuse = "I'm sorry that the history is short. "
    assert is_refusal(excuse)
    assert not is_refusal(excuse + PLAIN * 10)


def test_a_completion_keeps_what_it_was_beside_what_it_is():
    completion = tidy_completion(Completion(3, 1, f"<think>x</think>{PLAIN}", 9, True, -1.0))
    assert (completion.text, completion.raw, completion.status) == (PLAIN, f"<think>x</think>{PLAIN}", OK)
    plain = Completion(3, 1, PLAIN, 9, True, -1.0)
    assert tidy_completion(plain) is plain
    assert tidy_completion(completion) is completion


@pytest.mark.parametrize(
    ("text", "num_sentences", "kept"),
    [
        (PLAIN, 1, "By genre: likes Drama, War; dislikes Comedy."),
        (PLAIN, 2, PLAIN),
        (PLAIN, 9, PLAIN),
        ("", 1, ""),
        (
            "By director: likes M. Night Shyamalan, J. J. Abrams. Mixed.",
            1,
            "By director: likes M. Night Shyamalan, J. J. Abrams.",
        ),
        ("By director: likes Steven E. de Souza. Mixed.", 1, "By director: likes Steven E. de Souza."),
        ("Likes 3.5 stars and more. Old ones!\nNew ones?", 2, "Likes 3.5 stars and more. Old ones!"),
        ("Cut in the mid", 1, "Cut in the mid"),
        ("Whole. Cut in the mid", 1, "Whole."),
    ],
)
def test_the_first_sentences_end_where_sentences_end(text, num_sentences, kept):
    assert first_sentences(text, num_sentences) == kept


def test_a_shortened_completion_is_finished_where_it_went_on():
    cut = Completion(0, 1, "Likes war. Dislikes rom", 9, False, -1.0)
    short = shorten_completion(cut, 1)
    assert (short.text, short.is_finished, short.raw) == ("Likes war.", True, cut.text)
    assert shorten_completion(cut, 2) is cut  # the token limit cut its second sentence: still unfinished
    tidied = tidy_completion(Completion(0, 1, "<think>x</think>One. Two.", 9, True, -1.0))
    assert shorten_completion(tidied, 1).raw == "<think>x</think>One. Two."
    empty = tidy_completion(Completion(0, 1, "", 1, True, -1.0))
    assert shorten_completion(empty, 1) is empty


@given(st.text(alphabet=st.characters(), max_size=60))
def test_whatever_is_written_can_be_stored_and_tidying_twice_changes_nothing(raw):
    text, status, _ = tidy(raw)
    text.encode()
    printable(raw).encode()
    assert text == text.strip()
    assert (text == "") == (status is not OK)
