"""Preflight of ReRec: whether the language model answers requests in a form that can be read."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import mean

from recloop.llm.language_model import Sampling
from recloop.methods.preflight import Trial, preflight
from recloop.methods.rerec.data import RequestStudy, RequestTask
from recloop.prompts.plausibility import Finding, check_replies
from recloop.prompts.request_answer import AnswerStatus, read_answer
from recloop.records import Completion, Group, Prompt


def check_answers(study: RequestStudy, task: RequestTask) -> None:
    """Some answers to requests of reward users, at temperature 0; where the form is taught first, nothing stops."""
    requests = {request.number: request for request in task.requests[Group.REWARD]}

    def check(prompts: Sequence[Prompt], completions: Sequence[Completion]) -> tuple[Finding, ...]:
        asked = [requests[prompt.user] for prompt in prompts]
        answers = [
            read_answer(one.text, task.tests.candidate_titles(request), is_finished=one.is_finished)
            for request, one in zip(asked, completions, strict=True)
        ]
        hits = [
            answer.first is not None and request.candidates[answer.first] == request.answer
            for request, answer in zip(asked, answers, strict=True)
        ]
        chance = mean(1 / len(request.candidates) for request in asked)
        readable = [answer.status is AnswerStatus.OK for answer in answers]
        return check_replies(completions, readable, hits, chance, "right at first")

    def plan() -> Trial:
        prompts = [task.tests.prompts[number] for number in requests]
        sampling = Sampling(1, 0.0, 1.0, study.config.lm.max_tokens, 0)
        return Trial(prompts, sampling, check, is_taught=study.config.reinforced == "supervised")

    preflight(study, {"requests": task.tests.digest}, plan)
