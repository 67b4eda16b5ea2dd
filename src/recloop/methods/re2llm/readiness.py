"""Preflight of Re2LLM: whether the language model ranks candidates in a form that can be read."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import mean

from recloop.methods.preflight import Trial, preflight
from recloop.methods.re2llm.data import Questions, sampling_of
from recloop.methods.study import Study, try_encoder
from recloop.prompts.next_item import SYSTEM
from recloop.prompts.plausibility import Finding, check_replies
from recloop.records import Completion, Prompt
from recloop.rerankers.metrics import NOT_RANKED


def check_rankings(study: Study, questions: Questions) -> None:
    """Some answers to training sessions without a hint, which exploration asks first."""

    def check(prompts: Sequence[Prompt], completions: Sequence[Completion]) -> tuple[Finding, ...]:
        told = [questions.read(prompt.user, one.text) for prompt, one in zip(prompts, completions, strict=True)]
        readable = [bool(ranking.places) for ranking, _ in told]
        hits = [rank != NOT_RANKED for _, rank in told]
        # A small model names only what it finds, so chance is that of as many titles.
        chance = mean(
            len(ranking.places) / len(questions.texts[prompt.user].candidates)
            for prompt, (ranking, _) in zip(prompts, told, strict=True)
        )
        return check_replies(completions, readable, hits, chance, "right item ranked")

    def plan() -> Trial:
        try_encoder(study)
        prompts = [Prompt(session, SYSTEM, questions.text(session, ""), 0, 0) for session in questions.train]
        return Trial(prompts, sampling_of(study, 1, study.config.lm.temperature), check)

    preflight(study, {"sessions": questions.digest}, plan)
