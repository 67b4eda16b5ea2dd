"""What is fuzzed: kinds of targets, and one case of a kind."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

Case = Callable[[random.Random, Path], Callable[[], None]]
"""Writes an input into a folder, drawn by the generator; returns what hands it over, and checks what came out."""


class Wrong(AssertionError):
    """What came out is not what the input says."""


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of target.

    number: of cases in a full count.
    make: called once; its result makes each case.
    """

    name: str
    number: int
    make: Callable[[Path], Case]


def require(holds: bool, what: str) -> None:
    """`Wrong` with this message, unless it holds."""
    if not holds:
        raise Wrong(what)
