"""`--dry-run`: what a run would do, how many tokens, texts and fits that is, and about how long it takes."""

from __future__ import annotations

import math

import numpy as np

from recloop.data.lists import build_lists
from recloop.data.load import read_log
from recloop.data.splits import split_users
from recloop.methods.cost_estimate import PlannedStep, plan_lines, server_caps, server_cost, times_note
from recloop.methods.dpo4rec.ablations import COMPLETIONS_PER_SLOT
from recloop.methods.dpo4rec.config import Dpo4RecConfig
from recloop.methods.dpo4rec.generate import FIT, GROUPS, REWARD, TEST, num_completions
from recloop.records import CandidateLists

# Guesses from runs of the bundled LM and MiniLM on two cores; other models take their own time.
COMPLETION_TOKENS, SENTENCE_TOKENS = 45, 15  # per completion, where it is read to its end; per sentence where not
TOKENS_PER_S = 2_000.0
PROMPTS_PER_S = 40.0  # read before anything is written
TEXTS_PER_S = 40.0
FAST_ENCODERS = {"static": 40_000.0, "claims": 10_000.0}  # texts/s
LISTS_PER_S = 5_000.0
PAIRS_PER_S = 12.0
EPOCHS_PER_FIT = 5  # until patience ends it
HISTORY_TEXTS, TEMPLATES_BESIDE_ATTRIBUTES = 1, 1  # the history itself; the template of all attributes
VARIANTS_WITHOUT_TEXT = 3  # no text, ID history, rating mean


def forecast(config: Dpo4RecConfig) -> str:
    """The plan of a run, from its data and settings; reads the data, writes nothing, loads no model."""
    dataset = read_log(config.data, config.data_seed)
    groups = split_users(dataset.num_users, config.split, config.data_seed)
    lists = build_lists(dataset, groups, config.protocol, config.data_seed)
    steps = plan(config, lists, len(dataset.attributes))
    lines = [
        f"{dataset.name}: {dataset.num_users:,} users, {dataset.num_items:,} items; lists: "
        + ", ".join(f"{len(lists.of(g)):,} {g}" for parts in GROUPS.values() for g in parts),
        f"seeds {config.seeds}, rounds of training {config.rounds}, evaluators {', '.join(config.backbones)}",
        *plan_lines(steps),
    ]
    server = server_plan(config, lists) if config.lm.uses_server else []
    return "\n".join([*lines, *server, *times_note(config.lm, "sample and train")])


def plan(config: Dpo4RecConfig, lists: CandidateLists, num_attributes: int) -> list[PlannedStep]:
    """The steps with their amounts, all seeds together."""
    num_seeds, num_rounds, wants_all = len(config.seeds), config.rounds, config.variants == "all"
    users = {
        part: len(np.unique(np.concatenate([lists.of(g).user_B for g in groups]))) for part, groups in GROUPS.items()
    }
    for_reward = completions_of(users, config, with_rewards=True)
    for_table = completions_of(users, config, with_rewards=False)
    num_controls = controls_of(config)
    num_sampled = num_rounds * for_reward + (1 + num_controls) * for_table
    num_prompts = sum(users.values()) * (1 + num_rounds + num_controls)
    matched = for_table if num_rounds and wants_all else 0
    num_fixed_texts = HISTORY_TEXTS + num_attributes + TEMPLATES_BESIDE_ATTRIBUTES if wants_all else 0
    num_fixed_texts += wants_all and config.data.kar is not None
    num_texts = num_sampled + matched + num_fixed_texts * (users[FIT] + users[TEST])
    num_variants = 1 + (config.variants != "trained") + num_rounds + num_controls + (matched > 0)
    num_variants += num_fixed_texts + VARIANTS_WITHOUT_TEXT if wants_all else 0
    num_fits = num_variants * len(config.backbones) + config.reward.num_models
    epochs = min(EPOCHS_PER_FIT, config.reranker.max_epochs)
    num_trained = epochs * len(lists.train)
    pairs_of_user = math.comb(config.completions.reward, 2) if config.pairs.mode == "all_pairs" else 1
    num_pairs = min(users[REWARD] * pairs_of_user, config.dpo.max_pairs) * config.dpo.epochs
    num_trainings = num_rounds * (1 + num_controls)
    num_drawn, num_tokens = num_sampled + COMPLETIONS_PER_SLOT * matched, tokens_of_a_completion(config)
    return [
        PlannedStep(
            "sample",
            f"up to {num_seeds * num_drawn:,} completions, about {num_seeds * num_drawn * num_tokens:,} tokens",
            num_seeds * (num_drawn * num_tokens / TOKENS_PER_S + num_prompts / PROMPTS_PER_S),
        ),
        PlannedStep(
            "encode",
            f"up to {num_seeds * num_texts:,} texts, equal ones once",
            num_seeds * num_texts / FAST_ENCODERS.get(config.encoder.name, TEXTS_PER_S),
        ),
        PlannedStep(
            "train",
            f"{num_seeds * num_trainings} times, up to {num_pairs:,} pairs each",
            num_seeds * num_trainings * num_pairs / PAIRS_PER_S,
        ),
        PlannedStep(
            "fit",
            f"{num_seeds * num_fits} rerankers on {len(lists.train):,} lists, about {epochs} epochs each",
            num_seeds * num_fits * num_trained / LISTS_PER_S,
        ),
    ]


def server_plan(config: Dpo4RecConfig, lists: CandidateLists) -> list[str]:
    """What a server is asked and what that costs: about, and at most, when no request has to be repeated."""
    parts = {
        part: len(np.unique(np.concatenate([lists.of(g).user_B for g in groups]))) for part, groups in GROUPS.items()
    }
    requests = completions = 0
    for for_reward, num_models in models_sampled(config):
        wanted = num_completions(config.completions, with_rewards=for_reward)
        size = config.lm.server.completions_per_request
        requests += num_models * sum(parts[part] * -(-num // size) for part, num in wanted.items())
        completions += num_models * completions_of(parts, config, with_rewards=for_reward)
    read = requests * config.prompt.max_prompt_tokens
    asked = (
        f"  server: {requests:,} requests where the server takes n, {completions:,} where it does not; at most "
        f"{read:,} tokens read and {completions * config.lm.max_tokens:,} written; "
        f"{server_cost(config.lm, completions, read, COMPLETION_TOKENS)}"
    )
    return [asked, server_caps(config.lm)]


def models_sampled(config: Dpo4RecConfig) -> list[tuple[bool, int]]:
    """(whether reward users are sampled too, number of language models), all seeds together.

    The matched variant counts once for each of the completions it takes per slot.
    """
    num_seeds, wants_all = len(config.seeds), config.variants == "all"
    controls = controls_of(config)
    matched = COMPLETIONS_PER_SLOT if config.rounds and wants_all else 0
    return [(True, num_seeds * config.rounds), (False, num_seeds * (1 + controls + matched))]


def controls_of(config: Dpo4RecConfig) -> int:
    """Number of language models trained as controls: on random labels and, with all variants, by SFT."""
    return {"all": 2, "core": 1, "trained": 0}[config.variants] if config.rounds else 0


def tokens_of_a_completion(config: Dpo4RecConfig) -> int:
    """About how long a completion is."""
    num_sentences = config.completions.sentences
    read = COMPLETION_TOKENS if num_sentences is None else num_sentences * SENTENCE_TOKENS
    return min(read, COMPLETION_TOKENS, config.lm.max_tokens)


def completions_of(users: dict[str, int], config: Dpo4RecConfig, *, with_rewards: bool) -> int:
    """Completions one language model writes."""
    wanted = num_completions(config.completions, with_rewards=with_rewards)
    return sum(users[part] * num for part, num in wanted.items())
