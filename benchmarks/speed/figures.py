"""Records of a speed measurement: the figures, growth curves and profiles of a part."""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

PartName = Literal[
    "metrics",
    "training",
    "rewards",
    "sampling",
    "encoding",
    "dpo",
    "smollm2",
    "reading",
    "large-log",
    "many-users",
    "serving",
    "commands",
    "threads",
]
ALL_PARTS: tuple[PartName, ...] = get_args(PartName)
# Without what wants a model fetched, and what takes half an hour.
USUAL_PARTS: tuple[PartName, ...] = tuple(part for part in ALL_PARTS if part not in ("smollm2", "many-users"))
FOLDER = "benchmarks"  # inside the output folder, beside the page


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Side(_Record):
    """The repetitions of one of the two compared implementations.

    amount: work of one repetition, in the figure's unit.
    wall_s: seconds of each repetition.
    """

    name: str
    amount: float = Field(gt=0)
    wall_s: tuple[float, ...] = Field(min_length=1)

    @property
    def rates(self) -> np.ndarray:
        """Units of work per second, by repetition."""
        return self.amount / np.asarray(self.wall_s)


class Check(_Record):
    """A check that both give the same: `value` may be at most `most`."""

    what: str
    value: float
    most: float

    @property
    def holds(self) -> bool:
        return self.value <= self.most


class Target(_Record):
    """The limit that a figure should meet, and its value."""

    what: str
    wanted: Literal["at least", "at most"]
    limit: float
    value: float
    unit: str = ""

    @property
    def is_met(self) -> bool:
        return self.value >= self.limit if self.wanted == "at least" else self.value <= self.limit


class Products(_Record):
    """Counted floating-point operations of the matrix products in one unit of work."""

    ours: float = Field(gt=0)
    against: float = Field(gt=0)


class Figure(_Record):
    """One line of the table: ours, the alternative, what must be equal, what should be met.

    unit: plural noun of the work, e.g. ``lists``.
    against: None where there is nothing to compare with.
    notes: what a reader must know before quoting the figure.
    products: None where they were not counted.
    """

    name: str
    unit: str
    ours: Side
    against: Side | None = None
    checks: tuple[Check, ...] = ()
    targets: tuple[Target, ...] = ()
    notes: tuple[str, ...] = ()
    products: Products | None = None

    @property
    def ratios(self) -> np.ndarray | None:
        """How many times faster ours was, by repetition; the two take turns."""
        return None if self.against is None else self.ours.rates / self.against.rates

    def with_ratio_target(self, at_least: float) -> Figure:
        """The same figure with a target for the median ratio."""
        assert self.ratios is not None
        value = float(np.median(self.ratios))
        target = Target(what="ratio", wanted="at least", limit=at_least, value=value)
        return self.model_copy(update={"targets": (target, *self.targets)})


class Line(_Record):
    """One curve of a growth plot."""

    name: str
    x: tuple[float, ...] = Field(min_length=1)
    y: tuple[float, ...] = Field(min_length=1)


class Growth(_Record):
    """How a cost grows: lines over shared axes, which the plot shows as logarithms."""

    title: str
    x_label: str
    y_label: str
    lines: tuple[Line, ...] = Field(min_length=1)


class Profile(_Record):
    """Where the time of a code path goes, and how close it is to the machine's limit.

    rows: operation, its own milliseconds, its share of the total; largest first.
    gflops: floating-point operations of all matrix products per second; None where they were not counted.
    """

    path: str
    rows: tuple[tuple[str, float, float], ...]
    gflops: float | None = None


class Machine(_Record):
    """Where a part was measured.

    matmul_gflops, copy_gb_s: the machine's limits just before the part, with the threads of the part.
    load: mean number of running processes in the minute before.
    """

    processor: str
    cores: int
    threads: int
    memory_gb: float
    load: float | None
    matmul_gflops: float
    copy_gb_s: float
    environment: dict[str, str]
    versions: dict[str, str]


class Findings(_Record):
    """What measuring one part found. `bound` says what keeps the code from being faster."""

    figures: tuple[Figure, ...]
    growths: tuple[Growth, ...] = ()
    profiles: tuple[Profile, ...] = ()
    bound: str = ""


class PartResult(_Record):
    """One part's file.

    share: of the full amount of work; below 1 it was a trial.
    """

    part: PartName
    taken: str
    wall_s: float
    repetitions: int
    share: float
    machine: Machine
    findings: Findings
