"""The numbers that a study run leaves: no text, no user, no item, no attribute value of a real log."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from recloop.errors import DataError
from recloop.files import atomic_write_text
from studies.evidence.statistics import Moments


class Record(BaseModel):
    """A record that is JSON."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class VariantNumbers(Record):
    """One variant of a table: moments over users, by metric."""

    name: str
    values: dict[str, Moments]


class ContrastNumbers(Record):
    """The difference `name` minus `against`, user by user.

    p, low, high: by metric, of this run alone: its sign-flip test and its 95% bootstrap interval.
    """

    name: str
    against: str
    values: dict[str, Moments]
    p: dict[str, float]
    low: dict[str, float]
    high: dict[str, float]


class SliceNumbers(Record):
    """The difference `name` minus `against` over some of the users: those in one band of a feature.

    by: the feature. low, high: the band's first and last value, the same in every fold; None: without end.
    """

    name: str
    against: str
    by: str
    low: int
    high: int | None
    values: dict[str, Moments]


class TableNumbers(Record):
    """Variants under one kind of evaluation reranker, scored on the lists of one group of users.

    group: ``test`` or ``valid``.
    """

    ranker: str
    group: str
    num_users: int
    num_lists: int
    variants: tuple[VariantNumbers, ...]
    contrasts: tuple[ContrastNumbers, ...]
    slices: tuple[SliceNumbers, ...] = ()

    def variant(self, name: str) -> VariantNumbers | None:
        """The variant of this name."""
        return next((variant for variant in self.variants if variant.name == name), None)

    def contrast(self, name: str, against: str) -> ContrastNumbers | None:
        """The contrast of these two variants."""
        return next((c for c in self.contrasts if (c.name, c.against) == (name, against)), None)


class ReliabilityNumbers(Record):
    """Split-half reliability of one kind of reward.

    num_lists: only users with at least this many lists, and the first so many of each; None: all lists of all
        users with two or more.
    """

    metric: str
    num_lists: int | None
    reliability: float
    low: float
    high: float
    num_users: int


class PredictedNumbers(Record):
    """How much of one kind of reward other users' completions predict: the part that a prompt can teach.

    explained: cross-user R² of the within-user reward.
    gained: reward of the completion that is predicted to be a user's best, minus the user's mean reward.
    reached: by variant, the reward predicted for test users' completions, minus the same for the untuned model;
        only for the reward that the run trained on.
    """

    metric: str
    explained: float
    gained: Moments
    reached: dict[str, Moments]


class RewardNumbers(Record):
    """The rewards of one round. best_less_mean: a user's best completion minus the mean of their completions."""

    round: int
    metric: str
    best_less_mean: Moments
    pairs: dict[str, int]


class WritingNumbers(Record):
    """What one language model writes about test users; shares in [0, 1], None where nothing could be counted.

    skill: the metrics of `scripts.evaluate_lm.text_quality`.
    attribute_of_claims: share of all claims that are about the attribute.
    attribute_of_completions: share of completions with a claim about the attribute.
    surprisal: nats per token of the model's own completions at temperature 1, which is its entropy rate.
    """

    variant: str
    num_completions: int
    skill: dict[str, float | None]
    attribute_of_claims: dict[str, float]
    attribute_of_completions: dict[str, float]
    surprisal: float | None


class WritingChange(Record):
    """Trained minus untuned, of each user's own share; users without a claim on either side are left out."""

    metric: str
    change: Moments


class CostNumbers(Record):
    """The cost of all steps of one kind; memory is the largest of them."""

    kind: str
    num_steps: int
    wall_s: float
    tokens: int | None
    peak_memory_mib: float


class LeakNumbers(Record):
    """What a study would claim whose reward model was fitted on the very users it rewards.

    best_less_mean: of the reward users' untuned completions, by that reward model.
    honest_best_less_mean: the same by the run's own reward models, without cross-fitting.
    claimed: trained minus untuned on reward users, by that reward model.
    """

    metric: str
    best_less_mean: Moments
    honest_best_less_mean: Moments
    claimed: Moments


class Example(Record):
    """The completions about one user of a simulated log, by variant."""

    completions: dict[str, str]


class RunNumbers(Record):
    """All numbers of one study run. config: as run, with paths relative to the folder of data sets."""

    run: str
    study: str
    setting: str
    fold: int
    config: dict[str, Any]
    dataset: str
    num_users: int
    num_items: int
    groups: dict[str, tuple[int, int]] = Field(description="by group: users with lists, and lists")
    tables: tuple[TableNumbers, ...]
    reliability: tuple[ReliabilityNumbers, ...]
    predicted: tuple[PredictedNumbers, ...] = ()
    predicted_by_source: dict[str, Moments] = Field(
        default={},
        description="by variant: the reward predicted for test users' completions from the rewards of the source "
        "run, minus the same for its untuned model",
    )
    rewards: tuple[RewardNumbers, ...]
    writing: tuple[WritingNumbers, ...]
    writing_changes: tuple[WritingChange, ...]
    leakage: LeakNumbers | None
    costs: tuple[CostNumbers, ...]
    reused_from: str | None = Field(description="the source run, whose reused results are not in costs")
    examples: tuple[Example, ...]
    versions: dict[str, str]
    lm_digest: str = Field(description="SHA-256 of the untuned language model's weights")

    @model_validator(mode="after")
    def _texts_only_of_simulated(self) -> RunNumbers:
        if self.examples and self.config["data"]["name"] != "simulated":
            raise DataError(
                f"examples may come from simulated data only, got {len(self.examples)} of {self.dataset}; "
                f"leave them out"
            )
        return self

    def table(self, ranker: str, group: str = "test") -> TableNumbers | None:
        """The table of this kind of evaluation reranker."""
        return next((t for t in self.tables if (t.ranker, t.group) == (ranker, group)), None)

    @property
    def wall_s(self) -> float:
        """Time of all steps."""
        return sum(cost.wall_s for cost in self.costs)


def write_numbers(file: Path, numbers: RunNumbers) -> None:
    """Write a run's file; equal numbers give equal bytes."""
    atomic_write_text(file, json.dumps(_rounded(numbers.model_dump(mode="json")), indent=1) + "\n")


def read_numbers(file: Path) -> RunNumbers:
    """What `write_numbers` wrote.

    Raises:
        DataError: the file is something else.
    """
    try:
        return RunNumbers.model_validate_json(file.read_text(encoding="utf-8"))
    except ValidationError as error:
        raise DataError(
            f"{file} must hold the numbers of a study run, got something else "
            f"({'; '.join(str(error).splitlines()[1:3])}); remove it and do the run again"
        ) from error


def _rounded(value: Any) -> Any:
    """Floats to ten significant digits: enough for every table, and half the file."""
    if isinstance(value, float):
        return float(f"{value:.10g}")
    if isinstance(value, dict):
        return {str(key): _rounded(inner) for key, inner in value.items()}
    return [_rounded(inner) for inner in value] if isinstance(value, list) else value
