"""Every setting of a Re2LLM run. The defaults are for the built-in simulated sessions on two CPU cores."""

from __future__ import annotations

from collections.abc import Mapping, Set
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import BaseModel, model_validator

from recloop.data.load import DataConfig
from recloop.data.sessions import SessionConfig
from recloop.data.simulated_sessions import SimulatedSessionsConfig
from recloop.encoders.load import EncoderConfig
from recloop.errors import SettingError
from recloop.evaluation.score import MetricsConfig
from recloop.evaluation.significance import StatisticsConfig
from recloop.experiment.ray_jobs import RayConfig
from recloop.llm.config import LmConfig
from recloop.methods.re2llm.hint_base import MAX_HINTS
from recloop.methods.shared_config import (
    ABOUT_ENGINE,
    ABOUT_PREFLIGHT,
    PreflightMode,
    complete_sections,
    require_distinct,
    require_primary_metric,
)
from recloop.settings import setting, shown_first
from recloop.training.hint_policy import PolicyConfig

SIMULATED, RELEASED = "simulated-sessions", "released"


class AnswerLmConfig(LmConfig, frozen=True):
    """Which language model answers; it stays as it is. At temperature 0 each prompt has one answer."""

    name: str = shown_first("bundled:answers", "as for dpo4rec; the default ranks candidates and reflects")
    temperature: float = shown_first(0.0, "of sampling; 0 takes the likeliest token", ge=0, le=10)
    max_tokens: int = shown_first(200, "longest answer: a list of titles, or a reflection", ge=1)


class SessionDataConfig(DataConfig, frozen=True):
    """Where sessions come from: a log of any kind, cut as `sessions` says, or sessions as such."""

    READ_BY: ClassVar[Mapping[str, Set[str]]] = {
        **DataConfig.READ_BY,
        SIMULATED: {"simulated_sessions"},
        RELEASED: {"path"},
    }

    name: Literal[  # pyright: ignore[reportIncompatibleVariableOverride]
        "simulated-sessions", "released", "simulated", "movielens", "ml-1m", "mind", "amazon", "implicit", "table"
    ] = shown_first(SIMULATED, "Simulated sessions, sessions released with Re2LLM, or a log that is cut into sessions.")
    simulated_sessions: SimulatedSessionsConfig = setting(SimulatedSessionsConfig(), "The simulated sessions.")


class QuestionConfig(BaseModel, frozen=True, extra="forbid"):
    """How a session and its candidates are put into words."""

    num_ranked: int = shown_first(10, "titles asked for", ge=1)
    max_prompt_tokens: int = setting(
        1400, "token budget before any hint; oldest items are cut, then the candidates' attributes", ge=64
    )


class ExploreConfig(BaseModel, frozen=True, extra="forbid"):
    """How hints are found, or where they are read from."""

    hints: Literal["explore", "released"] = shown_first(
        "explore", "explore: reflect on mistakes; released: those that came with the data"
    )
    file: Path | None = shown_first(None, "a file of hints to use instead, e.g. one edited by hand")
    max_hints: int = shown_first(20, "size of the hint base", ge=1, le=MAX_HINTS)
    max_mistakes: int = shown_first(200, "mistakes looked at, at most", ge=1)
    max_prompt_tokens: int = setting(
        1800, "token budget of each of the three turns; what does not fit is cut as in questions", ge=64
    )
    effective: bool = setting(True, "keep a hint only if with it the answer is among the first ten")
    redundant: Literal["embedding", "lm", "off"] = setting(
        "embedding", "who says that a hint repeats another; off keeps all that differ"
    )
    max_alike: float = setting(0.9, "cosine above which hints are the same", gt=0, le=1)


class RepeatConfig(BaseModel, frozen=True, extra="forbid"):
    """Repeated answers, by which the best hint of each session is chosen and scored on different answers."""

    answers: int = shown_first(
        0, "answers to each test session with each hint, half to choose by, half to score; 0: none", ge=0, multiple_of=2
    )
    max_sessions: int = setting(100, "test sessions asked so, the first ones", ge=1)


class Re2llmConfig(BaseModel, frozen=True, extra="forbid"):
    """All of it. What a section leaves out keeps the value it has here, not the section's own default."""

    seeds: tuple[int, ...] = shown_first((0, 1, 2), "of the policy and its baselines; claims need three", min_length=1)
    preflight: PreflightMode = shown_first("stop", ABOUT_PREFLIGHT)
    engine: Literal["process", "ray"] = setting("process", ABOUT_ENGINE)
    ray: RayConfig = setting(RayConfig(), "the Ray cluster, where engine says so")
    data_seed: int = setting(0, "of the simulated log, the sessions kept and the candidates", ge=0)
    reward: str = shown_first("ndcg@10", "the reward of a hint is its gain in this metric")
    primary_metric: str = shown_first("ndcg@10", "the metric that is tested; one of metrics.names")
    data: SessionDataConfig = setting(SessionDataConfig(), "the sessions, or the log that they are cut from")
    sessions: SessionConfig = setting(SessionConfig(), "how a log is cut; how many sessions are kept")
    question: QuestionConfig = setting(QuestionConfig(), "sessions in words")
    lm: AnswerLmConfig = setting(AnswerLmConfig(), "the language model")
    encoder: EncoderConfig = setting(EncoderConfig(), "the encoder of items and hints")
    explore: ExploreConfig = setting(ExploreConfig(), "reflective exploration")
    policy: PolicyConfig = setting(PolicyConfig(), "the policy that chooses hints")
    repeats: RepeatConfig = setting(RepeatConfig(), "the best hint by repeated answers")
    metrics: MetricsConfig = setting(
        MetricsConfig(names=("ndcg@10", "hr@1", "hr@5", "hr@10", "ndcg@5", "mrr@10"), empty="drop", mean="list"),
        "metrics and their conventions; a session is a list",
    )
    statistics: StatisticsConfig = setting(StatisticsConfig(), "tests and intervals")

    @model_validator(mode="before")
    @classmethod
    def _complete_sections(cls, given: Any) -> Any:
        return complete_sections(cls, given)

    @model_validator(mode="after")
    def _holds_together(self) -> Re2llmConfig:
        require_primary_metric(self.primary_metric, self.metrics)
        require_distinct(seeds=self.seeds)
        for metric in (self.reward, *self.metrics.names):
            if metric.partition("@")[0] not in ("ndcg", "hr", "mrr"):
                raise SettingError(
                    f"a session has one answer and is measured by ndcg@K, hr@K, mrr@K; got {metric}; use one"
                )
        self._times_are_there()
        if self.data.name == SIMULATED and self.sessions != SessionConfig():
            raise SettingError(
                f"sessions are settings of a log that is cut, got them with data.name {SIMULATED}; set "
                f"data.simulated_sessions"
            )
        if self.explore.hints == "released" and self.data.name != RELEASED:
            raise SettingError(
                f"explore.hints released come with released data, got data.name {self.data.name}; "
                f"explore, or name a file in explore.file"
            )
        return self

    def _times_are_there(self) -> None:
        name, cut = self.data.name, self.sessions.cut
        if name in (SIMULATED, RELEASED) or self.data.has_times:
            return
        if cut != "user":
            also = ", or name the column of times in data.table.time" if name == "table" else ""
            raise SettingError(
                f"sessions.cut {cut} reads times, got a log of {name} that has an order only; set sessions.cut to "
                f"user{also}"
            )
        # The rows of a table are in one order for all users.
        if self.sessions.split == "time" and name != "table":
            raise SettingError(
                f"sessions.split time compares the times of users, got a log of {name} with an order within each "
                f"user only; set sessions.split to session"
            )


def quick_overrides(config: Re2llmConfig) -> list[tuple[str, str]]:
    """What ``--quick`` sets where nothing else was said: a demonstration within minutes."""
    is_simulated = config.data.name == SIMULATED
    sizes = "data.simulated-sessions" if is_simulated else "sessions"
    settings = [(f"{sizes}.num-train", "120"), (f"{sizes}.num-test", "100")]
    settings += [(f"{sizes}.num-items", "240")] if is_simulated else []
    return [
        *settings,
        ("explore.max-hints", "6"),
        ("explore.max-mistakes", "48"),
        ("policy.steps", "5000"),
        ("statistics.num-flips", "10000"),
        ("statistics.num-resamples", "2000"),
    ]
