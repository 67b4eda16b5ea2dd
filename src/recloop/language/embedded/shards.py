"""Lessons as token arrays, in shards that depend on nothing but the seed, their number and the curriculum.

A token belongs to a segment: the trunk (0), a question, or an answer. It may read the trunk, its own
segment and the question above it, never another branch; `parent` names that question. `source` and
`target` are the supervised pairs: the hidden state at index `source` must predict token `target`. One
question's last token may be the source of several answers' first tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from recloop.language.embedded.corpus import Difficulty, Lesson, Words, invent_lesson
from recloop.language.embedded.tokenizer import SPECIALS, english_words

Encode = Callable[[list[str]], list[list[int]]]


@dataclass(frozen=True, slots=True)
class TokenLesson:
    """One training sequence. Axis T: tokens; axis S: supervised pairs."""

    ids_T: np.ndarray
    segment_T: np.ndarray
    parent_T: np.ndarray
    position_T: np.ndarray
    source_S: np.ndarray
    target_S: np.ndarray


def token_lesson(pieces: Sequence[Sequence[int]], shape: Sequence[int], supervise_trunk: bool) -> TokenLesson:
    """Lay out one lesson.

    Args:
        pieces: token ids of the trunk, then for each branch its question and its answers.
        shape: number of answers of each branch.
        supervise_trunk: also predict the trunk's own tokens.
    """
    trunk = list(pieces[0])
    ids, segment, parent, position = trunk[:], [0] * len(trunk), [0] * len(trunk), list(range(len(trunk)))
    source = list(range(len(trunk) - 1)) if supervise_trunk else []
    target = trunk[1:] if supervise_trunk else []
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
        for answer in pieces[cursor + 1 : cursor + 1 + num_answers]:
            start = len(ids)
            ids += answer
            segment += [next_segment] * len(answer)
            parent += [question_segment] * len(answer)
            position += range(asked_at, asked_at + len(answer))
            source += [last, *range(start, start + len(answer) - 1)]
            target += answer
            next_segment += 1
        cursor += 1 + num_answers
    arrays = [np.array(a, dtype=np.int32) for a in (ids, segment, parent, position, source, target)]
    return TokenLesson(*arrays)


def repeat_lesson(tokens: np.ndarray, rng: np.random.Generator) -> TokenLesson:
    """Some of these tokens at random, repeated two to three times; every repeat is to be predicted."""
    period = int(rng.integers(6, 33))
    once = rng.choice(tokens, size=period)
    ids = np.resize(once, int(rng.integers(2 * period, 3 * period + 1))).astype(np.int32)
    zeros, order = np.zeros(len(ids), np.int32), np.arange(len(ids), dtype=np.int32)
    return TokenLesson(ids, zeros, zeros, order, order[period - 1 : -1], ids[period:])


def lessons_of_shard(
    encode: Encode, vocab_size: int, num_lessons: int, difficulty: Difficulty, seed: tuple[int, int]
) -> list[TokenLesson]:
    """All lessons of one shard.

    Args:
        encode: texts to token ids, specials recognised, none added.
        seed: (run seed, shard number).
    """
    rng = np.random.default_rng(seed)
    words = Words(english_words(), rng)
    few = rng.choice(np.arange(len(SPECIALS), vocab_size), size=256, replace=False)
    lessons: list[Lesson] = []
    done: list[TokenLesson] = []
    for _ in range(num_lessons):
        if rng.random() < difficulty.repeat_share:
            done.append(repeat_lesson(few, rng))
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
        done.append(token_lesson(encoded[cursor : cursor + count], shape, rng.random() < 0.15))
        cursor += count
    return [done[i] for i in rng.permutation(len(done))]


def save_shard(path: Path, lessons: Sequence[TokenLesson]) -> None:
    """Write lessons as one uncompressed `.npz`, whole or not at all."""
    names = ("ids_T", "segment_T", "parent_T", "position_T", "source_S", "target_S")
    columns = [
        np.concatenate([getattr(lesson, name) for lesson in lessons]).astype(np.uint16) for name in names
    ]
    tokens = np.array([len(lesson.ids_T) for lesson in lessons])
    pairs = np.array([len(lesson.source_S) for lesson in lessons])
    arrays: dict[str, Any] = {"tokens": tokens, "pairs": pairs, **dict(zip(names, columns, strict=True))}
    beside = path.with_suffix(".tmp.npz")
    np.savez(beside, **arrays)
    beside.rename(path)


def load_shard(path: Path) -> list[TokenLesson]:
    """Read what `save_shard` wrote."""
    with np.load(path) as file:
        arrays = {name: file[name] for name in file.files}
    at_tokens, at_pairs = np.cumsum(arrays["tokens"])[:-1], np.cumsum(arrays["pairs"])[:-1]
    columns = [
        np.split(arrays[n].astype(np.int32), at_tokens)
        for n in ("ids_T", "segment_T", "parent_T", "position_T")
    ]
    columns += [np.split(arrays[n].astype(np.int32), at_pairs) for n in ("source_S", "target_S")]
    return [TokenLesson(*row) for row in zip(*columns, strict=True)]


def batches_of(
    lessons: Sequence[TokenLesson], max_tokens: int, rng: np.random.Generator
) -> list[list[TokenLesson]]:
    """Group lessons of near length so that a padded batch holds at most `max_tokens`, in random order."""
    ordered = sorted(lessons, key=lambda lesson: len(lesson.ids_T))
    batches: list[list[TokenLesson]] = [[]]
    for lesson in ordered:
        if batches[-1] and len(lesson.ids_T) * (len(batches[-1]) + 1) > max_tokens:
            batches.append([])
        batches[-1].append(lesson)
    return [batches[i] for i in rng.permutation(len(batches))]
