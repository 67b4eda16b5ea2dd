"""Every setting of a DPO4Rec run. The defaults are for the built-in simulated data on two CPU cores."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, model_validator

from recloop.data.lists import ProtocolConfig
from recloop.data.load import DataConfig
from recloop.data.splits import SplitConfig
from recloop.encoders.load import EncoderConfig
from recloop.errors import SettingError
from recloop.evaluation.score import MetricsConfig
from recloop.evaluation.significance import StatisticsConfig
from recloop.experiment.ray_jobs import RayConfig
from recloop.llm.config import LmConfig
from recloop.llm.server.config import SCHEME
from recloop.methods.shared_config import (
    ABOUT_ENGINE,
    ABOUT_PREFLIGHT,
    PreflightMode,
    complete_sections,
    require_distinct,
    require_primary_metric,
)
from recloop.prompts.user_profile import PromptConfig
from recloop.rerankers.config import RerankerConfig, RerankerKind
from recloop.rerankers.metrics import MetricName
from recloop.rewards.preference_pairs import PairConfig
from recloop.settings import setting, shown_first, shown_later
from recloop.training.dpo import DpoConfig
from recloop.training.grpo_config import GrpoConfig

WITHOUT_LM = "without_lm"
METRICS = (
    "ndcg@5", "map@5", "mrr@10", "ndcg@1", "ndcg@3", "ndcg@7", "ndcg@10", "map_min@5", "map_kar@5", "hr@1", "hr@3",
    "hr@5", "loglik",
)  # fmt: skip


class CompletionsConfig(BaseModel, frozen=True, extra="forbid"):
    """How many completions are drawn per user."""

    fit: int = shown_first(1, "per train and valid user; a training step reads one of them", ge=1)
    reward: int = shown_first(10, "per reward user: N of the paper", ge=2)
    test: int = shown_first(3, "per test user: several, for less noise", ge=1)
    sentences: int | None = shown_first(
        None,
        "read so many sentences of each completion, its first, and write no more where the model runs here: with "
        "little room it matters what is said; none: whole completions",
        ge=1,
    )


class RewardConfig(BaseModel, frozen=True, extra="forbid"):
    """What a completion is rewarded with.

    Measured in the simulated data with 400 users and completions that tell the truth about random attributes: by
    NDCG@10, 74% of the best completions and 35% of the worst name the useful attribute; by NDCG@5, 65% and 36%; by
    log-likelihood, which an overconfident reward model dominates, 62% and 56%.
    """

    metric: str = shown_first("ndcg@10", "of the reward model: ndcg@10, map_min@5, loglik, ...")
    by: Literal["reranker", "embedding"] = setting(
        "reranker",
        "reranker: the metric of the reward model; embedding: how much nearer the text is to the positive candidates "
        "than to the others, by the text encoder (BLUE's), without a metric",
    )
    length_weight: float = setting(0.0, "taken off the reward per 100 words of a completion", ge=0, le=100)
    untruth_weight: float = setting(
        0.0,
        "taken off times the share of the values and titles a completion names that the history does not hold or "
        "contradicts",
        ge=0,
        le=100,
    )
    num_models: int = shown_first(
        1,
        "fits of the reward model, each with a seed of its own; a completion's reward is their mean, since what one "
        "fit prefers among a user's completions is mostly its own",
        ge=1,
    )
    cross_fit: bool = shown_first(
        False,
        "the reward is predicted from what similar completions got with other users (cross-fitted): the part that a "
        "language model can learn",
    )

    @model_validator(mode="after")
    def _check_metric(self) -> RewardConfig:
        MetricName.parse(self.metric)
        return self

    @property
    def has_penalties(self) -> bool:
        return bool(self.length_weight or self.untruth_weight)


class Dpo4RecConfig(BaseModel, frozen=True, extra="forbid"):
    """All of it. What a section leaves out keeps the value it has here, not the section's own default."""

    rounds: int = shown_first(1, "rounds of reward and training; 0 only measures", ge=0)
    train: Literal["dpo", "sft", "grpo"] = shown_first(
        "dpo",
        "dpo: prefer each user's best completion to the worst; sft: imitate the best; grpo: reinforce completions as "
        "they are written, by the same rewards",
    )
    seeds: tuple[int, ...] = shown_first(
        (0,), "one whole loop each: sampling, fits, training; claims need three", min_length=1
    )
    preflight: PreflightMode = shown_first("stop", ABOUT_PREFLIGHT)
    engine: Literal["process", "ray"] = setting("process", ABOUT_ENGINE)
    ray: RayConfig = setting(RayConfig(), "the Ray cluster, where engine says so")
    data_seed: int = setting(0, "of the simulated log, the users kept, the groups and the lists", ge=0)
    backbones: tuple[RerankerKind, ...] = shown_first(
        ("prm",), "evaluators: one table each; the reward model is reranker.kind", min_length=1
    )
    variants: Literal["all", "fitted", "core", "trained", "without_lm"] = shown_first(
        "all",
        "core: only shuffled, untuned, random-label DPO and trained; fitted: these and all that need no further "
        "training or sampling; trained: only untuned and trained, to choose settings by valid users; without_lm: only "
        "those that need no language model, and no rounds",
    )
    primary_metric: str = setting("ndcg@5", "the metric that is tested; one of metrics.names")
    reference: Literal["first", "previous"] = setting(
        "first", "DPO's reference model: the language model before round 1, or before the current round"
    )
    item_vector_width: int = setting(64, "width of the TF-IDF vectors of items", ge=2)
    data: DataConfig = setting(DataConfig(), "the log")
    split: SplitConfig = setting(SplitConfig(), "shares of the four user groups")
    protocol: ProtocolConfig = setting(ProtocolConfig(), "candidate lists")
    prompt: PromptConfig = setting(PromptConfig(), "histories in words")
    lm: LmConfig = setting(LmConfig(), "the language model")
    completions: CompletionsConfig = setting(CompletionsConfig(), "completions per user")
    encoder: EncoderConfig = setting(EncoderConfig(), "the text encoder")
    reranker: RerankerConfig = setting(RerankerConfig(), "the reward model, and but for its kind every evaluator")
    reward: RewardConfig = setting(RewardConfig(), "the reward")
    pairs: PairConfig = setting(PairConfig(), "preference pairs")
    dpo: DpoConfig = setting(DpoConfig(), "DPO, and the budget of best-of-N fine-training")
    grpo: GrpoConfig = shown_later(
        GrpoConfig(
            epochs=1, batch_size=4, max_pairs=1500, max_prompt_tokens=448, max_reply_tokens=64, num_generations=10,
            temperature=1.0,
        ),
        "GRPO, where `train` says so",
    )  # fmt: skip
    metrics: MetricsConfig = setting(
        MetricsConfig(names=METRICS, empty="drop", mean="user"), "metrics and their conventions"
    )
    statistics: StatisticsConfig = setting(StatisticsConfig(), "tests and intervals")

    @model_validator(mode="before")
    @classmethod
    def _complete_sections(cls, given: Any) -> Any:
        if isinstance(given, dict) and given.get("variants") == WITHOUT_LM:
            given = {"rounds": 0, **given}
        return complete_sections(cls, given)

    @model_validator(mode="after")
    def _holds_together(self) -> Dpo4RecConfig:
        require_primary_metric(self.primary_metric, self.metrics)
        require_distinct(seeds=self.seeds, backbones=self.backbones)
        if self.rounds and not self.uses_lm:
            raise SettingError(f"variants {WITHOUT_LM} train nothing, got rounds={self.rounds}; leave rounds out")
        if self.rounds and not self.split.reward:
            raise SettingError(
                f"training needs reward users, got split.reward=0 and rounds={self.rounds}; use rounds=0"
            )
        if self.rounds and self.lm.name.startswith(SCHEME) and not self.lm.server.weights:
            raise SettingError(
                f"a model behind a server is trained from its weights, got none and rounds={self.rounds}; set "
                f"lm.server.weights to transformers:FOLDER, or rounds=0 to measure only"
            )
        if self.reranker.use_id_history:
            raise SettingError("reranker.use_id_history is decided by each row of the table, got True; leave it out")
        name, longest = ("grpo", self.grpo) if self.train == "grpo" else ("dpo", self.dpo)
        if self.prompt.max_prompt_tokens > longest.max_prompt_tokens:
            raise SettingError(
                f"{name}.max_prompt_tokens must hold every prompt, got {longest.max_prompt_tokens} for prompts "
                f"of up to {self.prompt.max_prompt_tokens} (prompt.max_prompt_tokens); raise it"
            )
        if self.train == "grpo" and self.reward.cross_fit:
            raise SettingError(
                "reward.cross_fit compares completions of a whole round, got it with train=grpo, which rewards them "
                "as they are written; use train=dpo or sft, or leave cross_fit out"
            )
        return self

    @property
    def uses_lm(self) -> bool:
        """Whether a language model writes anything."""
        return self.variants != WITHOUT_LM
