"""What a unit leaves: numbers only. No text, no user, no item, no value of an attribute of a real log."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from recloop.errors import DataError
from recloop.files import atomic_write_text
from studies.evidence.moments import Moments


class Record(BaseModel):
    """A record that is JSON."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class RowNumbers(Record):
    """One row of a table: moments over users, by metric."""

    name: str
    values: dict[str, Moments]


class ContrastNumbers(Record):
    """`name` minus `against`, user by user.

    p, low, high: by metric, of this unit alone: its sign-flip test and its 95% bootstrap interval.
    """

    name: str
    against: str
    values: dict[str, Moments]
    p: dict[str, float]
    low: dict[str, float]
    high: dict[str, float]


class TableNumbers(Record):
    """Rows under one kind of evaluator, scored on the lists of one group of users.

    group: ``test`` or ``valid``.
    """

    ranker: str
    group: str
    num_users: int
    num_lists: int
    rows: tuple[RowNumbers, ...]
    contrasts: tuple[ContrastNumbers, ...]

    def row(self, name: str) -> RowNumbers | None:
        """The row of this name."""
        return next((row for row in self.rows if row.name == name), None)

    def contrast(self, name: str, against: str) -> ContrastNumbers | None:
        """The contrast of these rows."""
        return next((c for c in self.contrasts if (c.name, c.against) == (name, against)), None)


class ReliabilityNumbers(Record):
    """Split-half reliability of one kind of reward.

    num_lists: only users with this many lists, and of each the first so many; None: all lists of all users
        with two or more.
    """

    metric: str
    num_lists: int | None
    reliability: float
    low: float
    high: float
    num_users: int


class PredictedNumbers(Record):
    """How much of one kind of reward other users' completions predicts: the part that a prompt can teach.

    explained: share of the variance of completions about their user's mean.
    gained: what the completion that is predicted to be a user's best earned, over the user's mean.
    reached: what test users' completions by each row's language model are predicted to earn, over the untuned
        model's; only of the reward that the run paid.
    """

    metric: str
    explained: float
    gained: Moments
    reached: dict[str, Moments]


class RewardNumbers(Record):
    """The feedback of one round. best_less_mean: a user's best completion over the mean of their completions."""

    round: int
    metric: str
    best_less_mean: Moments
    pairs: dict[str, int]


class WritingNumbers(Record):
    """What one language model writes about test users; shares in [0, 1], None where nothing could be counted.

    skill: the measures of `recloop.evaluation.text_quality`.
    attribute_of_claims: share of all claims that speak of the attribute.
    attribute_of_completions: share of completions that claim something of the attribute.
    surprisal: nats per token of the model's own completions, at temperature 1: its entropy rate.
    """

    row: str
    num_completions: int
    skill: dict[str, float | None]
    attribute_of_claims: dict[str, float]
    attribute_of_completions: dict[str, float]
    surprisal: float | None


class WritingChange(Record):
    """Trained less untuned, of each user's own share; users without a claim on either side are left out."""

    measure: str
    change: Moments


class CostNumbers(Record):
    """One kind of stage, all of its stages together; memory is the largest."""

    verb: str
    num_stages: int
    wall_s: float
    tokens: int | None
    peak_memory_mib: float


class LeakNumbers(Record):
    """What a reward model that was fitted on the very users it rewards would have claimed.

    best_less_mean: of the reward users' untuned completions, as that reward model sees it.
    honest_best_less_mean: the same as the run's own reward models see it, earned and not predicted, as there.
    claimed: trained less untuned of reward users, as that reward model sees it.
    """

    metric: str
    best_less_mean: Moments
    honest_best_less_mean: Moments
    claimed: Moments


class Example(Record):
    """Completions of one user of a simulated data, by row."""

    completions: dict[str, str]


class UnitResult(Record):
    """One unit. config: as run, with paths relative to the folder of data sets."""

    unit: str
    study: str
    variant: str
    panel: int
    config: dict[str, Any]
    dataset: str
    num_users: int
    num_items: int
    groups: dict[str, tuple[int, int]] = Field(description="users with lists, and lists, by group")
    tables: tuple[TableNumbers, ...]
    reliability: tuple[ReliabilityNumbers, ...]
    predicted: tuple[PredictedNumbers, ...] = ()
    predicted_by_source: dict[str, Moments] = Field(
        default={},
        description="by row: what completions about test users are predicted to earn by the feedback of the run "
        "that things were taken from, over that run's untuned model",
    )
    rewards: tuple[RewardNumbers, ...]
    writing: tuple[WritingNumbers, ...]
    writing_changes: tuple[WritingChange, ...]
    leakage: LeakNumbers | None
    costs: tuple[CostNumbers, ...]
    reused_from: str | None = Field(description="unit from whose run things were taken; not in costs")
    examples: tuple[Example, ...]
    versions: dict[str, str]
    lm_digest: str = Field(description="SHA-256 of the untuned language model's weights")

    @model_validator(mode="after")
    def _texts_only_of_simulated(self) -> UnitResult:
        if self.examples and self.config["data"]["name"] != "simulated":
            raise DataError(
                f"texts are kept of simulated data only, got {len(self.examples)} examples of "
                f"{self.dataset}; leave them out"
            )
        return self

    def table(self, ranker: str, group: str = "test") -> TableNumbers | None:
        """The table of this kind of evaluator."""
        return next((t for t in self.tables if (t.ranker, t.group) == (ranker, group)), None)

    @property
    def wall_s(self) -> float:
        """Of all stages."""
        return sum(cost.wall_s for cost in self.costs)


def write_unit(file: Path, result: UnitResult) -> None:
    """The unit's file, small and the same for the same numbers."""
    atomic_write_text(file, json.dumps(_rounded(result.model_dump(mode="json")), indent=1) + "\n")


def read_unit(file: Path) -> UnitResult:
    """What `write_unit` wrote.

    Raises:
        DataError: the file is something else.
    """
    try:
        return UnitResult.model_validate_json(file.read_text(encoding="utf-8"))
    except ValidationError as error:
        raise DataError(
            f"{file} must hold a unit of the quality bench, got something else "
            f"({'; '.join(str(error).splitlines()[1:3])}); remove it and do the unit again"
        ) from error


def _rounded(value: Any) -> Any:
    """Floats to ten significant digits: enough for every table, and half the file."""
    if isinstance(value, float):
        return float(f"{value:.10g}")
    if isinstance(value, dict):
        return {str(key): _rounded(inner) for key, inner in value.items()}
    return [_rounded(inner) for inner in value] if isinstance(value, list) else value
