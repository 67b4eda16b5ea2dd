"""`--dry-run`: what a run would do, how many tokens, texts and fits that is, and about how long it takes."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from recloop.data.lists import build_lists
from recloop.data.load import load_dataset
from recloop.data.splits import split_users
from recloop.llm.server.cost import Spending
from recloop.llm.server.open import is_served
from recloop.methods.dpo4rec.ablations import DRAFTS_PER_SLOT
from recloop.methods.dpo4rec.config import Dpo4RecConfig
from recloop.methods.dpo4rec.generate import FEEDBACK, FIT, GROUPS, TEST, drafts_wanted
from recloop.progress import format_seconds
from recloop.records import CandidateLists

# Guesses from runs of the embedded LM and MiniLM on two cores; other models take their own time.
DRAFT_TOKENS, SENTENCE_TOKENS = 45, 15  # per draft, where it is read to its end; per sentence where not
TOKENS_PER_S = 2_000.0
PROMPTS_PER_S = 40.0  # read before anything is written
TEXTS_PER_S = 40.0
FAST_ENCODERS = {"static": 40_000.0, "claims": 10_000.0}  # texts/s
LISTS_PER_S = 5_000.0
PAIRS_PER_S = 12.0
EPOCHS_PER_FIT = 5  # until patience ends it
HISTORY_TEXTS, TEMPLATES_BESIDE_FACETS = 1, 1  # the history itself; the template of all facets
ROWS_WITHOUT_TEXT = 3  # no knowledge, id history, star mean


@dataclass(frozen=True, slots=True)
class Step:
    """One line of the plan. amount: in words. wall_s: about, on two CPU cores."""

    verb: str
    amount: str
    wall_s: float


def forecast(config: Dpo4RecConfig) -> str:
    """The plan of a run, from its data and settings; reads the data, writes nothing, loads no model."""
    dataset = load_dataset(config.data, config.data_seed)
    groups = split_users(dataset.num_users, config.split, config.data_seed)
    lists = build_lists(dataset, groups, config.protocol, config.data_seed)
    steps = plan(config, lists, len(dataset.facets))
    lines = [
        f"{dataset.name}: {dataset.num_users:,} users, {dataset.num_items:,} items; lists: "
        + ", ".join(f"{len(lists.of(g)):,} {g}" for parts in GROUPS.values() for g in parts),
        f"seeds {config.seeds}, rounds of tuning {config.rounds}, evaluators {', '.join(config.backbones)}",
        *(f"  {step.verb:<9} {step.amount:<64} {format_seconds(step.wall_s):>14}" for step in steps),
        f"  {'in all':<74} {format_seconds(sum(step.wall_s for step in steps)):>14}",
    ]
    if is_served(config.lm):
        lines += served_plan(config, lists)
    if not config.lm.name.startswith("embedded"):
        lines.append(f"  times of sample and tune are those of the embedded model, not of {config.lm.name}")
    return "\n".join(lines)


def plan(config: Dpo4RecConfig, lists: CandidateLists, num_facets: int) -> list[Step]:
    """The stages with their amounts, all seeds together."""
    num_seeds, num_rounds, wants_all = len(config.seeds), config.rounds, config.rows == "all"
    users = {
        part: len(np.unique(np.concatenate([lists.of(g).user_B for g in groups]))) for part, groups in GROUPS.items()
    }
    for_reward = drafts_of(users, config, for_feedback=True)
    for_table = drafts_of(users, config, for_feedback=False)
    num_controls = controls_of(config)
    num_drafts = num_rounds * for_reward + (1 + num_controls) * for_table
    num_prompts = sum(users.values()) * (1 + num_rounds + num_controls)
    matched = for_table if num_rounds and wants_all else 0
    num_fixed_texts = HISTORY_TEXTS + num_facets + TEMPLATES_BESIDE_FACETS if wants_all else 0
    num_fixed_texts += wants_all and config.data.kar is not None
    num_texts = num_drafts + matched + num_fixed_texts * (users[FIT] + users[TEST])
    num_rows = 1 + (config.rows != "tuned") + num_rounds + num_controls + (matched > 0)
    num_rows += num_fixed_texts + ROWS_WITHOUT_TEXT if wants_all else 0
    num_fits = num_rows * len(config.backbones) + config.reward.judges
    epochs = min(EPOCHS_PER_FIT, config.reranker.max_epochs)
    num_trained = epochs * len(lists.train)
    pairs_of_user = math.comb(config.drafts.feedback, 2) if config.pairs.mode == "all_pairs" else 1
    num_pairs = min(users[FEEDBACK] * pairs_of_user, config.dpo.max_pairs) * config.dpo.epochs
    num_tunings = num_rounds * (1 + num_controls)
    num_drawn, num_tokens = num_drafts + DRAFTS_PER_SLOT * matched, tokens_of_a_draft(config)
    return [
        Step(
            "sample",
            f"up to {num_seeds * num_drawn:,} drafts, about {num_seeds * num_drawn * num_tokens:,} tokens",
            num_seeds * (num_drawn * num_tokens / TOKENS_PER_S + num_prompts / PROMPTS_PER_S),
        ),
        Step(
            "encode",
            f"up to {num_seeds * num_texts:,} texts, equal ones once",
            num_seeds * num_texts / FAST_ENCODERS.get(config.encoder.name, TEXTS_PER_S),
        ),
        Step(
            "tune",
            f"{num_seeds * num_tunings} times, up to {num_pairs:,} pairs each",
            num_seeds * num_tunings * num_pairs / PAIRS_PER_S,
        ),
        Step(
            "fit",
            f"{num_seeds * num_fits} rerankers on {len(lists.train):,} lists, about {epochs} epochs each",
            num_seeds * num_fits * num_trained / LISTS_PER_S,
        ),
    ]


def served_plan(config: Dpo4RecConfig, lists: CandidateLists) -> list[str]:
    """What a served model is asked and costs: about, and at most, where no request has to be repeated."""
    parts = {
        part: len(np.unique(np.concatenate([lists.of(g).user_B for g in groups]))) for part, groups in GROUPS.items()
    }
    requests = drafts = 0
    for for_feedback, num_models in models_sampled(config):
        wanted = drafts_wanted(config.drafts, for_feedback=for_feedback)
        size = config.lm.endpoint.drafts_per_request
        requests += num_models * sum(parts[part] * -(-num // size) for part, num in wanted.items())
        drafts += num_models * drafts_of(parts, config, for_feedback=for_feedback)
    read = requests * config.prompt.max_prompt_tokens
    prices, budget = config.lm.prices, config.lm.budget
    about = Spending(input_tokens=read, output_tokens=drafts * min(DRAFT_TOKENS, config.lm.max_tokens))
    most = Spending(input_tokens=read, output_tokens=drafts * config.lm.max_tokens)
    caps = [f"{name} {cap:,}" for name, cap in budget.model_dump().items() if cap is not None]
    asked = (
        f"  served: {requests:,} requests where the server takes n, {drafts:,} where it does not; at most "
        f"{read:,} tokens read and {most.output_tokens:,} written; about {about.cost(prices):,.2f}, "
        f"at most {most.cost(prices):,.2f} {prices.currency}"
    )
    return [asked, f"  caps: {', '.join(caps) or 'none (lm.budget)'}"]


def models_sampled(config: Dpo4RecConfig) -> list[tuple[bool, int]]:
    """(whether feedback users are sampled too, how many language models), all seeds; the matched row counts
    as one for each of the drafts it takes per slot."""
    num_seeds, wants_all = len(config.seeds), config.rows == "all"
    controls = controls_of(config)
    matched = DRAFTS_PER_SLOT if config.rounds and wants_all else 0
    return [(True, num_seeds * config.rounds), (False, num_seeds * (1 + controls + matched))]


def controls_of(config: Dpo4RecConfig) -> int:
    """Language models tuned to compare with: random labels, and where all rows are wanted the best drafts."""
    return {"all": 2, "core": 1, "tuned": 0}[config.rows] if config.rounds else 0


def tokens_of_a_draft(config: Dpo4RecConfig) -> int:
    """About how long a draft is."""
    num_sentences = config.drafts.sentences
    usual = DRAFT_TOKENS if num_sentences is None else num_sentences * SENTENCE_TOKENS
    return min(usual, DRAFT_TOKENS, config.lm.max_tokens)


def drafts_of(users: dict[str, int], config: Dpo4RecConfig, *, for_feedback: bool) -> int:
    """Drafts one language model writes."""
    wanted = drafts_wanted(config.drafts, for_feedback=for_feedback)
    return sum(users[part] * num for part, num in wanted.items())
