"""How a stage of a method begins and ends, and how a run does."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from recloop.experiment.reuse import reuse_stage
from recloop.experiment.run_folder import RunFolder, Stage
from recloop.progress import Progress


class StageReached(Exception):
    """The stage the user asked for is done. Ends a method; never reaches the user."""


@dataclass(frozen=True, slots=True)
class Staged:
    """A run that goes stage by stage.

    run: where everything is kept; a stage found done there is not done again.
    until: the verb after whose first stage the run stops; None to go to the end.
    """

    run: RunFolder
    progress: Progress
    until: str | None

    @contextmanager
    def stage(self, verb: str, key: str, inputs: Mapping[str, Any], folder: str | None = None) -> Generator[Stage]:
        """`RunFolder.stage` named ``verb.key``; raises StageReached at its end if `verb` was asked for."""
        name = f"{verb}.{key}" if key else verb
        reuse_stage(self.run, name, inputs, self.progress)
        with self.run.stage(name, inputs, folder) as stage:
            yield stage
        if verb == self.until:
            raise StageReached(stage.name)


def go_through(method: Callable[[], None], run: RunFolder) -> str | None:
    """Do a method's stages; says which one was reached where the run stops before its end."""
    try:
        method()
    except StageReached as reached:
        return f"{reached} is done; go on with: recloop resume {run.path}"
    return None
