"""Draws the tasks by which ReRec measures forgetting: `python -m scripts.evaluate_lm.retention_tasks`.

The tasks are invented sessions with the right hint, and canonical lists and reflections in turn. Their seed is used by
no lesson and no other evaluation. They are written to a data file of the package.
"""

from __future__ import annotations

import gzip
import json
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np

from recloop.methods.rerec.forgetting import TASKS_FILE
from recloop.prompts.next_item import SYSTEM, next_item_text
from recloop.prompts.reflection import write_hint
from scripts.pretrain_lm.corpus import Words
from scripts.pretrain_lm.skills import invent_next_item_lesson, invent_reflection_lesson, invent_session
from scripts.pretrain_lm.tokenizer import english_words

SEED = 2**30 + 1  # used neither by lessons nor by `scripts.evaluate_lm`
NUM_TASKS, NUM_FIRST, NUM_CANDIDATES = 200, 50, 20


def draw_sessions(num: int, num_candidates: int, rng: np.random.Generator) -> list[dict[str, Any]]:
    """Sessions with the right hint, the titles of their candidates and the place of the right one."""
    words = Words(english_words(), rng)
    tasks = [invent_session(words, num_candidates, rng) for _ in range(num)]
    return [
        {
            "system": SYSTEM,
            "text": next_item_text(task.session, write_hint(task.hidden), 1),
            "titles": [item.title for item in task.session.candidates],
            "answer": task.answer,
        }
        for task in tasks
    ]


def draw_replies(num: int, num_candidates: int, rng: np.random.Generator) -> list[dict[str, Any]]:
    """Questions of the other skills with their canonical replies, lists and reflections in turn."""
    words = Words(english_words(), rng)
    drawn: list[dict[str, Any]] = []
    for number in range(num):
        make = invent_next_item_lesson if number % 2 == 0 else invent_reflection_lesson
        lesson = make(words, num_candidates, rng)
        system, user = lesson.trunk.removeprefix("<|system|>").split("<|end|><|user|>")
        branch = lesson.branches[int(rng.integers(2))]
        drawn.append({"system": system, "text": f"{user}\n{branch.question}", "reply": branch.answers[0]})
    return drawn


def draw_tasks() -> dict[str, list[dict[str, Any]]]:
    """All tasks; the first fifty replies are those of a run with fifty tasks."""
    replies: list[dict[str, Any]] = []
    sessions: list[dict[str, Any]] = []
    for num in (NUM_FIRST, NUM_TASKS):
        rng = np.random.default_rng(SEED)
        sessions = draw_sessions(num, NUM_CANDIDATES, rng)
        replies += draw_replies(num, NUM_CANDIDATES, rng)[len(replies) :]
    return {"sessions": sessions, "replies": replies}


if __name__ == "__main__":
    target = Path(str(files("recloop.methods.rerec") / TASKS_FILE))
    target.write_bytes(gzip.compress(json.dumps(draw_tasks(), ensure_ascii=False).encode(), mtime=0))
    print(f"{target}: {target.stat().st_size:,} bytes")
