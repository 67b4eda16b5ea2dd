"""How well a language model describes users: form, groundedness, truth, coverage, diversity, speed.

Works for any `LanguageModel`; everything is assessed against the history *as the prompt shows it*, in lines
or in counts, by the rules of `recloop.prompts.claims`, never against what the model may know of the titles.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np

from recloop.errors import DataError
from recloop.llm.cache import CompletionCache
from recloop.llm.generate import sample_accepted
from recloop.llm.language_model import LanguageModel, Sampling
from recloop.progress import SILENT, Progress
from recloop.prompts.claims import (
    TITLE,
    Claim,
    HistoryItem,
    Polarity,
    PopulationRates,
    parse_claims,
    true_claims,
)
from recloop.prompts.lines import history_items
from recloop.prompts.prose import catalogue_of
from recloop.prompts.text_truth import TruthCheck, history_facts
from recloop.prompts.user_profile import PromptConfig, profile_writer
from recloop.records import Histories, Log, UserCompletions

NUM_STRONGEST = 5
ENOUGH = 4


@dataclass(frozen=True, slots=True)
class SummarySkill:
    """Means over completions unless said otherwise; shares in [0, 1]."""

    num_users: int
    num_completions: int
    well_formed: float  # share of completions in canonical form and finished
    grounded: float  # share of claims whose value stands in the prompt's history, under that attribute
    true: float  # share of claims the history supports, polarity included
    true_likes: float
    true_dislikes: float
    coverage: float  # share of the user's five strongest true likes that a completion names
    claims_per_completion: float
    claims_of_four: float  # claims per completion where the history supports four or more
    distinct_attribute_sets: float  # mean over users: distinct sets of (attribute, polarity) among their completions
    tokens_per_completion: float
    tokens_per_s: float

    def as_dict(self) -> dict[str, float]:
        return asdict(self)


def evaluate_summaries(
    lm: LanguageModel,
    dataset: Log,
    histories: Histories,
    users: np.ndarray,
    sampling: Sampling,
    config: PromptConfig,
    progress: Progress = SILENT,
    population_rates: PopulationRates | None = None,
    tries: int = 1,
) -> SummarySkill:
    """How well a language model answers when it is asked for every user's preferences.

    Args:
        users: user indices.
        sampling: the number of completions is also the one that diversity is counted over.
        population_rates: what histories are compared with, in prompts and in the assessment.
        tries: above 1, draws of a completion at most, until it is in canonical form and what its prompt shows
            supports all that it says; it is empty if none does.
    """
    write = profile_writer(dataset, config, lm, population_rates)
    prompts = [write(user, *histories.of(user)) for user in users.tolist()]
    lines_of = history_items(dataset)
    shown: list[list[HistoryItem]] = []
    for prompt in prompts:
        items = lines_of(*histories.of(prompt.user))
        tells_all = config.template == "counted" and bool(dataset.attributes)
        shown.append(items if tells_all else items[len(items) - prompt.num_items_shown :])
    facts = {
        prompt.user: history_facts(dataset.attributes, items, population_rates)
        for prompt, items in zip(prompts, shown, strict=True)
    }
    check = None
    if tries > 1:
        check = TruthCheck(catalogue_of(dataset), dataset.attributes, facts.__getitem__, in_form=True)
    started = time.perf_counter()
    with CompletionCache(":memory:") as cache:
        completions = sample_accepted(lm, prompts, sampling, cache, check, tries, progress)
    wall_s = time.perf_counter() - started
    return assess_completions(dataset.attributes, shown, completions, population_rates, wall_s)


def assess_completions(
    attributes: Sequence[str],
    shown: Sequence[Sequence[HistoryItem]],
    completions: UserCompletions,
    population_rates: PopulationRates | None = None,
    wall_s: float = math.nan,
) -> SummarySkill:
    """The quality of completions, assessed against the histories their prompts showed.

    Args:
        attributes: names, in the order of each item's values.
        shown: per user, the history lines of the prompt.
        population_rates: what the prompts compared the histories with. A claim that follows from it, also about a
            value that no item carries, stands in the prompt and is grounded.
        wall_s: seconds the completions took; NaN where that is not known.

    Raises:
        DataError: there is no completion to assess.
    """
    if not any(completions.completions_UN):
        raise DataError(
            "assessing a language model needs at least one completion, got none; ask for users with a history"
        )
    formed, grounded, coverage, sizes, sizes_of_long, tokens, distinct = [], [], [], [], [], [], []
    held: dict[Polarity, list[bool]] = {polarity: [] for polarity in Polarity}
    for items, completions_N in zip(shown, completions.completions_UN, strict=True):
        present = {(f, v) for item in items for f, values in zip(attributes, item.values, strict=True) for v in values}
        if not attributes:
            present = {(TITLE, item.title) for item in items}
        supported = true_claims(attributes, items, population_rates)
        truths = {claim for claim, _ in supported}
        present |= {(claim.attribute, claim.value) for claim in truths}
        likes = sorted((c for c in supported if c[0].polarity is Polarity.LIKES), key=lambda c: -c[1])
        strongest = {claim for claim, _ in likes[:NUM_STRONGEST]}
        sets: set[frozenset[tuple[str, Polarity]]] = set()
        for completion in completions_N:
            parsed = parse_claims(completion.text, attributes)
            formed.append(parsed.is_well_formed and completion.is_finished)
            grounded += [(c.attribute, c.value) in present for c in parsed.claims]
            for claim in parsed.claims:
                held[claim.polarity].append(_is_true(claim, truths, present))
            if strongest:
                coverage.append(len(strongest & set(parsed.claims)) / len(strongest))
            sizes.append(len(parsed.claims))
            if len(truths) >= ENOUGH:
                sizes_of_long.append(len(parsed.claims))
            tokens.append(completion.num_tokens)
            sets.add(frozenset((c.attribute, c.polarity) for c in parsed.claims))
        distinct.append(len(sets))
    return SummarySkill(
        num_users=len(shown),
        num_completions=len(sizes),
        well_formed=_mean(formed),
        grounded=_mean(grounded),
        true=_mean([is_true for verdicts in held.values() for is_true in verdicts]),
        true_likes=_mean(held[Polarity.LIKES]),
        true_dislikes=_mean(held[Polarity.DISLIKES]),
        coverage=_mean(coverage),
        claims_per_completion=_mean(sizes),
        claims_of_four=_mean(sizes_of_long),
        distinct_attribute_sets=_mean(distinct),
        tokens_per_completion=_mean(tokens),
        tokens_per_s=float(np.sum(tokens)) / wall_s,
    )


def _is_true(claim: Claim, truths: set[Claim], present: set[tuple[str, str]]) -> bool:
    """`also` says only that the value occurs; the other claims need their evidence."""
    if claim.polarity is Polarity.ALSO:
        return (claim.attribute, claim.value) in present
    return claim in truths


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if len(values) else float("nan")
