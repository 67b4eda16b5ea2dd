"""The settings of GRPO, the reward of an answer, and which part of the training an epoch is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from recloop.errors import SettingError
from recloop.rewards.advantages import AdvantageConfig
from recloop.settings import setting, shown_first
from recloop.training.result import TrainingBudget

ANSWERS, MOMENTS = "answers.json", "adam.moments"


class GrpoConfig(TrainingBudget, frozen=True):
    """How rewards of answers train a language model."""

    learning_rate: float = shown_first(
        2e-4,
        "learning rate of the first step, falling linearly to 0 over all epochs; 2e-4 suits the bundled model, "
        "ReRec: 5e-6",
        gt=0,
    )
    epochs: int = shown_first(2, "passes over the requests; see curriculum.same_budget where some are not asked", ge=1)
    batch_size: int = shown_first(8, "requests in one forward pass, with all their answers", ge=1)
    gradient_accumulation_steps: Annotated[int, Field(ge=1)] | Literal["auto"] = setting(
        1, "forward passes in one optimiser step; auto: about 25 steps of max_pairs"
    )
    max_pairs: int = setting(400, "more requests than this are thinned at random", ge=1)
    max_prompt_tokens: int = setting(784, "a longer prompt, chat template included, is an error", ge=1)
    max_reply_tokens: int = setting(200, "longest answer, end token included", ge=1)
    num_generations: int = shown_first(5, "answers to each request (G)", ge=2)
    temperature: float = shown_first(
        1.3, "of sampling; a model that is sure of its answers needs more than 1", gt=0, le=10
    )
    beta: float = shown_first(0.03, "weight of the KL to the reference model; ReRec: 0.01", ge=0)
    epsilon: float = setting(0.2, "clip range of the probability ratio, as PPO's", gt=0, lt=1)
    warmup_steps: int = setting(
        5, "first steps, in which the learning rate rises: Adam's moments are new there, its steps the longest", ge=0
    )
    num_iterations: int = setting(1, "optimiser steps on the same answers; from 2 on clipping has an effect", ge=1)

    @model_validator(mode="after")
    def _steps_are_whole(self) -> GrpoConfig:
        if self.max_pairs < self.requests_per_step:
            raise SettingError(
                f"max_pairs must hold the requests of one optimiser step, got {self.max_pairs} for "
                f"{self.requests_per_step} (batch_size times gradient_accumulation_steps); lower batch_size"
            )
        return self

    @property
    def requests_per_step(self) -> int:
        return self.batch_size * self.passes_per_step(self.max_pairs)


@dataclass(frozen=True, slots=True)
class ScoredAnswer:
    """The reward of one answer.

    bare_reward: `reward` without its side terms, whose share of the advantage is logged.
    wrong_spans: characters of the paragraphs with a lower reward.
    terms: named, for the log; every answer has the same names.
    """

    reward: float
    bare_reward: float
    wrong_spans: tuple[tuple[int, int], ...]
    terms: Mapping[str, float]


Scorer = Callable[[int, str, bool], ScoredAnswer]
"""(number of the prompt, answer, whether it is finished) -> its reward."""


@dataclass(frozen=True, slots=True)
class AnswerReward:
    """How answers are rewarded, and how their tokens share the reward.

    digest: of all that `score` depends on.
    shuffle_seed: deals the rewards of a prompt's answers out among them by chance, as a control; None: as they are.
    """

    score: Scorer
    digest: str
    advantages: AdvantageConfig
    shuffle_seed: int | None = None


@dataclass(frozen=True, slots=True)
class EpochShare:
    """Which part of the whole training an epoch is.

    start, end: shares of all epochs' requests before this epoch and after it: how far the learning rate is on its
        way to 0.
    moments: of the epoch before, to go on from without a new warmup; None for a new Adam.
    """

    start: float = 0.0
    end: float = 1.0
    moments: Path | None = None


def rate_share(step: int, num_steps: int, warmup_steps: int, last: float) -> float:
    """The learning rate of an epoch's optimiser step, as a share of the rate that the epoch begins with.

    It rises in equal parts over `warmup_steps`, from above 0, then falls linearly to `last`, with which the next epoch
    begins.

    Example:
        >>> [round(rate_share(step, 6, 2, 0.5), 3) for step in range(7)]
        [0.333, 0.667, 1.0, 0.875, 0.75, 0.625, 0.5]
    """
    if step < warmup_steps:
        return (step + 1) / (warmup_steps + 1)
    return 1 - (1 - last) * (step - warmup_steps) / max(1, num_steps - warmup_steps)
