"""Lessons as token arrays, in shards that depend only on the seed, their number and the curriculum.

A token belongs to a segment: the trunk (0), a question, or an answer. It may read the trunk, its own segment and the
question above it, never another branch; `parent` is that question. `source` and `target` are the supervised pairs: the
hidden state at index `source` must predict token `target`. The last token of a question may be the source of several
answers' first tokens. In a summary each pair also has the set of tokens that are true in the target's place.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from scripts.pretrain_lm.corpus import Difficulty, Lesson, Words, invent_lesson
from scripts.pretrain_lm.skills import invent_skill_lesson
from scripts.pretrain_lm.summaries import Choice, Summary
from scripts.pretrain_lm.tokenizer import SPECIALS, english_words

TRUNK_SHARE = 0.15
MARKS = (",", ";", ".")  # after a value
Encode = Callable[[list[str]], list[list[int]]]


@dataclass(frozen=True, slots=True)
class TokenLesson:
    """One training sequence. Axes: T tokens, S supervised pairs, A allowed tokens of all pairs in a row.

    num_allowed_S: how many of `allowed_A` belong to each pair; 0 where only the target is right.
    """

    ids_T: np.ndarray
    segment_T: np.ndarray
    parent_T: np.ndarray
    position_T: np.ndarray
    source_S: np.ndarray
    target_S: np.ndarray
    allowed_A: np.ndarray
    num_allowed_S: np.ndarray


def token_lesson(
    pieces: Sequence[Sequence[int]],
    shape: Sequence[int],
    supervise_trunk: bool,
    allowed: Mapping[int, Sequence[Sequence[int]]] = MappingProxyType({}),
) -> TokenLesson:
    """One lesson as arrays.

    Args:
        pieces: token ids of the trunk, then for each branch its question and its answers.
        shape: number of answers of each branch.
        supervise_trunk: also predict the trunk's own tokens.
        allowed: for some answers, by position in `pieces`: the tokens allowed in place of each of its tokens.
    """
    trunk = list(pieces[0])
    ids, segment, parent, position = trunk[:], [0] * len(trunk), [0] * len(trunk), list(range(len(trunk)))
    source = list(range(len(trunk) - 1)) if supervise_trunk else []
    target = trunk[1:] if supervise_trunk else []
    allowed_at: list[Sequence[int]] = [()] * len(target)
    cursor, next_segment = 1, 1
    for num_answers in shape:
        question = list(pieces[cursor])
        question_segment, asked_at = next_segment, len(trunk) + len(question)
        ids += question
        segment += [question_segment] * len(question)
        parent += [0] * len(question)
        position += range(len(trunk), asked_at)
        last = len(ids) - 1
        next_segment += 1
        for place in range(cursor + 1, cursor + 1 + num_answers):
            answer = pieces[place]
            start = len(ids)
            ids += answer
            segment += [next_segment] * len(answer)
            parent += [question_segment] * len(answer)
            position += range(asked_at, asked_at + len(answer))
            source += [last, *range(start, start + len(answer) - 1)]
            target += answer
            allowed_at += allowed.get(place) or [()] * len(answer)
            next_segment += 1
        cursor += 1 + num_answers
    flat = [token for tokens in allowed_at for token in tokens]
    sizes = [len(tokens) for tokens in allowed_at]
    columns = (ids, segment, parent, position, source, target, flat, sizes)
    return TokenLesson(*(np.array(column, dtype=np.int32) for column in columns))


def repeat_lesson(tokens: np.ndarray, rng: np.random.Generator) -> TokenLesson:
    """A lesson of random tokens that repeat two to three times; every repeat must be predicted."""
    period = int(rng.integers(6, 33))
    once = rng.choice(tokens, size=period)
    ids = np.resize(once, int(rng.integers(2 * period, 3 * period + 1))).astype(np.int32)
    zeros, order = np.zeros(len(ids), np.int32), np.arange(len(ids), dtype=np.int32)
    targets = ids[period:]
    return TokenLesson(ids, zeros, zeros, order, order[period - 1 : -1], targets, zeros[:0], np.zeros_like(targets))


def allowed_tokens(summary: Summary, encode: Encode) -> list[list[int]] | None:
    """The tokens that are true in place of each token of a summary's text and of its end.

    A value and the mark after it are read together, since a tokenizer may have one token for ``",``. None where the
    text is not tokenized like its pieces.
    """
    choices = _with_marks(summary.choices)
    pieces = list(dict.fromkeys(option for choice in choices for option in choice.options))
    ids = dict(zip(pieces, encode([piece or "<|end|>" for piece in pieces]), strict=True))
    allowed: list[list[int]] = []
    for choice in choices:
        taken = ids[choice.taken]
        for place in range(len(taken)):
            near = [ids[option] for option in choice.options if ids[option][:place] == taken[:place]]
            allowed.append(sorted({tokens[place] for tokens in near if len(tokens) > place}))
    written = [token for choice in choices for token in ids[choice.taken]]
    return allowed if written == encode([f"{summary.text}<|end|>"])[0] else None


def _with_marks(choices: Sequence[Choice]) -> list[Choice]:
    """The choices, each mark joined to what stands before it; after a value that was not taken any mark may follow."""
    joined: list[Choice] = []
    for choice in choices:
        if joined and set(choice.options) <= set(MARKS):
            before = joined.pop()
            own = [before.taken + mark for mark in choice.options]
            others = [option + mark for option in before.options if option != before.taken for mark in MARKS]
            joined.append(Choice((*own, *others), before.taken + choice.taken))
        else:
            joined.append(choice)
    return joined


def lessons_of_shard(
    encode: Encode,
    vocab_size: int,
    num_lessons: int,
    difficulty: Difficulty,
    seed: tuple[int, int],
    trunk_share: float = TRUNK_SHARE,
    source: type[Words] = Words,
) -> list[TokenLesson]:
    """The lessons of one shard.

    Args:
        encode: texts to token ids; special tokens are recognised, none is added.
        seed: (run seed, shard number).
        trunk_share: of lessons whose trunk is learnt too.
        source: of the words, names and titles.
    """
    rng = np.random.default_rng(seed)
    words = source(english_words(), rng)
    few = rng.choice(np.arange(len(SPECIALS), vocab_size), size=256, replace=False)
    lessons: list[Lesson] = []
    done: list[TokenLesson] = []
    for _ in range(num_lessons):
        if rng.random() < difficulty.repeat_share:
            done.append(repeat_lesson(few, rng))
        elif difficulty.skill_share and rng.random() < difficulty.skill_share:
            max_candidates, lookup_share = difficulty.max_candidates, difficulty.lookup_share
            lessons.append(invent_skill_lesson(words, max_candidates, lookup_share, rng))
        else:
            lessons.append(invent_lesson(words, difficulty, rng))
    texts: list[str] = []
    for lesson in lessons:
        texts.append(lesson.trunk)
        for branch in lesson.branches:
            texts.append(f"\n{branch.question}<|end|><|assistant|>")
            texts += [f"{answer}<|end|>" for answer in branch.answers]
    encoded = encode(texts) if texts else []
    cursor = 0
    for lesson in lessons:
        shape = [len(branch.answers) for branch in lesson.branches]
        count = 1 + len(shape) + sum(shape)
        pieces = encoded[cursor : cursor + count]
        done.append(token_lesson(pieces, shape, rng.random() < trunk_share, _allowed_of(lesson, encode)))
        cursor += count
    return [done[i] for i in rng.permutation(len(done))]


def _allowed_of(lesson: Lesson, encode: Encode) -> dict[int, list[list[int]]]:
    """The allowed tokens by an answer's place among the lesson's pieces."""
    found: dict[int, list[list[int]]] = {}
    place = 1
    for branch in lesson.branches:
        for number, summary in enumerate(branch.summaries):
            if allowed := allowed_tokens(summary, encode):
                found[place + 1 + number] = allowed
        place += 1 + len(branch.answers)
    return found


def batches_of(lessons: Sequence[TokenLesson], max_tokens: int, rng: np.random.Generator) -> list[list[TokenLesson]]:
    """Batches of lessons of similar length with at most `max_tokens` padded tokens, in random order."""
    ordered = sorted(lessons, key=lambda lesson: len(lesson.ids_T))
    batches: list[list[TokenLesson]] = [[]]
    for lesson in ordered:
        if batches[-1] and len(lesson.ids_T) * (len(batches[-1]) + 1) > max_tokens:
            batches.append([])
        batches[-1].append(lesson)
    return [batches[i] for i in rng.permutation(len(batches))]
