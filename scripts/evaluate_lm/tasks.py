"""Accuracy of a language model in the tasks of the other methods: next item and requests.

The catalogues are invented, so nothing can be memorised. The right answer is known and is one of the candidates. The
same tasks, with other seeds, teach the bundled model (`python -m scripts.pretrain_lm --skill-share`).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import polars as pl
from scipy.stats import binomtest

from recloop.errors import SettingError
from recloop.llm.cache import CompletionCache
from recloop.llm.generate import sample_accepted
from recloop.llm.language_model import Sampling
from recloop.progress import SILENT, Progress
from recloop.prompts import next_item
from recloop.prompts import request as requests
from recloop.prompts.lines import NOUNS, history_items
from recloop.prompts.reflection import write_hint
from recloop.prompts.request_answer import read_answer
from recloop.records import Completion, Log, Prompt
from scripts.pretrain_lm.corpus import Words
from scripts.pretrain_lm.skills import (
    KEPT_VALUE,
    MAX_SESSION,
    MIN_SESSION,
    SessionTask,
    invent_request,
    invent_session,
    request_prompt,
)
from scripts.pretrain_lm.tokenizer import english_words

if TYPE_CHECKING:
    from jaxtyping import Int64

    from recloop.llm.language_model import LanguageModel

HINTS = ("no hint", "right hint", "wrong hint")
MAX_ANSWER_TOKENS = 200
SEED = 2**30  # not used by lessons


@dataclass(frozen=True, slots=True)
class TaskSkill:
    """Shares of tasks in [0, 1].

    right: by form of the task, the first named candidate is the right one.
    readable: the answer names a candidate where it should.
    p_hint: one-sided sign test over tasks of "the right hint is no better than a wrong one"; NaN without hints.
    """

    num_tasks: int
    num_candidates: int
    right: dict[str, float]
    readable: float
    p_hint: float

    def as_dict(self) -> dict[str, object]:
        return asdict(self)


def evaluate_next_item(
    lm: LanguageModel,
    num_tasks: int,
    num_candidates: int,
    sampling: Sampling,
    progress: Progress = SILENT,
    log: Log | None = None,
    tries: int = 1,
) -> TaskSkill:
    """The skill in sessions about one value of one attribute: without a hint, with the right one, with a wrong one.

    Args:
        log: whose items make the sessions; None for invented items.
        tries: how often an answer is drawn at most, until it names a candidate.
    """
    rng = np.random.default_rng([sampling.seed, SEED])
    if log is None:
        words = Words(english_words(), rng)
        tasks = [invent_session(words, num_candidates, rng) for _ in range(num_tasks)]
    else:
        draw = session_drawer(log)
        tasks = [draw(num_candidates, rng) for _ in range(num_tasks)]
    hints = [_hints_for(task, rng) for task in tasks]
    sessions = [task.session for task in tasks for _ in HINTS]
    asked = [hint for by_form in hints for hint in by_form]
    first_TF = first_places(lm, sessions, asked, sampling, progress, tries).reshape(num_tasks, len(HINTS))
    is_right_TF = first_TF == np.array([[task.answer] for task in tasks])
    gained, lost = (int((a & ~b).sum()) for a, b in (is_right_TF.T[1:], is_right_TF.T[:0:-1]))
    p = float(binomtest(gained, gained + lost, alternative="greater").pvalue) if gained + lost else 1.0
    right = {form: float(is_right_TF[:, number].mean()) for number, form in enumerate(HINTS)}
    return TaskSkill(num_tasks, num_candidates, right, float((first_TF >= 0).mean()), p)


def with_years(log: Log) -> Log:
    """The log with the attribute ``year``, where it has one, at the end of its titles: ``Heat (1995)``."""
    if "year" not in log.attributes:
        return log
    year = pl.col("year").list.first()
    title = pl.when(year.is_null()).then("title").otherwise(pl.format("{} ({})", "title", year))
    attributes = tuple(name for name in log.attributes if name != "year")
    return replace(log, items=log.items.with_columns(title=title).drop("year"), attributes=attributes)


def session_drawer(log: Log) -> Callable[[int, np.random.Generator], SessionTask]:
    """A function that draws a task of `num_candidates` real items, made like those of `invent_session`.

    Four of five items of the session share a value of one attribute, as does the right candidate and no other one. Half
    of the others have another attribute's value of the session.
    """
    items = history_items(log)(range(log.num_items))
    holders: dict[tuple[int, str], list[int]] = defaultdict(list)
    for number, item in enumerate(items):
        for column, values in enumerate(item.values):
            for value in values:
                holders[column, value].append(number)
    shared = [key for key, own in holders.items() if 2 * MAX_SESSION <= len(own) <= len(items) / 2]
    if not shared or len(log.attributes) < 2:
        raise SettingError(f"sessions need two attributes whose values items share, got none in {log.name}")
    columns = sorted({column for column, _ in shared})

    def draw(num_candidates: int, rng: np.random.Generator) -> SessionTask:
        hidden = int(rng.choice(columns))
        keys = [key for key in shared if key[0] == hidden]
        key = keys[int(rng.integers(len(keys)))]
        own = rng.permutation(holders[key]).tolist()
        length = int(rng.integers(MIN_SESSION, MAX_SESSION + 1))
        shown = [own.pop() if rng.random() < KEPT_VALUE else int(rng.integers(len(items))) for _ in range(length - 1)]
        shown.append(own.pop())
        taken, others = {*holders[key], *shown}, [column for column in range(len(log.attributes)) if column != hidden]
        places: list[int] = []
        while len(places) < num_candidates - 1:
            found = int(rng.integers(len(items)))
            if rng.random() < 0.5:
                column = others[int(rng.integers(len(others)))]
                lent = items[shown[int(rng.integers(length))]].values[column]
                found = int(rng.choice(holders[column, lent[0]])) if lent else found
            if found not in taken:
                taken.add(found)
                places.append(found)
        answer = int(rng.integers(num_candidates))
        places.insert(answer, next(place for place in own if place not in shown))
        candidates = next_item.with_distinct_titles([items[place] for place in places])
        told = tuple(items[place] for place in shown)
        session = next_item.SessionText(NOUNS[log.domain], log.attributes, told, candidates)
        return SessionTask(session, log.attributes[hidden], answer)

    return draw


def first_places(
    lm: LanguageModel,
    sessions: Sequence[next_item.SessionText],
    hints: Sequence[str],
    sampling: Sampling,
    progress: Progress = SILENT,
    tries: int = 1,
) -> Int64[np.ndarray, " N"]:
    """The place of the candidate that each answer names first; -1 where it names none.

    Args:
        hints: one per session; an empty text for none.
        tries: as for `evaluate_next_item`.
    """
    texts = [next_item.next_item_text(*asked, 1) for asked in zip(sessions, hints, strict=True)]

    def first(number: int, answer: Completion) -> int:
        titles = [item.title for item in sessions[number].candidates]
        places = next_item.parse_ranking(answer.text, titles, 1).places
        return places[0] if places else -1

    answers = _ask(lm, next_item.SYSTEM, texts, sampling, progress, lambda number, one: first(number, one) >= 0, tries)
    return np.array([first(number, answer) for number, answer in enumerate(answers)], dtype=np.int64)


def evaluate_requests(
    lm: LanguageModel,
    num_tasks: int,
    num_candidates: int,
    sampling: Sampling,
    progress: Progress = SILENT,
    tries: int = 1,
) -> TaskSkill:
    """The skill in requests with one, two and three named conditions, each a third of the tasks.

    Args:
        tries: how often an answer is drawn at most, until it names a candidate.
    """
    rng = np.random.default_rng([sampling.seed, SEED, 1])
    words = Words(english_words(), rng)
    sizes = [1 + number % 3 for number in range(num_tasks)]
    tasks = [invent_request(words, num_candidates, size, rng) for size in sizes]

    def first(number: int, answer: Completion) -> int | None:
        titles = [item.title for item in tasks[number].candidates]
        return read_answer(answer.text, titles, is_finished=answer.is_finished).first

    texts = [request_prompt(task) for task in tasks]
    answers = _ask(
        lm, requests.SYSTEM, texts, sampling, progress, lambda number, one: first(number, one) is not None, tries
    )
    firsts = [first(number, answer) for number, answer in enumerate(answers)]
    met = [len(task.wanted) for task in tasks]
    is_right = [first == task.answer for task, first in zip(tasks, firsts, strict=True)]
    right = {
        f"{size} condition{'s' * (size > 1)}": float(
            np.mean([ok for ok, n in zip(is_right, met, strict=True) if n == size])
        )
        for size in sorted(set(met))
    }
    readable = float(np.mean([first is not None for first in firsts]))
    return TaskSkill(num_tasks, num_candidates, right, readable, float("nan"))


def _hints_for(task: SessionTask, rng: np.random.Generator) -> tuple[str, str, str]:
    others = [attribute for attribute in task.session.attributes if attribute != task.hidden]
    return "", write_hint(task.hidden), write_hint(others[int(rng.integers(len(others)))])


def _ask(
    lm: LanguageModel,
    system: str,
    texts: Sequence[str],
    sampling: Sampling,
    progress: Progress,
    is_readable: Callable[[int, Completion], bool],
    tries: int,
) -> list[Completion]:
    """One answer to each text, the first of `tries` that can be read."""
    prompts = [Prompt(number, system, text, 0, 0) for number, text in enumerate(texts)]
    sampling = replace(sampling, num_completions=1, first_completion=0, max_tokens=MAX_ANSWER_TOKENS)
    with CompletionCache(":memory:") as cache:
        found = sample_accepted(
            lm, prompts, sampling, cache, lambda prompt, one: is_readable(prompt.user, one), tries, progress
        )
    return [answer for (answer,) in found.completions_UN]
