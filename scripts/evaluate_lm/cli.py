"""How truthfully a language model describes the users of a log, and how well it answers."""

from __future__ import annotations

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

from recloop.data.lists import ProtocolConfig, build_lists
from recloop.data.load import DataConfig, read_log
from recloop.data.splits import SplitConfig, split_users
from recloop.errors import SettingError
from recloop.llm.bundled import with_readable_columns
from recloop.llm.config import LmConfig
from recloop.llm.language_model import Sampling
from recloop.llm.load import lm_folder, lm_from_config
from recloop.progress import SILENT, Progress
from recloop.prompts.user_profile import PromptConfig, population_rates_of
from recloop.records import Group
from scripts.evaluate_lm.tasks import TaskSkill, evaluate_next_item, evaluate_requests, with_years
from scripts.evaluate_lm.text_quality import SummarySkill, evaluate_summaries

LABELS = {
    "well_formed": "completions in the canonical form and finished",
    "grounded": "claims about a value that the history shows",
    "true": "claims that the history supports",
    "true_likes": "likes that the history supports",
    "true_dislikes": "dislikes that the history supports",
    "coverage": "of a user's five strongest likes are named by a completion",
    "claims_per_completion": "claims per completion",
    "claims_of_four": "claims per completion where the history supports four",
    "distinct_attribute_sets": "different sets of claims among a user's completions",
    "tokens_per_completion": "tokens per completion",
    "tokens_per_s": "tokens per second",
}
SHARES = frozenset({"well_formed", "grounded", "true", "true_likes", "true_dislikes", "coverage"})


class EvaluateLmConfig(BaseModel):
    """Which language model writes about which users."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    users: int = Field(default=100, ge=0, description="users to write about, drawn by the seed; 0 for none")
    completions: int = Field(default=4, ge=1, description="completions per user")
    tasks: int = Field(
        default=0, ge=0, description="invented tasks for each further skill (next item, requests); 0 for none"
    )
    tasks_of_log: bool = Field(default=False, description="next-item tasks of the log's items too")
    candidates: int = Field(default=20, ge=3, description="candidates in each of those tasks")
    tries: int = Field(
        default=1, ge=1, description="draws of a text until it is in form and true, or of a reply until it can be read"
    )
    seed: int = Field(default=0, ge=0, description="of the simulated log, the drawn users and the completions")
    data: DataConfig = Field(default=DataConfig(), description="the log")
    protocol: ProtocolConfig = Field(default=ProtocolConfig(), description="which part of a log is history")
    prompt: PromptConfig = Field(default=PromptConfig(), description="histories in words")
    lm: LmConfig = Field(default=LmConfig(), description="the language model")

    @model_validator(mode="after")
    def _asks_something(self) -> EvaluateLmConfig:
        if not self.users and not self.tasks:
            raise SettingError("nothing to evaluate, got users=0 and tasks=0; give one of them a number")
        return self


def evaluation_text(config: EvaluateLmConfig, progress: Progress = SILENT) -> str:
    """What `python -m scripts.evaluate_lm` prints: summaries, then the further skills, each where it is asked for."""
    parts: list[str] = []
    if config.users:
        parts.append(skill_text(evaluate_lm(config, progress)))
    if config.tasks:
        parts.append(tasks_text(evaluate_tasks(config, progress)))
    return "\n".join(parts)


def evaluate_lm(config: EvaluateLmConfig, progress: Progress = SILENT) -> SummarySkill:
    """How well the language model describes some users; every claim is checked against their histories.

    Raises:
        SettingError: the log has fewer users.
    """
    dataset = read_log(config.data, config.seed, progress)
    if config.users > dataset.num_users:
        raise SettingError(f"{dataset.name} has {dataset.num_users} users, got users={config.users}; ask for fewer")
    dataset, _ = with_readable_columns(dataset, lm_folder(config.lm), progress)
    groups = split_users(dataset.num_users, SplitConfig(), config.seed)
    histories = build_lists(dataset, groups, config.protocol, config.seed).histories
    users = np.random.default_rng(config.seed).choice(dataset.num_users, config.users, replace=False)
    lm = lm_from_config(config.lm)
    sampling = Sampling(config.completions, config.lm.temperature, config.lm.top_p, config.lm.max_tokens, config.seed)
    population_rates = population_rates_of(dataset, histories, groups[Group.TRAIN], config.prompt)
    return evaluate_summaries(
        lm, dataset, histories, np.sort(users), sampling, config.prompt, progress, population_rates, config.tries
    )


def evaluate_tasks(config: EvaluateLmConfig, progress: Progress = SILENT) -> dict[str, TaskSkill]:
    """The further skills, on tasks about invented catalogues."""
    lm = lm_from_config(config.lm)
    sampling = Sampling(1, config.lm.temperature, config.lm.top_p, config.lm.max_tokens, config.seed)
    asked = (config.tasks, config.candidates, sampling, progress)
    tries = config.tries
    sessions = {"next item, invented sessions": evaluate_next_item(lm, *asked, tries=tries)}
    if config.tasks_of_log:
        log = with_years(read_log(config.data, config.seed, progress))
        sessions[f"next item, sessions of {log.name}"] = evaluate_next_item(lm, *asked, log, tries)
    return {
        **sessions,
        "requests, invented catalogues": evaluate_requests(lm, *asked, tries=tries),
    }


def tasks_text(skills: dict[str, TaskSkill]) -> str:
    """The skills as text: shares in percent beside chance."""
    lines: list[str] = []
    for name, skill in skills.items():
        chance = 100 / skill.num_candidates
        lines.append(f"{name}: {skill.num_tasks} tasks, {skill.num_candidates} candidates, chance {chance:.1f} %")
        lines += [f"{100 * share:8.1f} %  right, {form}" for form, share in skill.right.items()]
        lines.append(f"{100 * skill.readable:8.1f} %  of answers name a candidate")
        if not np.isnan(skill.p_hint):
            lines.append(f"{skill.p_hint:8.2g}    p that the right hint does no better than a wrong one")
    return "\n".join(lines)


def skill_text(skill: SummarySkill) -> str:
    """The metrics as text, a line each; shares in percent."""
    lines = [f"{skill.num_users} users, {skill.num_completions} completions"]
    for name, value in skill.as_dict().items():
        if name in LABELS:
            number = f"{100 * value:8.1f} %" if name in SHARES else f"{value:8.1f}  "
            lines.append(f"{number}  {LABELS[name]}")
    return "\n".join(lines)
