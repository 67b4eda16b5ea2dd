"""`--dry-run` of ReRec: what a run would do, and about how long it takes."""

from __future__ import annotations

from recloop.data.splits import user_groups
from recloop.methods.cost_estimate import lm_note, plan_lines, slowness
from recloop.methods.rerec.config import ReRecConfig
from recloop.methods.run_log import PlanLog, read_plan_sample
from recloop.records import Group

# Guesses for the bundled LM on two cores.
ANSWERS_PER_S = 12.0
REINFORCED_PER_S = 6.0
FINE_TUNED_PER_S = 6.0


def forecast(config: ReRecConfig, log: PlanLog | None = None) -> str:
    """The plan of a run, from its data (`log`, where it was read) and settings; writes nothing, loads no model."""
    whole = log or read_plan_sample(config.data, config.data_seed)
    dataset, times = whole.log, whole.num_users / whole.log.num_users
    groups = user_groups(dataset, config.split, config.data_seed)
    num_users = {group: round(times * len(users)) for group, users in groups.items()}
    most = {group: num * config.requests.per_user for group, num in num_users.items()}
    taught = min(most[Group.TRAIN], config.sft.max_pairs) * config.sft.epochs if config.supervised else 0
    asked = min(most[Group.REWARD], config.grpo.max_pairs) * config.grpo.epochs * len(config.variants)
    num_models = 1 + config.supervised + len(config.variants)
    elsewhere = sum(place.max_requests for place in config.transfer)
    answered = (most[Group.TEST] + elsewhere) * config.answering.completions * num_models
    next_items = min(config.next_item.users, num_users[Group.TEST])
    other_skills = (config.retention.tasks + next_items) * num_models
    reinforced, num_seeds = asked * config.grpo.num_generations, len(config.seeds) * slowness(config.lm)
    steps = (
        (
            "train",
            f"{taught:,} canonical answers, {reinforced:,} answers reinforced",
            num_seeds * (taught / FINE_TUNED_PER_S + reinforced / REINFORCED_PER_S),
        ),
        (
            "sample",
            f"{answered:,} answers to test requests, {other_skills:,} of other skills, {num_models} models",
            num_seeds * ((answered + other_skills) / ANSWERS_PER_S),
        ),
    )
    counts = ", ".join(f"at most {num:,} {group}" for group, num in most.items())
    lines = [
        *dataset.reading,
        f"{dataset.name}: {whole.num_users:,} users, {whole.num_items:,} items; requests: {counts}",
        f"seeds {config.seeds}, variants {', '.join(config.variants)}; amounts of one seed, time of all",
    ]
    return "\n".join([*lines, *plan_lines(steps), *lm_note(config.lm, "train and sample")])
