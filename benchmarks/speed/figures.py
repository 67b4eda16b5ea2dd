"""What a speed measurement leaves: figures, growth curves and profiles of a part, as records."""

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
    "reading",
    "large-log",
    "serving",
    "commands",
    "threads",
]
ALL_PARTS: tuple[PartName, ...] = get_args(PartName)
FOLDER = "benchmarks"  # inside the output folder; the page lies beside it


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Side(_Record):
    """One contestant's repetitions.

    amount: how much work one repetition is, in the figure's unit.
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
    """A claim of equality: `value` may be at most `most`."""

    what: str
    value: float
    most: float

    @property
    def holds(self) -> bool:
        return self.value <= self.most


class Target(_Record):
    """What was wanted of a figure, and what was found."""

    what: str
    wanted: Literal["at least", "at most"]
    limit: float
    value: float
    unit: str = ""

    @property
    def is_met(self) -> bool:
        return self.value >= self.limit if self.wanted == "at least" else self.value <= self.limit


class Products(_Record):
    """Floating-point operations of the matrix products in one unit of work, as counted."""

    ours: float = Field(gt=0)
    against: float = Field(gt=0)


class Figure(_Record):
    """One line of the table: ours, the alternative, what must be equal, what was wanted.

    unit: plural noun of the work, e.g. ``lists``.
    against: None where there is nothing to compare with.
    notes: anything a reader must know before quoting the figure.
    products: what neither contestant can do without; None where it was not counted.
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
        """How many times faster ours was, by repetition: each was taken beside its own."""
        return None if self.against is None else self.ours.rates / self.against.rates


class Line(_Record):
    """One curve of a growth plot."""

    name: str
    x: tuple[float, ...] = Field(min_length=1)
    y: tuple[float, ...] = Field(min_length=1)


class Growth(_Record):
    """How a cost grows: lines over shared axes; both axes are logarithms in the plot."""

    title: str
    x_label: str
    y_label: str
    lines: tuple[Line, ...] = Field(min_length=1)


class Profile(_Record):
    """Where a path's time goes, and how near it is to what the machine can do.

    rows: what, milliseconds of its own, share of the total; largest first.
    gflops: floating-point operations of all matrix products per second; None where they were not counted.
    """

    path: str
    rows: tuple[tuple[str, float, float], ...]
    gflops: float | None = None


class Machine(_Record):
    """Where a part was measured.

    matmul_gflops, copy_gb_s: the most this machine gave just then, with the threads of the part.
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
    """What measuring one part found. `bound` says in words what keeps the path from being faster."""

    figures: tuple[Figure, ...]
    growths: tuple[Growth, ...] = ()
    profiles: tuple[Profile, ...] = ()
    bound: str = ""


class PartResult(_Record):
    """One part's file.

    share: of the full amounts of work; below 1 it was a trial.
    """

    part: PartName
    taken: str
    wall_s: float
    repetitions: int
    share: float
    machine: Machine
    findings: Findings
