"""Every setting of a ReRec run. The defaults are for the built-in simulated data on two CPU cores."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, cast

from pydantic import BaseModel, Field, model_validator

from recloop.data.load import DataConfig
from recloop.data.requests import RequestConfig
from recloop.data.simulated import SimulatedConfig
from recloop.data.splits import SplitConfig
from recloop.errors import SettingError
from recloop.evaluation.significance import StatisticsConfig
from recloop.llm.config import LocalLmConfig
from recloop.methods.rerec.forgetting import RetentionConfig
from recloop.methods.shared_config import ABOUT_PREFLIGHT, PreflightMode, complete_sections, require_distinct
from recloop.prompts.request import RequestPromptConfig
from recloop.rewards.advantages import AdvantageConfig, Penalty
from recloop.rewards.curriculum import CurriculumConfig
from recloop.rewards.request_reward import AnswerRewardConfig
from recloop.settings import setting, shown_first
from recloop.training.grpo_config import GrpoConfig
from recloop.training.sft import SftConfig

VariantName = Literal[
    "grpo_ndcg",
    "rerec",
    "no_penalty",
    "published_penalty",
    "no_qas",
    "no_pas",
    "no_curriculum",
    "published_curriculum",
]


class AnsweringConfig(BaseModel, frozen=True, extra="forbid"):
    """How test requests are answered."""

    completions: int = shown_first(1, "answers to each test request, averaged", ge=1)
    temperature: float = shown_first(0.0, "0 for the likeliest answer; above 0 with several completions", ge=0, le=10)


class TransferConfig(BaseModel, frozen=True, extra="forbid"):
    """Requests about another log, which all models answer and none is trained on."""

    name: str = Field(pattern=r"^[a-z0-9-]+$", description="of the table; small letters, digits, hyphens")
    data: DataConfig = Field(description="the other log")
    recbench: Path | None = setting(
        None, "folder of RecBench+'s requests, with ml-1m as the log; none: requests are made from it"
    )
    max_requests: int = setting(300, "more are thinned at random", ge=1)


class NextItemConfig(BaseModel, frozen=True, extra="forbid"):
    """How the models are looked at as plain recommenders of the next item."""

    users: int = setting(100, "test users, whose last item is asked for; 0: none", ge=0)


class ReRecConfig(BaseModel, frozen=True, extra="forbid"):
    """All of it. What a section leaves out keeps the value it has here, not the section's own default."""

    seeds: tuple[int, ...] = shown_first(
        (0,), "one supervised model and all its variants each; claims need three", min_length=1
    )
    preflight: PreflightMode = shown_first("stop", ABOUT_PREFLIGHT)
    data_seed: int = setting(0, "of the simulated log, the groups and the requests", ge=0)
    variants: tuple[VariantName, ...] = shown_first(
        ("grpo_ndcg", "rerec"),
        "ways of reinforcement: grpo_ndcg (NDCG and format alone), rerec (all of it), and rerec without one part each",
        min_length=1,
    )
    supervised: bool = shown_first(
        True, "fine-train on canonical answers to train users' requests: a variant to compare"
    )
    reinforced: Literal["base_model", "supervised"] = shown_first(
        "base_model",
        "which model is reinforced: the language model as it comes, or the supervised one, for "
        "a model that does not know the form of an answer",
    )
    data: DataConfig = setting(DataConfig(simulated=SimulatedConfig(num_users=300, num_items=300)), "the log")
    split: SplitConfig = setting(
        SplitConfig(train=0.4, reward=0.35, valid=0.05, test=0.2),
        "train users teach the form, reward users' requests are reinforced, test users report",
    )
    requests: RequestConfig = setting(RequestConfig(), "the requests")
    prompt: RequestPromptConfig = setting(RequestPromptConfig(), "requests in words")
    lm: LocalLmConfig = setting(LocalLmConfig(name="bundled:answers", max_tokens=200), "the language model")
    answering: AnsweringConfig = setting(AnsweringConfig(), "answers to test requests")
    reward: AnswerRewardConfig = setting(AnswerRewardConfig(), "the reward's weights")
    advantage: AdvantageConfig = setting(AdvantageConfig(), "advantages of tokens")
    curriculum: CurriculumConfig = setting(CurriculumConfig(), "which requests, in order")
    sft: SftConfig = setting(
        SftConfig(max_prompt_tokens=784, max_reply_tokens=200, max_pairs=2000, epochs=2),
        "supervised fine-training on canonical answers",
    )
    grpo: GrpoConfig = setting(GrpoConfig(), "reinforcement")
    retention: RetentionConfig = setting(RetentionConfig(), "whether the other skills are kept")
    next_item: NextItemConfig = setting(NextItemConfig(), "the next item of a history")
    transfer: tuple[TransferConfig, ...] = setting(
        (), "requests about other logs; in a file: [[transfer]], name and transfer.data"
    )
    statistics: StatisticsConfig = setting(StatisticsConfig(), "tests and intervals")

    @model_validator(mode="before")
    @classmethod
    def _complete_sections(cls, given: Any) -> Any:
        return _without_simulated(complete_sections(cls, given), given)

    @model_validator(mode="after")
    def _holds_together(self) -> ReRecConfig:
        places = [place.name for place in self.transfer]
        require_distinct(seeds=self.seeds, variants=self.variants, **{"transfer names": places})
        if self.lm.name.startswith("openai:"):
            raise SettingError(
                f"ReRec trains weights on this machine, got lm.name={self.lm.name}; use bundled or "
                f"transformers:NAME_OR_FOLDER"
            )
        if self.answering.temperature == 0 and self.answering.completions > 1:
            raise SettingError(
                f"at temperature 0 all answers are the same, got answering.completions={self.answering.completions}; "
                f"use 1, or a temperature above 0"
            )
        for name, budget in (("sft", self.sft), ("grpo", self.grpo)):
            if self.prompt.max_prompt_tokens > budget.max_prompt_tokens:
                raise SettingError(
                    f"{name}.max_prompt_tokens must hold every prompt, got {budget.max_prompt_tokens} for "
                    f"prompts of up to {self.prompt.max_prompt_tokens} (prompt.max_prompt_tokens); raise it"
                )
        if self.reinforced == "supervised" and not self.supervised:
            raise SettingError(
                "there is no supervised model to reinforce, got reinforced=supervised and supervised=false; "
                "use reinforced=base_model, or supervised=true"
            )
        if not self.split.reward:
            raise SettingError("reinforcement needs reward users, got split.feedback=0; give them a share")
        return self


def _without_simulated(completed: Any, given: Any) -> Any:
    """The settings without those of simulated data, where the run reads another log: nothing would read them."""
    match given:
        case {"data": {"name": name, **others}} if name != "simulated" and "simulated" not in others:
            data = cast(dict[str, Any], completed["data"])
            return completed | {"data": {key: value for key, value in data.items() if key != "simulated"}}
        case _:
            return completed


class RequestVariant(BaseModel, frozen=True, extra="forbid"):
    """One way of reinforcement: its name and the settings that make it."""

    name: VariantName
    reward: AnswerRewardConfig
    advantage: AdvantageConfig
    curriculum: CurriculumConfig


def variant_of(config: ReRecConfig, name: VariantName) -> RequestVariant:
    """The settings of an variant."""
    reward, advantage, curriculum = config.reward, config.advantage, config.curriculum
    unpaid = advantage.model_copy(update={"penalty": Penalty.NONE})
    everything = curriculum.model_copy(update={"is_on": False})
    match name:
        case "grpo_ndcg":
            reward = reward.model_copy(update={"qas_weight": 0.0, "pas_weight": 0.0})
            advantage, curriculum = unpaid, everything
        case "rerec":
            pass
        case "no_penalty":
            advantage = unpaid
        case "published_penalty":
            advantage = advantage.model_copy(update={"penalty": Penalty.PUBLISHED})
        case "no_qas":
            reward = reward.model_copy(update={"qas_weight": 0.0})
        case "no_pas":
            reward = reward.model_copy(update={"pas_weight": 0.0})
        case "no_curriculum":
            curriculum = everything
        case "published_curriculum":
            curriculum = curriculum.model_copy(update={"too_hard": None, "same_budget": False})
    return RequestVariant(name=name, reward=reward, advantage=advantage, curriculum=curriculum)


def quick_overrides(config: ReRecConfig) -> list[tuple[str, str]]:
    """What ``--quick`` sets where nothing else was said: a demonstration of one seed and two variants."""
    return [
        *([("data.simulated.num-users", "100")] if config.data.name == "simulated" else []),
        ("seeds", f"[{config.seeds[0]}]"),
        ("variants", '["grpo_ndcg", "rerec"]'),
        ("sft.max-pairs", "280"),
        ("sft.epochs", "1"),
        ("retention.tasks", "50"),
        ("next_item.users", "50"),
        ("grpo.max-pairs", "64"),
        ("grpo.epochs", "2"),
    ]
