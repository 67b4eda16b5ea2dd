"""Lessons beyond summaries: next item with and without a hint, reflection on a wrong list, requests.

As in `corpus`, every lesson has its own catalogue. Many questions share one trunk: the same session and candidates with
several hints, or the same candidates with several requests.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from recloop.data.request_words import ask_by_item, ask_explicitly, ask_misinformed
from recloop.prompts import next_item
from recloop.prompts import request as requests
from recloop.prompts.claims import HistoryItem
from recloop.prompts.lines import candidate_line, clean_item, line_from
from recloop.prompts.reflection import ASK_ANALYSIS, ASK_HINTS, ASK_WRONG, write_hint
from recloop.records import Condition
from scripts.pretrain_lm.corpus import NOUNS, Attribute, Branch, Lesson, Words, invent_attributes
from scripts.pretrain_lm.summaries import END, Choice, Summary

MIN_SESSION, MAX_SESSION = 3, 8
UNKNOWN = "unknown"  # in place of a value that an item lacks
NOBODY = "\nnone"  # in place of candidates that have a value
KEPT_VALUE = 0.8  # probability that an item of a session has the session's value
NUM_REQUESTS = 5  # about the same candidates
CONDITION_SHARES = (0.5, 0.3, 0.2)  # of requests with one, two and three conditions
EXPLICIT_SHARE = 0.7  # of requests that name all conditions; the others refer to an item
ATTEMPTS = 30
NUM_LOOKUPS = 6  # short questions under a list of candidates, beside those of the skill
NUM_ALONE = 24  # in a lesson with nothing else
MAX_HOLDERS = 3  # most candidates with a value that is looked up


@dataclass(frozen=True, slots=True)
class SessionTask:
    """A session about one value of one attribute, and candidates of which one continues it.

    hidden: the attribute. answer: the only candidate with the session's value of it.
    """

    session: next_item.SessionText
    hidden: str
    answer: int


@dataclass(frozen=True, slots=True)
class RequestTask:
    """Candidates, conditions in words, and the only candidate that meets all of them.

    mentioned: the item by which the first condition is expressed.
    """

    noun: str
    attributes: tuple[str, ...]
    candidates: tuple[HistoryItem, ...]
    text: str
    wanted: tuple[Condition, ...]
    answer: int
    mentioned: HistoryItem | None = None


def invent_session(words: Words, num_candidates: int, rng: np.random.Generator) -> SessionTask:
    """A session whose items share a value of one attribute and are random in the others.

    Wrong candidates have the session's values of other attributes, so the wrong attribute leads to them.
    """
    length = int(rng.integers(MIN_SESSION, MAX_SESSION + 1))
    attributes = _attributes_for(words, num_candidates, rng)
    hidden = int(rng.integers(len(attributes)))
    value = _draw(attributes[hidden], rng)
    items = [_item(words, attributes, rng) for _ in range(length)]
    items = [_with(item, hidden, value) if rng.random() < KEPT_VALUE else item for item in items]
    last = [*items[-1].values]
    last[hidden] = (value,)
    items[-1] = HistoryItem(items[-1].title, tuple(last), None)
    candidates: list[HistoryItem] = []
    while len(candidates) < num_candidates - 1:
        candidate = _item(words, attributes, rng)
        other = int(rng.integers(len(attributes)))
        if other != hidden and rng.random() < 0.5:
            lent = items[int(rng.integers(length))].values[other]
            candidate = _with(candidate, other, lent[0]) if lent else candidate
        if value not in candidate.values[hidden]:
            candidates.append(candidate)
    answer = int(rng.integers(num_candidates))
    candidates.insert(answer, _with(_item(words, attributes, rng), hidden, value))
    session = next_item.SessionText(
        NOUNS[rng.integers(len(NOUNS))],
        tuple(attribute.name for attribute in attributes),
        tuple(items),
        next_item.with_distinct_titles(candidates),
    )
    return SessionTask(session, attributes[hidden].name, answer)


def session_attributes(session: next_item.SessionText) -> list[str]:
    """The attributes that may continue a session: most of its items share the latest item's value."""
    counts = [
        max((sum(value in item.values[column] for item in session.shown) for value in last), default=0)
        for column, last in enumerate(session.shown[-1].values)
    ]
    return [attribute for attribute, count in zip(session.attributes, counts, strict=True) if count == max(counts)]


def draw_ranking(
    session: next_item.SessionText, attributes: Sequence[str], num_ranked: int, rng: np.random.Generator
) -> Summary:
    """A canonical list as the choices that make it.

    It chooses one of `attributes` and the latest item's value of it, and names at most `num_ranked` candidates with
    that value, in any order. A value that no candidate has is chosen only where there is no other.
    """
    held: dict[tuple[str, str], list[HistoryItem]] = {}
    for attribute in attributes:
        column = session.attributes.index(attribute)
        for value in session.shown[-1].values[column]:
            held[attribute, value] = [item for item in session.candidates if value in item.values[column]]
    keys = [key for key, items in held.items() if items] or list(held) or [(attributes[0], UNKNOWN)]
    leads = {f"By {attribute} {value}:": (attribute, value) for attribute, value in keys}
    lead = list(leads)[int(rng.integers(len(leads)))]
    attribute, value = leads[lead]
    lines = [f" {line_from(session.attributes, item, attribute, value)}" for item in held.get((attribute, value), [])]
    choices = [Choice(tuple(leads), lead)]
    for place in range(1, min(num_ranked, len(lines)) + 1):
        choices.append(Choice((f"\n{place}.",), f"\n{place}."))
        taken = int(rng.integers(len(lines)))
        choices.append(Choice(tuple(lines), lines[taken]))
        lines.pop(taken)
    if len(choices) == 1:
        choices.append(Choice((NOBODY,), NOBODY))
    return Summary((*choices, Choice((END,), END)))


def lookups(
    attributes: Sequence[str], items: Sequence[HistoryItem], rng: np.random.Generator, count: int = NUM_LOOKUPS
) -> list[Branch]:
    """Short questions that teach to find lines by a value and to read their titles."""
    holders: dict[tuple[str, str], list[HistoryItem]] = {}
    for item in items:
        for attribute, values in zip(attributes, item.values, strict=True):
            for value in values:
                holders.setdefault((attribute, value), []).append(item)
    rare = [key for key, having in holders.items() if len(having) <= MAX_HOLDERS]
    branches: list[Branch] = []
    for place in rng.permutation(len(rare))[:count].tolist():
        attribute, value = rare[place]
        lines = "\n".join(f"With {line_from(attributes, item, attribute, value)}" for item in holders[attribute, value])
        branches.append(Branch(f"Which have {attribute} {value}?", (lines,)))
    return branches


def invent_next_item_lesson(words: Words, num_candidates: int, rng: np.random.Generator) -> Lesson:
    """A lesson on one session: rankings without a hint and by every attribute's hint, and lookups."""
    task = invent_session(words, num_candidates, rng)
    session = task.session
    num_ranked = int(rng.integers(1, min(next_item.NUM_RANKED, num_candidates) + 1))
    text = next_item.next_item_text(session, "", num_ranked)
    trunk, _, ask = text.rpartition("\n")
    branches = [_ranking_branch(ask, session, session_attributes(session), num_ranked, rng)]
    for attribute in session.attributes:
        question = f"{next_item.HINT}{next_item.clean_hint(write_hint(attribute))}\n{ask}"
        branches.append(_ranking_branch(question, session, (attribute,), num_ranked, rng))
    branches += lookups(session.attributes, session.candidates, rng)
    return Lesson(f"<|system|>{next_item.SYSTEM}<|end|><|user|>{trunk}", tuple(branches))


def _ranking_branch(
    question: str,
    session: next_item.SessionText,
    attributes: Sequence[str],
    num_ranked: int,
    rng: np.random.Generator,
) -> Branch:
    ranking = draw_ranking(session, attributes, num_ranked, rng)
    return Branch(question, (ranking.text,), (ranking,))


def invent_reflection_lesson(words: Words, num_candidates: int, rng: np.random.Generator) -> Lesson:
    """A lesson on a list by the wrong attribute, with the three turns of reflection after it."""
    task = invent_session(words, num_candidates, rng)
    session = task.session
    others = [attribute for attribute in session.attributes if attribute != task.hidden]
    wrong = others[int(rng.integers(len(others)))]
    num_ranked = min(int(rng.integers(2, 6)), num_candidates - 1)
    column, right = session.attributes.index(wrong), session.candidates[task.answer]
    last = set(session.shown[-1].values[column])
    passed = sorted(
        (item for item in session.candidates if item != right),
        key=lambda item: not last & set(item.values[column]),
    )
    listed = "; ".join(f'"{item.title}"' for item in passed[:num_ranked])
    trunk = "\n".join([next_item.next_item_text(session, "", num_ranked), f"The list was: {listed}."])
    pairs = zip(session.attributes, session.shown[-1].values, right.values, strict=True)
    shared = [attribute for attribute, mine, other in pairs if set(mine) & set(other)]
    line = f"The right one was: {candidate_line(session.attributes, right)}"
    wrong_text, hint = f"The list went by {wrong}.", write_hint(task.hidden)
    analysis = f"It shares the {' and '.join(shared)}." if shared else "It shares nothing."
    first = ASK_WRONG
    second = "\n".join([first, f"Reply: {wrong_text}", line, ASK_ANALYSIS])
    third = "\n".join([second, f"Reply: {analysis}", ASK_HINTS.format(num=int(rng.integers(1, 4)))])
    branches = (Branch(first, (wrong_text,)), Branch(second, (analysis,)), Branch(third, (hint,)))
    return Lesson(f"<|system|>{next_item.SYSTEM}<|end|><|user|>{trunk}", branches)


def invent_request(words: Words, num_candidates: int, num_conditions: int, rng: np.random.Generator) -> RequestTask:
    """A request with one candidate that meets all conditions, some that meet all but one, and some that meet none."""
    attributes = _attributes_for(words, num_candidates, rng)
    noun, names = NOUNS[rng.integers(len(NOUNS))], tuple(attribute.name for attribute in attributes)
    columns = rng.permutation(len(attributes))[: min(num_conditions, len(attributes))].tolist()
    wanted = [(column, _draw(attributes[column], rng)) for column in columns]
    right = _item(words, attributes, rng)
    for column, value in wanted:
        right = _with(right, column, value)
    candidates: list[HistoryItem] = []
    while len(candidates) < num_candidates - 1:
        candidate = _item(words, attributes, rng)
        if len(wanted) > 1 and rng.random() < 0.4:
            missed = int(rng.integers(len(wanted)))
            for number, (column, value) in enumerate(wanted):
                candidate = candidate if number == missed else _with(candidate, column, value)
        if not all(value in candidate.values[column] for column, value in wanted):
            candidates.append(candidate)
    answer = int(rng.integers(num_candidates))
    candidates.insert(answer, right)
    conditions = tuple(Condition(names[column], value) for column, value in wanted)
    text = ask_explicitly(noun, conditions, rng)
    return RequestTask(noun, names, next_item.with_distinct_titles(candidates), text, conditions, answer)


def another_request(task: RequestTask, words: Words, rng: np.random.Generator) -> RequestTask | None:
    """Another request about the same candidates, or None where no conditions leave one candidate.

    It names its conditions, refers to an item, or makes a false claim about that item.
    """
    for _ in range(ATTEMPTS):
        answer = int(rng.integers(len(task.candidates)))
        right = task.candidates[answer]
        known = [column for column, values in enumerate(right.values) if values]
        if not known:
            continue
        size = min(int(rng.choice([1, 2, 3], p=CONDITION_SHARES)), len(known))
        columns = rng.permutation(known)[:size].tolist()
        wanted = [(column, right.values[column][int(rng.integers(len(right.values[column])))]) for column in columns]
        meeting = [c for c in task.candidates if all(value in c.values[column] for column, value in wanted)]
        if len(meeting) == 1:
            break
    else:
        return None
    conditions = tuple(Condition(task.attributes[column], value) for column, value in wanted)
    form = rng.random()
    if form < EXPLICIT_SHARE:
        text = ask_explicitly(task.noun, conditions, rng)
        return replace(task, text=text, wanted=conditions, answer=answer, mentioned=None)
    main, more = conditions[0], conditions[1:]
    found = [[value for c in task.candidates for value in c.values[n]] for n in range(len(task.attributes))]
    values = [(column[int(rng.integers(len(column)))],) if column else () for column in found]
    values[columns[0]] = (main.value,)
    item = clean_item(words.title(), values)
    others = sorted({*found[columns[0]]} - {main.value})
    if form < EXPLICIT_SHARE + (1 - EXPLICIT_SHARE) / 2 or not others:
        text = ask_by_item(task.noun, item.title, main.attribute, more, rng)
    else:
        false = Condition(main.attribute, others[int(rng.integers(len(others)))])
        text = ask_misinformed(task.noun, item.title, false, more, rng)
    return replace(task, text=text, wanted=conditions, answer=answer, mentioned=item)


def request_prompt(task: RequestTask) -> str:
    """The user turn of a request."""
    mentioned = () if task.mentioned is None else (task.mentioned,)
    return requests.request_text(task.noun, task.attributes, task.candidates, task.text, (), mentioned)


def invent_request_lesson(words: Words, num_candidates: int, rng: np.random.Generator) -> Lesson:
    """A lesson of several requests about the same candidates, their canonical answers, and lookups."""
    first = invent_request(words, num_candidates, int(rng.choice([1, 2, 3], p=CONDITION_SHARES)), rng)
    others = [another_request(first, words, rng) for _ in range(NUM_REQUESTS - 1)]
    branches: list[Branch] = []
    for task in (first, *others):
        if task is not None:
            text = request_prompt(task)
            lines = text.split("\n")
            answer = requests.reference_answer(
                task.attributes, task.candidates, task.wanted, task.answer, task.mentioned
            )
            branches.append(Branch("\n".join(lines[1 + num_candidates :]), (answer,)))
    branches += lookups(first.attributes, first.candidates, rng)
    trunk = "\n".join(request_prompt(first).split("\n")[: 1 + num_candidates])
    return Lesson(f"<|system|>{requests.SYSTEM}<|end|><|user|>{trunk}", tuple(branches))


def invent_lookup_lesson(words: Words, num_candidates: int, rng: np.random.Generator) -> Lesson:
    """A lesson of many short questions about candidates."""
    task = invent_request(words, num_candidates, 1, rng)
    trunk = "\n".join(request_prompt(task).split("\n")[: 1 + num_candidates])
    branches = lookups(task.attributes, task.candidates, rng, NUM_ALONE)
    return Lesson(f"<|system|>{requests.SYSTEM}<|end|><|user|>{trunk}", tuple(branches))


def invent_skill_lesson(words: Words, max_candidates: int, lookup_share: float, rng: np.random.Generator) -> Lesson:
    """A lesson of lookups alone or of one of the three skills; reflection, which is easy, least often."""
    num_candidates = int(rng.integers(3, max_candidates + 1))
    if rng.random() < lookup_share:
        return invent_lookup_lesson(words, num_candidates, rng)
    makers: tuple[Callable[[Words, int, np.random.Generator], Lesson], ...] = (
        invent_next_item_lesson,
        invent_request_lesson,
        invent_reflection_lesson,
    )
    return makers[int(rng.choice(3, p=[0.3, 0.6, 0.1]))](words, num_candidates, rng)


def _attributes_for(words: Words, num_items: int, rng: np.random.Generator) -> list[Attribute]:
    """Two or more attributes, each with enough values to distinguish candidates."""
    while True:
        attributes = invent_attributes(words, num_items, rng)
        if len(attributes) > 1 and all(len(attribute.values) >= 3 for attribute in attributes):
            return attributes


def _item(words: Words, attributes: Sequence[Attribute], rng: np.random.Generator) -> HistoryItem:
    values = []
    for attribute in attributes:
        count = min(int(rng.integers(1, attribute.max_per_item + 1)), len(attribute.values), 3)
        drawn = rng.choice(len(attribute.values), size=count, replace=False, p=attribute.popularity)
        values.append(tuple(attribute.values[v] for v in drawn))
    return clean_item(words.title(), values)


def _draw(attribute: Attribute, rng: np.random.Generator) -> str:
    return attribute.values[int(rng.integers(len(attribute.values)))]


def _with(item: HistoryItem, column: int, value: str) -> HistoryItem:
    """The item with this value in place of its first one of that attribute."""
    kept = tuple(v for v in item.values[column][1:] if v != value)
    values = list(item.values)
    values[column] = (value, *kept)
    return HistoryItem(item.title, tuple(values), item.rating)
