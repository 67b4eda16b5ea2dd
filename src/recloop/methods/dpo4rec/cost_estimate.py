"""`--dry-run`: what a run would do, how many tokens, texts and fits that is, and about how long it takes."""

from __future__ import annotations

import math

import numpy as np

from recloop.data.lists import build_lists
from recloop.data.splits import user_groups
from recloop.errors import SettingError
from recloop.methods.cost_estimate import PlannedStep, gpu_plan, lm_note, plan_lines, server_plan, slowness
from recloop.methods.dpo4rec.ablations import COMPLETIONS_PER_SLOT
from recloop.methods.dpo4rec.config import Dpo4RecConfig
from recloop.methods.dpo4rec.generate import FIT, GROUPS, REWARD, TEST, num_completions
from recloop.methods.dpo4rec.variants import FITTED, NO_LM
from recloop.methods.run_log import PLAN_USERS, PlanLog, read_plan_sample
from recloop.prompts.user_profile import CHARS_PER_TOKEN, population_rates_of, profile_writer, write_prompts
from recloop.records import CandidateLists, Group, Log

# Guesses from runs of the bundled LM and MiniLM on two cores.
COMPLETION_TOKENS, SENTENCE_TOKENS = 45, 15  # per completion, where it is read to its end; per sentence where not
TOKENS_PER_S = 2_000.0
PROMPTS_PER_S = 40.0  # read before anything is written
TEXTS_PER_S = 40.0
FAST_ENCODERS = {"static": 40_000.0, "claims": 10_000.0}  # texts/s
LISTS_PER_S = 5_000.0
PAIRS_PER_S = 12.0
COMPLETIONS_PER_S = 20.0  # of GRPO, written, read again and learnt from
EPOCHS_PER_FIT = 5  # until patience ends it
HISTORY_TEXTS, TEMPLATES_BESIDE_ATTRIBUTES = 1, 1  # the history itself; the template of all attributes
PROMPTS_COUNTED = 200
# Guesses from a small run: a completion in the cache and its step, its vector in both, a prompt, an item of a list.
COMPLETION_BYTES, VECTOR_BYTES, PROMPT_BYTES, LISTED_BYTES = 600, 4_200, 300, 13
VARIANTS_WITHOUT_TEXT = 3  # no text, ID history, rating mean
VARIANTS_BESIDE_IDS = 2  # untuned, trained


def forecast(config: Dpo4RecConfig, log: PlanLog | None = None) -> str:
    """The plan of a run, from its data and settings; reads the data, writes nothing, loads no model.

    Args:
        log: the data, where it was read before. Of a large one the lists of some users are counted.
    """
    whole = log or read_plan_sample(config.data, config.data_seed)
    some = whole.sample(PLAN_USERS, config.data_seed)
    times = whole.num_users / some.num_users
    groups = user_groups(some, config.split, config.data_seed)
    lists = build_lists(some, groups, config.protocol, config.data_seed)
    num_lists = {group: round(times * len(lists.of(group))) for group in Group}
    users = {
        part: round(times * len(np.unique(np.concatenate([lists.of(g).user_B for g in of]))))
        for part, of in GROUPS.items()
    }
    lines = [
        *whole.log.reading,
        *lists.notes,
        *([f"estimated from {some.num_users:,} of {whole.num_users:,} users, drawn"] if times > 1 else []),
        f"{some.name}: {whole.num_users:,} users, {whole.num_items:,} items; lists: "
        + ", ".join(f"{num_lists[g]:,} {g}" for parts in GROUPS.values() for g in parts),
        f"seeds {config.seeds}, rounds of training {config.rounds}, evaluators {', '.join(config.backbones)}",
        *plan_lines(plan(config, users, num_lists[Group.TRAIN], len(some.attributes))),
        *_amounts(config, some, lists, users, sum(num_lists.values())),
    ]
    if config.lm.uses_server:
        requests, completions = (len(config.seeds) * num for num in sampled_of_one_seed(config, users))
        read = requests * config.prompt.max_prompt_tokens
        asked = (
            f"server: {requests:,} requests where the server takes n, {completions:,} where it does not; at most "
            f"{read:,} tokens read and {completions * config.lm.max_tokens:,} written; "
        )
        lines += server_plan(asked, config.lm, completions, read, COMPLETION_TOKENS)
    return "\n".join([*lines, *lm_note(config.lm, "sample and train")])


def _amounts(
    config: Dpo4RecConfig, log: Log, lists: CandidateLists, users: dict[str, int], num_lists: int
) -> list[str]:
    """Tokens of all seeds, GPU hours, and bytes on the disk."""
    if not config.uses_lm:
        return []
    num_seeds, num_texts = len(config.seeds), tokens_of_a_completion(config)
    prompt = _mean_prompt_tokens(config, log, lists)
    num_models = 1 + config.rounds + controls_of(config)
    _, num_drawn = sampled_of_one_seed(config, users)
    num_trainings, num_pairs, reinforced = trainings_of(config, users)
    read = num_seeds * sum(users.values()) * num_models * prompt
    written = num_seeds * (num_drawn + num_trainings * reinforced) * num_texts
    examples = reinforced or 2 * num_pairs  # two completions a pair
    trained = num_seeds * num_trainings * examples * (prompt / 2 + num_texts)
    num_bytes = num_seeds * num_drawn * (COMPLETION_BYTES + VECTOR_BYTES)
    num_bytes += sum(users.values()) * PROMPT_BYTES + num_lists * config.protocol.list_len * LISTED_BYTES
    return [*gpu_plan(config.lm.gpu, read, written, trained), f"  on the disk: about {num_bytes / 1e9:,.1f} GB"]


def _mean_prompt_tokens(config: Dpo4RecConfig, log: Log, lists: CandidateLists) -> float:
    """About how many tokens a prompt has, from some users; the most that it may, where that cannot be said."""
    users = np.unique(np.concatenate([lists.of(group).user_B for group in Group]))
    some = users[:: max(1, len(users) // PROMPTS_COUNTED)]
    rates = population_rates_of(log, lists.histories, np.unique(lists.train.user_B), config.prompt)
    try:
        prompts = write_prompts(profile_writer(log, config.prompt, None, rates), lists.histories, some)
    except SettingError:  # tokens are guessed here, and counted when prompts are made
        return config.prompt.max_prompt_tokens
    return float(np.mean([(len(prompt.system) + len(prompt.text)) / CHARS_PER_TOKEN for prompt in prompts]))


def plan(config: Dpo4RecConfig, users: dict[str, int], num_train_lists: int, num_attributes: int) -> list[PlannedStep]:
    """The steps with their amounts, all seeds together; `users` who own a list, by part."""
    num_seeds, num_rounds, wants_all = len(config.seeds), config.rounds, config.variants == "all"
    num_controls = controls_of(config)
    _, num_drawn = sampled_of_one_seed(config, users)
    matched = num_of_table(config, users) if num_rounds and wants_all else 0  # of several drawn, one is encoded
    has_fixed = config.variants in NO_LM
    num_fixed_texts = HISTORY_TEXTS + num_attributes + TEMPLATES_BESIDE_ATTRIBUTES if has_fixed else 0
    num_fixed_texts += has_fixed and config.data.kar is not None
    num_texts = num_drawn - (COMPLETIONS_PER_SLOT - 1) * matched + num_fixed_texts * (users[FIT] + users[TEST])
    written = 1 + (config.variants != "trained") + num_rounds + num_controls + (matched > 0)
    written += (VARIANTS_BESIDE_IDS if num_rounds else 1) * (config.variants in FITTED)
    num_variants = written * config.uses_lm + (num_fixed_texts + VARIANTS_WITHOUT_TEXT if has_fixed else 0)
    num_fits = num_variants * len(config.backbones) + config.reward.num_models * config.uses_lm
    epochs = min(EPOCHS_PER_FIT, config.reranker.max_epochs)
    num_trainings, num_pairs, reinforced = trainings_of(config, users)
    learnt_from = f"{reinforced:,} completions" if reinforced else f"{num_pairs:,} pairs"
    num_prompts = sum(users.values()) * (1 + num_rounds + num_controls) * config.uses_lm
    num_tokens = tokens_of_a_completion(config)
    amounts = (
        ("sample", f"up to {num_seeds * num_drawn:,} completions, about {num_seeds * num_drawn * num_tokens:,} tokens"),
        ("encode", f"up to {num_seeds * num_texts:,} texts, equal ones once"),
        ("train", f"{num_seeds * num_trainings} times, up to {learnt_from} each"),
        ("fit", f"{num_seeds * num_fits} rerankers on {num_train_lists:,} lists, about {epochs} epochs each"),
    )
    slow = 1.0 if config.lm.uses_server else slowness(config.lm)
    seconds = (
        slow * (num_drawn * num_tokens / TOKENS_PER_S + num_prompts / PROMPTS_PER_S),
        num_texts / FAST_ENCODERS.get(config.encoder.name, TEXTS_PER_S),
        slow * num_trainings * (reinforced / COMPLETIONS_PER_S if reinforced else num_pairs / PAIRS_PER_S),
        num_fits * epochs * num_train_lists / LISTS_PER_S,
    )
    return [(*amount, num_seeds * wall_s) for amount, wall_s in zip(amounts, seconds, strict=True)]


def sampled_of_one_seed(config: Dpo4RecConfig, users: dict[str, int]) -> tuple[int, int]:
    """Requests and completions of all models; a request may give several, and a matched one is drawn several times."""
    if not config.uses_lm:
        return 0, 0
    matched = COMPLETIONS_PER_SLOT if config.rounds and config.variants == "all" else 0
    requests = completions = 0
    is_rewarded = config.train != "grpo"  # which samples what it rewards
    for with_rewards, num_models in ((is_rewarded, config.rounds), (False, 1 + controls_of(config) + matched)):
        for part, num in num_completions(config.completions, with_rewards=with_rewards).items():
            requests += num_models * users[part] * -(-num // config.lm.server.completions_per_request)
            completions += num_models * users[part] * num
    return requests, completions


def trainings_of(config: Dpo4RecConfig, users: dict[str, int]) -> tuple[int, int, int]:
    """Trainings of one seed, and for each the pairs it passes, or the completions that GRPO writes and learns from."""
    pairs_of_user = math.comb(config.completions.reward, 2) if config.pairs.mode == "all_pairs" else 1
    num_pairs = min(users[REWARD] * pairs_of_user, config.dpo.max_pairs) * config.dpo.epochs
    reinforced = grpo_completions(config, users) if config.train == "grpo" else 0
    return config.rounds * (1 + controls_of(config)), num_pairs, reinforced


def grpo_completions(config: Dpo4RecConfig, users: dict[str, int]) -> int:
    """Completions that one training by GRPO writes and learns from."""
    grpo = config.grpo
    return min(users[REWARD], grpo.max_pairs) * grpo.epochs * grpo.num_generations


def num_of_table(config: Dpo4RecConfig, users: dict[str, int]) -> int:
    """Completions that one variant of the table reads."""
    return sum(users[part] * num for part, num in num_completions(config.completions, with_rewards=False).items())


def controls_of(config: Dpo4RecConfig) -> int:
    """Number of language models trained as controls: on random labels and, with all variants, by SFT."""
    if not config.rounds:  # as without_lm
        return 0
    return {"all": 2 if config.train == "dpo" else 1, "fitted": 1, "core": 1, "trained": 0}[config.variants]


def tokens_of_a_completion(config: Dpo4RecConfig) -> int:
    """About how long a completion is."""
    num_sentences = config.completions.sentences
    read = COMPLETION_TOKENS if num_sentences is None else num_sentences * SENTENCE_TOKENS
    return min(read, COMPLETION_TOKENS, config.lm.max_tokens)
