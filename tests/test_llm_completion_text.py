import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recloop.llm.completion_text import (
    MAX_REPLY_CHARS,
    first_sentences,
    printable,
    shorten_completion,
    tidy,
    tidy_completion,
)
from recloop.llm.refusals import is_refusal
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


# Wrappers of reasoning as models write them, with special tokens and without.
@pytest.mark.parametrize(
    "raw",
    [
        f"<|channel|>analysis<|message|>Two<|end|><|start|>assistant<|channel|>final<|message|>{PLAIN}<|return|>",
        f"<|channel|>analysis<|message|>Two<|end|><|channel|>final <|constrain|>json<|message|>{PLAIN}",
        f"analysisThe user likes two dramas.assistantfinal{PLAIN}",
        f"analysisWe see.assistantcommentaryHm.assistantfinal{PLAIN}",
        f"[THINK]Two dramas.[/THINK]{PLAIN}",
        f"◁think▷Two dramas.◁/think▷{PLAIN}",
        f"<seed:think>Two dramas.</seed:think>{PLAIN}",
        f"<|START_THINKING|>Two.<|END_THINKING|><|START_RESPONSE|>{PLAIN}<|END_RESPONSE|>",
        f"<|begin_of_thought|>Two.<|end_of_thought|><|begin_of_solution|>{PLAIN}<|end_of_solution|>",
        f"Here is my thought process: Two dramas.\nHere is my response: {PLAIN}",
        f"<unused94>thought\nTwo dramas.<unused95>{PLAIN}",
        f"<think>{'Two dramas. ' * 5_000}</think>{PLAIN}",
    ],
)
def test_only_the_final_answer_stays_of_reasoning_in_any_wrapper(raw):
    assert tidy(raw)[:2] == (PLAIN, OK)


@pytest.mark.parametrize(
    "raw",
    ["<|channel|>analysis<|message|>I was cut", "analysisThe user likes", "[THINK]cut", "◁think▷cut", "<THINK>cut"],
)
def test_reasoning_that_was_cut_is_no_answer_and_says_which_setting_to_raise(raw):
    completion = tidy_completion(Completion(0, 0, raw, 9, False, -1.0))
    assert (completion.text, completion.status) == ("", EMPTY)
    assert "reasoning used up max_tokens; raise lm.max_tokens" in completion.reason
    assert completion.raw == raw


@pytest.mark.parametrize(
    "piece",
    ["<think>", "</think>", "<think>a</think>", "[THINK]", "<|channel|>final", "<|channel|>final<|message|>", "**a"],
)
def test_thousands_of_marks_take_no_time(piece):
    started_s = time.process_time()
    tidy(piece * 200_000)
    assert time.process_time() - started_s < 5  # a square of the length would take hours


def test_marks_of_reasoning_are_a_table_that_grows():
    raw = f"<plan>Two dramas.</plan>{PLAIN}"
    assert tidy(raw)[0] == raw
    assert tidy(raw, [("<plan>", "</plan>")])[0] == PLAIN


@pytest.mark.parametrize("text", ["analysis of a taste: likes Drama.", "Final: likes Drama.", "Analysis\nLikes Drama."])
def test_words_that_are_no_marks_stay(text):
    assert tidy(text)[:2] == (text, OK)


@pytest.mark.parametrize(
    "raw",
    ['<tool_call>{"name": "look_up"}</tool_call>', '[TOOL_CALLS][{"name": "look_up"}]', "<|python_tag|>look_up()",
     '<think>Hm.</think>Let me see. <tool_call>{"name": "a"}</tool_call>', "<function=look_up>{}</function>"],
)  # fmt: skip
def test_a_call_of_a_tool_is_no_answer(raw):
    completion = tidy_completion(Completion(0, 0, raw, 9, True, -1.0))
    assert (completion.text, completion.status, completion.raw) == ("", EMPTY, raw)
    assert completion.reason == "the model called a tool in place of an answer"


@pytest.mark.parametrize(
    "text",
    [
        "As an AI, I can see that this user likes Drama.",
        "I can't help but notice the westerns; likes Western.",
        "As an AI, I do not have taste, but this user likes dramas.",
        "I cannot recommend horror: this user gives it 1 star.",
        "I'm sorry to say westerns are disliked.",
        "该用户喜欢剧情片，不能接受恐怖片。",
        "Der Nutzer mag Dramen, leider kaum Western.",
        "このユーザーはドラマが好きです。ホラーは我慢できません。",
        "No puede faltar el drama; le gusta el cine negro.",
    ],
)
def test_an_answer_that_sounds_like_a_refusal_is_used(text):
    assert not is_refusal(text)


@pytest.mark.parametrize(
    "text",
    [
        "抱歉，我无法提供该用户的分析。",
        "對不起，我無法回答這個問題。",
        "作为一个人工智能助手，我无法分析个人。",
        "申し訳ありませんが、その質問にはお答えできません。",
        "죄송하지만 도와드릴 수 없습니다.",
        "Es tut mir leid, aber dabei kann ich nicht helfen.",
        "Leider kann ich dir dabei nicht helfen.",
        "Het spijt me, maar ik kan daar niet bij helpen.",
        "Je suis désolé, mais je ne peux pas vous aider.",
        "Lo siento, pero no puedo ayudar con eso.",
        "Desculpe, mas não posso ajudar com isso.",
        "Mi dispiace, ma non posso aiutarti.",
        "К сожалению, я не могу помочь с этим.",
        "Przepraszam, ale nie mogę pomóc.",
        "Üzgünüm, bu konuda yardımcı olamam.",
        "عذراً، لا أستطيع المساعدة في ذلك.",
        "Xin lỗi, tôi không thể giúp.",
        "Maaf, saya tidak bisa membantu.",
        "My apologies, but I cannot help with that.",
    ],
)
def test_refusals_are_known_in_many_languages(text):
    assert tidy(text)[:2] == ("", REFUSED)


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
