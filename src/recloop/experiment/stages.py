"""Being replaced by `recloop.experiment.step`."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from recloop.experiment.run_folder import RunStep
from recloop.experiment.step import StepKind, Steps, go_through

__all__ = ["Staged", "go_through"]


@dataclass(frozen=True, slots=True)
class Staged(Steps):
    """Steps by their verbs alone."""

    @contextmanager
    def stage(self, verb: str, key: str, inputs: Mapping[str, Any], folder: str | None = None) -> Generator[RunStep]:
        """`Steps.step` of a kind that is never reused."""
        with self.step(StepKind(verb), key, inputs, folder) as step:
            yield step
