"""Lessons of next item, reflection and requests: right by construction, and parsed as meant."""

from collections.abc import Iterator, Sequence

import numpy as np
import pytest

from recloop.llm.language_model import Sampling
from recloop.prompts import next_item
from recloop.prompts.claims import HistoryItem
from recloop.prompts.reflection import names_title, parse_hints
from recloop.prompts.request import reference_answer
from recloop.prompts.request_answer import read_answer
from recloop.records import Completion, Prompt
from scripts.evaluate_lm.tasks import evaluate_next_item, evaluate_requests
from scripts.pretrain_lm.corpus import Words
from scripts.pretrain_lm.skills import (
    another_request,
    draw_ranking,
    invent_next_item_lesson,
    invent_reflection_lesson,
    invent_request,
    invent_request_lesson,
    invent_session,
    lookups,
    request_prompt,
    session_attributes,
)
from scripts.pretrain_lm.tokenizer import english_words

SAMPLING = Sampling(1, 1.0, 1.0, 64, 3)


@pytest.fixture
def words():
    return Words(english_words(), np.random.default_rng(0))


@pytest.mark.slow
def test_only_the_answer_continues_a_session(words):
    rng = np.random.default_rng(1)
    for _ in range(50):
        task = invent_session(words, 12, rng)
        last = task.session.shown[-1].values[task.session.attributes.index(task.hidden)][0]
        column = task.session.attributes.index(task.hidden)
        carriers = [n for n, c in enumerate(task.session.candidates) if last in c.values[column]]
        assert carriers == [task.answer]


@pytest.mark.slow
def test_requests_about_the_same_candidates_have_one_right_answer_each(words):
    rng = np.random.default_rng(4)
    said: set[str] = set()
    num_mentioned = 0
    for _ in range(40):
        task = invent_request(words, 12, 1, rng)
        other = another_request(task, words, rng)
        if other is None:
            continue
        meeting = [
            place
            for place, item in enumerate(other.candidates)
            if all(one.value in item.values[other.attributes.index(one.attribute)] for one in other.wanted)
        ]
        assert meeting == [other.answer]
        assert other.candidates == task.candidates
        said.add(other.text)
        if other.mentioned is not None:
            num_mentioned += 1
            main = other.wanted[0]
            assert other.mentioned.values[other.attributes.index(main.attribute)] == (main.value,)
            assert other.mentioned.title in other.text
            assert request_prompt(other).count(other.mentioned.title) >= 2
        else:
            assert all(one.value in other.text for one in other.wanted)
    assert len(said) > 30
    assert 3 <= num_mentioned <= 25


def test_lookups_name_every_item_with_a_value():
    items = [
        HistoryItem("a", (("War",), ("Vale",)), None),
        HistoryItem("b", (("War", "Noir"), ("Lee",)), None),
        HistoryItem("c", (("Noir",), ()), None),
    ]
    answers = {
        branch.question: branch.answers[0]
        for seed in range(30)
        for branch in lookups(("genre", "director"), items, np.random.default_rng(seed))
    }
    assert answers == {
        "Which have genre War?": 'With War | director Vale | "a"\nWith War, Noir | director Lee | "b"',
        "Which have genre Noir?": 'With Noir | director Lee | "b"\nWith Noir | "c"',
        "Which have director Vale?": 'With Vale | "a"',
        "Which have director Lee?": 'With Lee | "b"',
    }


def test_a_canonical_list_by_hand():
    """Both items are of War, one of the 1980s: a session about genre."""

    def item(title, genre, era):
        return HistoryItem(title, ((genre,), (era,)), None)

    session = next_item.SessionText(
        "films",
        ("genre", "era"),
        (item("x", "War", "1990s"), item("y", "War", "1980s")),
        (item("a", "War", "1970s"), item("b", "Noir", "1980s"), item("c", "Noir", "1960s")),
    )
    assert session_attributes(session) == ["genre"]
    drawn = draw_ranking(session, ["genre"], 3, np.random.default_rng(0))
    assert drawn.text == 'By genre War:\n1. War | era 1970s | "a"'
    both = draw_ranking(session, ["genre", "era"], 1, np.random.default_rng(0))
    assert both.choices[0].options == ("By genre War:", "By era 1980s:")
    titles = [candidate.title for candidate in session.candidates]
    assert next_item.parse_ranking(drawn.text, titles, 3).places[0] == 0


@pytest.mark.slow
def test_lessons_are_parsed_as_they_were_meant(words):
    rng = np.random.default_rng(2)
    for _ in range(30):
        lesson = invent_next_item_lesson(words, 10, rng)
        offered = lesson.trunk.split("10 candidates:\n")[1].splitlines()
        titles = [line.split('"')[1] for line in offered]
        for branch in (b for b in lesson.branches if "Rank the" in b.question):
            ranking = next_item.parse_ranking(branch.answers[0], titles, 10)
            named = [line for line in branch.answers[0].splitlines()[1:] if line != "none"]
            assert len(ranking.places) == len(named)
            assert ranking.num_invented == ranking.num_repeated == 0
        hint = invent_reflection_lesson(words, 10, rng)
        offered = hint.trunk.split("10 candidates:\n")[1].splitlines()[:10]
        titles = [line.split('"')[1] for line in offered]
        parsed = parse_hints(hint.branches[2].answers[0], titles, 1)
        assert len(parsed.hints) == 1
        assert not names_title(hint.branches[2].answers[0], titles)
        request = invent_request_lesson(words, 10, rng)
        asked = [branch for branch in request.branches if "Request:" in branch.question]
        assert asked
        assert all(branch.answers[0].endswith("}") for branch in asked)


@pytest.mark.slow
def test_only_the_answer_of_a_request_meets_all_of_it(words):
    rng = np.random.default_rng(3)
    for size in (1, 2, 3) * 15:
        task = invent_request(words, 9, size, rng)
        meeting = [
            place
            for place, item in enumerate(task.candidates)
            if all(w.value in item.values[task.attributes.index(w.attribute)] for w in task.wanted)
        ]
        assert meeting == [task.answer]
        assert all(condition.value in task.text for condition in task.wanted)
        answer = reference_answer(task.attributes, task.candidates, task.wanted, task.answer)
        titles = [item.title for item in task.candidates]
        assert read_answer(answer, titles, is_finished=True).first == task.answer
        assert request_prompt(task).count("\n") == 9 + 2


class Scripted:
    """Answers every prompt by a function of its text."""

    name = "scripted"

    def __init__(self, answer) -> None:
        self.answer = answer

    def count_tokens(self, text: str) -> int:
        return len(text.split())

    def generate(self, prompts: Sequence[Prompt], sampling: Sampling) -> Iterator[tuple[int, tuple[Completion, ...]]]:
        for number, prompt in enumerate(prompts):
            yield number, (Completion(prompt.user, 0, self.answer(prompt.text), 5, True, 0.0),)


def go_by_the_hint(text: str) -> str:
    """The first candidate that shares the hinted attribute's value with the latest item; else the first one."""
    lines = text.splitlines()
    start = next(n for n, line in enumerate(lines) if line.endswith(" candidates:"))
    offered = lines[start + 1 : -2 if "Hint:" not in text else -3]
    if "Hint:" in text:
        attribute = text.split("Go by ")[1].split(":")[0]

        def values(line):
            cell = next((c for c in line.split(" | ")[:-1] if c.startswith(f"{attribute} ")), "")
            return set(cell.removeprefix(f"{attribute} ").split(", ")) - {""}

        wanted = values(lines[start - 1])
        offered = sorted(offered, key=lambda line: not (wanted & values(line)))
    return "1. " + offered[0].split('"')[1]


@pytest.mark.slow
def test_a_model_that_follows_hints_is_separated_from_one_that_does_not():
    follower = evaluate_next_item(Scripted(go_by_the_hint), 60, 8, SAMPLING)
    assert follower.right["right hint"] == 1.0
    assert follower.right["wrong hint"] < 0.4
    assert follower.right["no hint"] < 0.4
    assert follower.p_hint < 1e-6
    deaf = evaluate_next_item(Scripted(lambda text: "I cannot say."), 20, 8, SAMPLING)
    assert deaf.readable == 0
    assert deaf.p_hint == 1.0


@pytest.mark.slow
def test_requests_count_the_box_and_nothing_else():
    def name_the_last(text):
        return f"Some thought.\n\n\\boxed{{{text.splitlines()[-3].split(chr(34))[1]}}}"

    skill = evaluate_requests(Scripted(name_the_last), 60, 5, SAMPLING)
    assert set(skill.right) == {"1 condition", "2 conditions", "3 conditions"}
    assert skill.readable > 0.9
    assert 0.02 < np.mean(list(skill.right.values())) < 0.45  # one of five
