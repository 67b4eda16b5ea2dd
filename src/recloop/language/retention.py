"""What a language model still can do after it was tuned for something else.

On invented sessions that no tuning saw: whether it goes by a hint, and how well it still foretells the
canonical lists and reflections, which are held-out text of its other skills.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from recloop.language.embedded.corpus import Words
from recloop.language.embedded.skills import (
    invent_next_item_lesson,
    invent_reflection_lesson,
    invent_session,
)
from recloop.language.embedded.tokenizer import english_words
from recloop.language.evaluate_skills import first_places
from recloop.language.model import Sampling
from recloop.language.reflection import write_hint
from recloop.progress import SILENT, Progress
from recloop.records import Prompt

if TYPE_CHECKING:
    from jaxtyping import Bool

    from recloop.language.transformers_lm import TransformersLM

SEED = 2**30 + 1  # apart from those of lessons and of `evaluate-lm`


class RetentionConfig(BaseModel):
    """How the skills that were not tuned are looked at."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    tasks: int = Field(
        default=200, ge=0, description="invented sessions, asked with the right hint; 0: not looked at"
    )
    candidates: int = Field(default=20, ge=3, description="of each session")


@dataclass(frozen=True, slots=True)
class Kept:
    """is_right_T: whether the first item named is the right one, by task.
    perplexity: per token of the canonical lists and reflections.
    """

    is_right_T: Bool[np.ndarray, " T"]
    perplexity: float


def evaluate_retention(
    lm: TransformersLM, config: RetentionConfig, max_tokens: int, progress: Progress = SILENT
) -> Kept:
    """Ask the sessions with the right hint at temperature 0, and weigh the canonical replies.

    Args:
        max_tokens: of an answer.
    """
    rng = np.random.default_rng(SEED)
    words = Words(english_words(), rng)
    tasks = [invent_session(words, config.candidates, rng) for _ in range(config.tasks)]
    sessions = [task.session for task in tasks]
    hints = [write_hint(task.hidden) for task in tasks]
    sampling = Sampling(1, 0.0, 1.0, max_tokens, 0)
    first_T = first_places(lm, sessions, hints, sampling, progress)
    prompts, replies = held_out_replies(config.tasks, config.candidates, rng)
    with progress.stage("weigh replies", total=len(replies), unit="replies") as step:
        logps, num_tokens = 0.0, 0
        for logp_sum, num in lm.reply_logps(prompts, replies):
            logps, num_tokens = logps + logp_sum, num_tokens + num
            step()
    right_T = np.array([task.answer for task in tasks])
    return Kept(first_T == right_T, float(np.exp(-logps / num_tokens)))


def held_out_replies(
    num: int, num_candidates: int, rng: np.random.Generator
) -> tuple[list[Prompt], list[str]]:
    """Questions of the other skills and their canonical replies: lists and reflections in turn."""
    words = Words(english_words(), rng)
    prompts: list[Prompt] = []
    replies: list[str] = []
    for number in range(num):
        make = invent_next_item_lesson if number % 2 == 0 else invent_reflection_lesson
        lesson = make(words, num_candidates, rng)
        system, user = lesson.trunk.removeprefix("<|system|>").split("<|end|><|user|>")
        branch = lesson.branches[int(rng.integers(2))]
        prompts.append(Prompt(number, system, f"{user}\n{branch.question}", 0, 0))
        replies.append(branch.answers[0])
    return prompts, replies
