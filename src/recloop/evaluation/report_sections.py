"""What a report shows: plain records, filled by a method, drawn by `recloop.evaluation.report`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Literal

from recloop.errors import DataError

if TYPE_CHECKING:
    from recloop.evaluation.significance import Comparison
    from recloop.records import Rewards
    from recloop.rewards.preference_pairs import PairSet
    from recloop.rewards.reliability import Reliability


class VariantKind(StrEnum):
    """Under which heading a row stands; the value is the heading."""

    WITHOUT_LM = "Without a language model"
    CONTROL = "Controls: what a real gain has to beat"
    METHOD = "Texts of the language model"
    BOUND = "Upper bound"
    REWARD_MODEL = "Seen by the reward model that gave the rewards"


@dataclass(frozen=True, slots=True)
class VariantLabel:
    """How a row is called and, in one sentence for a stranger, what it is."""

    title: str
    sentence: str
    kind: VariantKind


@dataclass(frozen=True, slots=True)
class TableSection:
    """One main table.

    main: the metric that is tested; its first three contrasts are the report's primary metric.
    others: the same rows by other metrics, shown without tests.
    reference: the row a faint line in the plot stands at.
    unit: what a mean is taken over and differences are taken by; other units than users have one list each.
    """

    title: str
    main: Comparison
    others: tuple[Comparison, ...]
    reference: str
    unit: str = "user"


@dataclass(frozen=True, slots=True)
class Curve:
    """One line of a chart: at least one point, all of them finite."""

    name: str
    x: tuple[float, ...]
    y: tuple[float, ...]

    def __post_init__(self) -> None:
        if not self.x or len(self.x) != len(self.y) or not all(map(math.isfinite, (*self.x, *self.y))):
            raise DataError(
                f"a curve needs as many finite y as x and at least one, got {len(self.x)} x and "
                f"{len(self.y)} y for {self.name!r}; leave out steps that logged nothing"
            )


@dataclass(frozen=True, slots=True)
class Chart:
    """Lines, at least one, that share their axes."""

    title: str
    x_label: str
    y_label: str
    curves: tuple[Curve, ...]

    def __post_init__(self) -> None:
        if not self.curves:
            raise DataError(f"chart {self.title!r} needs at least one curve, got none; leave the chart out")


@dataclass(frozen=True, slots=True)
class RewardSection:
    """The feedback of one round: rewards, how reliable what was earned is, and the pairs made of them.

    is_predicted: the rewards are what completions are predicted to earn from other users' (`cross_fit_rewards`).
    """

    rewards: Rewards
    reliability: Reliability
    pairs: PairSet
    is_predicted: bool = False


@dataclass(frozen=True, slots=True)
class CompletionView:
    """One completion as it was written, and what it earned."""

    text: str
    reward: float
    mark: Literal["chosen", "rejected", ""]


@dataclass(frozen=True, slots=True)
class UserView:
    """One reward user: what the language model was shown and what it wrote. Items are oldest first."""

    user: str
    history: tuple[tuple[str, float | None], ...]  # title, stars (None when implicit)
    metric: str
    completions: tuple[CompletionView, ...]
    is_predicted: bool = False  # as of RewardSection


@dataclass(frozen=True, slots=True)
class RankedItem:
    """One candidate; ranks count from 1."""

    title: str
    is_positive: bool
    before: int
    after: int


@dataclass(frozen=True, slots=True)
class ListView:
    """One test list as two rows of the table rank it."""

    user: str
    before: str  # names of rows
    after: str
    metric: str
    before_value: float
    after_value: float
    items: tuple[RankedItem, ...]


@dataclass(frozen=True, slots=True)
class StageCost:
    """What a stage of the run took; None where it does not apply."""

    stage: str
    wall_s: float
    num_tokens: int | None
    peak_memory_mib: float | None


@dataclass(frozen=True, slots=True)
class PlainTable:
    """A small table as text: a heading per column, cells by row."""

    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True, slots=True)
class ExtraSection:
    """A section that only one method has. reference model: names it in links."""

    reference_lm: str
    title: str
    note: str
    tables: tuple[PlainTable, ...]
    charts: tuple[Chart, ...] = ()


@dataclass(frozen=True, slots=True)
class ReportData:
    """Everything a report shows. Empty tuples leave their section out.

    words: for every row of every table, by name.
    facts: label and value, e.g. ``("Data", "MovieLens-1M, 6,040 users")``.
    users: examples at the quartiles of the gap between a user's best and worst completion; the page says so.
    lists: examples at the quartiles of the change, among lists that changed; the page says so.
    """

    title: str
    summary: str
    facts: tuple[tuple[str, str], ...]
    words: Mapping[str, VariantLabel]
    tables: tuple[TableSection, ...]
    fits: tuple[Chart, ...]
    rewards: tuple[RewardSection, ...]
    training: tuple[Chart, ...]
    users: tuple[UserView, ...]
    lists: tuple[ListView, ...]
    costs: tuple[StageCost, ...]
    versions: tuple[tuple[str, str], ...]
    extras: tuple[ExtraSection, ...] = ()
