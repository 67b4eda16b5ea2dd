"""What a language model can still do after it was trained for something else.

On invented sessions that no training saw: whether it goes by a hint, and how well it still predicts the canonical lists
and reflections, which are held-out text of its other skills. `scripts/evaluate_lm/retention_tasks.py` drew the tasks.
"""

from __future__ import annotations

import gzip
import json
from dataclasses import dataclass
from importlib.resources import files
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import BaseModel

from recloop.llm.language_model import Sampling
from recloop.progress import SILENT, Progress
from recloop.prompts.next_item import parse_ranking
from recloop.records import Prompt
from recloop.settings import setting

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jaxtyping import Bool

    from recloop.llm.local import TransformersLM

TASKS_FILE = "retention_tasks.json.gz"
NUM_TASKS = 200  # that the file holds
MAX_ANSWER_TOKENS = 200
CHANCE_OF_TASKS = 1 / 20  # every session has twenty candidates


class RetentionConfig(BaseModel, frozen=True, extra="forbid"):
    """How the skills that were not trained are looked at."""

    tasks: int = setting(
        NUM_TASKS, "invented sessions of 20 candidates, asked with the right hint; 0: not looked at", ge=0, le=NUM_TASKS
    )


@dataclass(frozen=True, slots=True)
class Retention:
    """is_right_T: whether the first item named is the right one, by task.
    perplexity: per token of the canonical lists and reflections.
    """

    is_right_T: Bool[np.ndarray, " T"]
    perplexity: float


def evaluate_retention(lm: TransformersLM, config: RetentionConfig, progress: Progress = SILENT) -> Retention:
    """Ask the sessions with the right hint at temperature 0, and weigh the canonical replies."""
    sessions, replies = (part[: config.tasks] for part in read_tasks())
    first_T = first_places(lm, sessions, progress)
    prompts = _prompts(replies)
    with progress.stage("weigh replies", total=len(replies), unit="replies") as step:
        logps, num_tokens = 0.0, 0
        for logp_sum, num in lm.reply_logps(prompts, [task["reply"] for task in replies]):
            logps, num_tokens = logps + logp_sum, num_tokens + num
            step()
    right_T = np.array([task["answer"] for task in sessions])
    return Retention(first_T == right_T, float(np.exp(-logps / num_tokens)))


def read_tasks() -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The bundled sessions (system, text, titles, answer) and replies (system, text, reply)."""
    held = (files("recloop.methods.rerec") / TASKS_FILE).read_bytes()
    tasks = json.loads(gzip.decompress(held))
    return tasks["sessions"], tasks["replies"]


def first_places(lm: TransformersLM, sessions: Sequence[dict[str, Any]], progress: Progress) -> np.ndarray:
    """The candidate that each answer names first, by its place; -1 where it names none."""
    sampling = Sampling(1, 0.0, 1.0, MAX_ANSWER_TOKENS, 0)
    first_T = np.full(len(sessions), -1, dtype=np.int64)
    with progress.stage("answer", total=len(sessions), unit="tasks") as step:
        for number, completions in lm.generate(_prompts(sessions), sampling):
            places = parse_ranking(completions[0].text, sessions[number]["titles"], 1).places
            if places:
                first_T[number] = places[0]
            step()
    return first_T


def _prompts(tasks: Sequence[dict[str, Any]]) -> list[Prompt]:
    return [Prompt(number, task["system"], task["text"], 0, 0) for number, task in enumerate(tasks)]
