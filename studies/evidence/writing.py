"""What language models write about the test users of a run, in numbers: form, truth, facets, entropy."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

import numpy as np

from recloop.evaluation.text_quality import SummarySkill, judge_drafts
from recloop.methods.context import Loop
from recloop.methods.dpo4rec.ablations import surprisal_per_token
from recloop.methods.dpo4rec.data import Task
from recloop.methods.dpo4rec.evaluate import MATCHED, RANDOM_LABELS, SFT_BEST_OF_N, TUNED, UNTUNED
from recloop.methods.dpo4rec.generate import TEST, read_knowledge
from recloop.prompts.claims import HistoryItem, Usual, parse_claims
from recloop.prompts.user_profile import history_items
from recloop.records import UserDrafts
from studies.evidence.moments import moments_of
from studies.evidence.numbers import Example, WritingChange, WritingNumbers

WRITERS = (UNTUNED, MATCHED, RANDOM_LABELS, SFT_BEST_OF_N, TUNED)
COMPARED = ("grounded", "true", "coverage", "claims_per_draft", "tokens_per_draft")
LEFT_OUT = ("num_users", "num_drafts", "tokens_per_s")  # of a skill: said elsewhere, or not known here
NUM_EXAMPLES = 3


def writing(
    loop: Loop, task: Task, seed: int
) -> tuple[tuple[WritingNumbers, ...], tuple[WritingChange, ...], tuple[Example, ...]]:
    """Every language model's drafts about test users, how tuning changed them, and, of a world, examples."""
    drafts: dict[str, UserDrafts] = {}
    for row in WRITERS:
        stage = f"sample.{row}.s{seed}"
        if loop.run.is_done(stage):
            drafts[row] = read_knowledge(loop, row, stage).parts[TEST]
    facets = task.dataset.facets
    shown = shown_items(loop, task, drafts[UNTUNED].user_U)
    numbers = tuple(describe(row, facets, shown, own, task.usual) for row, own in drafts.items())
    changes = changes_of(facets, shown, drafts[UNTUNED], drafts[TUNED], task.usual) if TUNED in drafts else ()
    is_world = loop.config.data.name == "worlds"
    return numbers, changes, examples(drafts) if is_world else ()


def shown_items(loop: Loop, task: Task, users: np.ndarray) -> list[list[HistoryItem]]:
    """The part of each user's history that the prompt tells: all of it where it counts, else its lines."""
    lines_of = history_items(task.dataset, loop.config.prompt)
    shown: list[list[HistoryItem]] = []
    for user in users.tolist():
        items = lines_of(*task.lists.histories.of(user))
        tells_all = loop.config.prompt.template == "counted"
        shown.append(items if tells_all else items[len(items) - task.prompts[user].num_items_shown :])
    return shown


def describe(
    row: str,
    facets: Sequence[str],
    shown: Sequence[Sequence[HistoryItem]],
    drafts: UserDrafts,
    usual: Usual | None = None,
) -> WritingNumbers:
    """One language model's drafts."""
    flat = [draft for drafts_N in drafts.drafts_UN for draft in drafts_N]
    of_claims: Counter[str] = Counter()
    of_drafts: Counter[str] = Counter()
    for draft in flat:
        claims = parse_claims(draft.text, facets).claims
        of_claims.update(claim.facet for claim in claims)
        of_drafts.update({claim.facet for claim in claims})
    return WritingNumbers(
        row=row,
        num_drafts=len(flat),
        skill=skill_numbers(judge_drafts(facets, shown, drafts, usual)),
        facet_of_claims={facet: of_claims[facet] / max(of_claims.total(), 1) for facet in facets},
        facet_of_drafts={facet: of_drafts[facet] / len(flat) for facet in facets},
        surprisal=known(surprisal_per_token(drafts)),
    )


def skill_numbers(skill: SummarySkill) -> dict[str, float | None]:
    """The measures without what is said elsewhere; None for what could not be counted."""
    return {name: known(value) for name, value in skill.as_dict().items() if name not in LEFT_OUT}


def changes_of(
    facets: Sequence[str],
    shown: Sequence[Sequence[HistoryItem]],
    before: UserDrafts,
    after: UserDrafts,
    usual: Usual | None = None,
) -> tuple[WritingChange, ...]:
    """Tuned less untuned, user by user."""
    by_user: dict[str, list[float]] = {measure: [] for measure in COMPARED}
    for place, items in enumerate(shown):
        own = [
            judge_drafts(
                facets,
                [items],
                UserDrafts(d.user_U[place : place + 1], d.drafts_UN[place : place + 1]),
                usual,
            ).as_dict()
            for d in (before, after)
        ]
        for measure in COMPARED:
            change = own[1][measure] - own[0][measure]
            if not math.isnan(change):
                by_user[measure].append(change)
    return tuple(
        WritingChange(measure=measure, change=moments_of(np.array(changes)))
        for measure, changes in by_user.items()
        if changes
    )


def examples(drafts: dict[str, UserDrafts]) -> tuple[Example, ...]:
    """The first draft of each language model about the first test users, not chosen by what they say."""
    rows = [row for row in (UNTUNED, RANDOM_LABELS, TUNED) if row in drafts]
    num_users = min(NUM_EXAMPLES, len(drafts[UNTUNED].user_U))
    return tuple(
        Example(drafts={row: drafts[row].drafts_UN[user][0].text for row in rows}) for user in range(num_users)
    )


def known(value: float) -> float | None:
    """The value, or None for NaN."""
    return None if math.isnan(value) else float(value)
