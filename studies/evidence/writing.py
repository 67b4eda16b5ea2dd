"""Numbers about the texts on test users: form, truth, attributes, entropy."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

import numpy as np

from recloop.methods.dpo4rec.ablations import surprisal_per_token
from recloop.methods.dpo4rec.data import Task
from recloop.methods.dpo4rec.generate import TEST, read_user_texts
from recloop.methods.dpo4rec.names import MATCHED, RANDOM_LABELS, SFT_BEST_OF_N, TRAINED, UNTUNED
from recloop.methods.study import Study as Loop
from recloop.prompts.claims import HistoryItem, PopulationRates, parse_claims
from recloop.prompts.lines import history_items
from recloop.records import UserCompletions
from scripts.evaluate_lm.text_quality import SummarySkill, assess_completions
from studies.evidence.numbers import Example, WritingChange, WritingNumbers
from studies.evidence.statistics import moments_of
from studies.evidence.tables import CHECKED

WRITERS = (UNTUNED, MATCHED, RANDOM_LABELS, SFT_BEST_OF_N, TRAINED, CHECKED)
COMPARED = ("grounded", "true", "coverage", "claims_per_completion", "tokens_per_completion")
LEFT_OUT = ("num_users", "num_completions", "tokens_per_s")  # of a skill: stored elsewhere, or not known here
NUM_EXAMPLES = 3


def writing(
    loop: Loop, task: Task, seed: int
) -> tuple[tuple[WritingNumbers, ...], tuple[WritingChange, ...], tuple[Example, ...]]:
    """Each language model's texts in numbers, what training changed, and examples if the log is simulated."""
    completions: dict[str, UserCompletions] = {}
    for name in WRITERS:
        step = f"sample.{name}.s{seed}"
        if loop.run.is_done(step):
            completions[name] = read_user_texts(loop, name, step).parts[TEST]
    attributes = task.log.attributes
    shown = shown_items(loop, task, completions[UNTUNED].user_U)
    numbers = tuple(describe(name, attributes, shown, own, task.population_rates) for name, own in completions.items())
    changes = (
        changes_of(attributes, shown, completions[UNTUNED], completions[TRAINED], task.population_rates)
        if TRAINED in completions
        else ()
    )
    is_simulated = loop.config.data.name == "simulated"
    return numbers, changes, examples(completions) if is_simulated else ()


def shown_items(loop: Loop, task: Task, users: np.ndarray) -> list[list[HistoryItem]]:
    """The part of each user's history that the prompt contains: all of it where the template counts, else its lines."""
    lines_of = history_items(task.log)
    shown: list[list[HistoryItem]] = []
    for user in users.tolist():
        items = lines_of(*task.lists.histories.of(user))
        shows_all = loop.config.prompt.template == "counted"
        shown.append(items if shows_all else items[len(items) - task.prompts[user].num_items_shown :])
    return shown


def describe(
    name: str,
    attributes: Sequence[str],
    shown: Sequence[Sequence[HistoryItem]],
    completions: UserCompletions,
    population_rates: PopulationRates | None = None,
) -> WritingNumbers:
    """The numbers of one language model's completions."""
    flat = [completion for completions_N in completions.completions_UN for completion in completions_N]
    of_claims: Counter[str] = Counter()
    of_completions: Counter[str] = Counter()
    for completion in flat:
        claims = parse_claims(completion.text, attributes).claims
        of_claims.update(claim.attribute for claim in claims)
        of_completions.update({claim.attribute for claim in claims})
    return WritingNumbers(
        variant=name,
        num_completions=len(flat),
        skill=skill_numbers(assess_completions(attributes, shown, completions, population_rates)),
        attribute_of_claims={attribute: of_claims[attribute] / max(of_claims.total(), 1) for attribute in attributes},
        attribute_of_completions={attribute: of_completions[attribute] / len(flat) for attribute in attributes},
        surprisal=known(surprisal_per_token(completions)),
    )


def skill_numbers(skill: SummarySkill) -> dict[str, float | None]:
    """The metrics that are not stored elsewhere; None for what could not be counted."""
    return {name: known(value) for name, value in skill.as_dict().items() if name not in LEFT_OUT}


def changes_of(
    attributes: Sequence[str],
    shown: Sequence[Sequence[HistoryItem]],
    before: UserCompletions,
    after: UserCompletions,
    population_rates: PopulationRates | None = None,
) -> tuple[WritingChange, ...]:
    """Trained minus untuned, user by user."""
    by_user: dict[str, list[float]] = {metric: [] for metric in COMPARED}
    for place, items in enumerate(shown):
        own = [
            assess_completions(
                attributes,
                [items],
                UserCompletions(d.user_U[place : place + 1], d.completions_UN[place : place + 1]),
                population_rates,
            ).as_dict()
            for d in (before, after)
        ]
        for metric in COMPARED:
            change = own[1][metric] - own[0][metric]
            if not math.isnan(change):
                by_user[metric].append(change)
    return tuple(
        WritingChange(metric=metric, change=moments_of(np.array(changes)))
        for metric, changes in by_user.items()
        if changes
    )


def examples(completions: dict[str, UserCompletions]) -> tuple[Example, ...]:
    """The first completion of each language model about the first test users, whatever they say."""
    names = [name for name in (UNTUNED, RANDOM_LABELS, TRAINED) if name in completions]
    num_users = min(NUM_EXAMPLES, len(completions[UNTUNED].user_U))
    return tuple(
        Example(completions={name: completions[name].completions_UN[user][0].text for name in names})
        for user in range(num_users)
    )


def known(value: float) -> float | None:
    """The value, or None for NaN."""
    return None if math.isnan(value) else float(value)
