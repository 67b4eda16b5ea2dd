"""Steps: what a kind of step reads is declared once, and resume, reuse and "stop after" follow from it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recloop.errors import SettingError
from recloop.experiment.manifest import CONFIG, changed_files, differing_keys, read_object, versions
from recloop.experiment.reuse import reuse_step, settings_read
from recloop.experiment.run_folder import RunFolder, RunStep
from recloop.progress import Progress


@dataclass(frozen=True, slots=True)
class StepKind:
    """One kind of step, declared beside the function that does it.

    verb: how the names of its steps begin; with `is_command`, ``recloop VERB`` stops after the first of them.
    reads: the settings, dotted, that decide its result beyond its inputs. None: it is done again in every run.
    part: of the verb's steps those whose names go on with this word, e.g. ``untuned`` of ``sample.untuned.s0``.
    is_cheap: it only puts together what other steps left. It is done again where these or its files changed.
    """

    verb: str
    reads: tuple[str, ...] | None = None
    part: str = ""
    is_command: bool = True
    is_cheap: bool = False

    @property
    def label(self) -> str:
        """``sample.untuned``: what plans and messages call it."""
        return f"{self.verb}.{self.part}" if self.part else self.verb

    def named(self, key: str) -> str:
        """The name of its step with this key, unique in a run."""
        return f"{self.verb}.{key}" if key else self.verb


class StepReached(Exception):
    """The step the user asked for is done. Ends a method; never reaches the user."""


@dataclass(frozen=True, slots=True)
class Steps:
    """A run that goes step by step. What methods are handed derives from it.

    run: where everything is kept; a step found done there is not done again.
    until: the verb after whose first step the run stops; None to go to the end.
    """

    run: RunFolder
    progress: Progress
    until: str | None

    @contextmanager
    def step(
        self, kind: StepKind, key: str, inputs: Mapping[str, Any], folder: str | None = None
    ) -> Generator[RunStep]:
        """Do a step, find it done, or take it from the run that is reused; see `RunFolder.step`.

        Args:
            key: tells it from the other steps of its kind, e.g. ``r0.s1``.
            inputs: what it is made from: digests of earlier steps, of weights, of the log.
            folder: where its files go, relative to the run folder; None for ``steps/NAME``.

        Raises:
            StepReached: at its end, where the run was to stop after this verb.
        """
        name, fingerprint = kind.named(key), self._reuse(kind, key, inputs)
        entry = self.run.manifest["steps"].get(name)
        changed = changed_files(self.run.path, entry) if kind.is_cheap and entry is not None else []
        if kind.is_cheap and entry is not None and entry["inputs"] != inputs:
            changed.append("what it is made from")
        if changed:
            self.progress.say(f"{name} is done again, since these were gone or changed: {', '.join(changed)}")
        with self.run.step(name, inputs, folder, fingerprint, redo=bool(changed)) as step:
            yield step
        if kind.verb == self.until:
            raise StepReached(name)

    def is_done(self, kind: StepKind, key: str, inputs: Mapping[str, Any]) -> bool:
        """Whether `step` would find it done, or take it from the run that is reused."""
        self._reuse(kind, key, inputs)
        return self.run.is_done(kind.named(key))

    def _reuse(self, kind: StepKind, key: str, inputs: Mapping[str, Any]) -> str:
        """Take the step from the run that is reused, where it has it; the step's fingerprint."""
        if kind.reads is None:
            return ""
        fingerprint = self.fingerprint(kind, inputs)
        reuse_step(self.run, kind.named(key), kind.reads, fingerprint, self.progress)
        return fingerprint

    def fingerprint(self, kind: StepKind, inputs: Mapping[str, Any]) -> str:
        """SHA-256 of what decides the result of a step of this kind in this run."""
        return fingerprint_of(settings_read(self.run.config, kind.reads or ()), inputs)


def fingerprint_of(settings: Mapping[str, Any], inputs: Mapping[str, Any]) -> str:
    """SHA-256 of all that decides a step's result: settings, inputs and the versions of what computes it."""
    parts = [dict(settings), dict(inputs), versions()]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def require_command(method: str, kinds: Sequence[StepKind], until: str | None) -> None:
    """SettingError unless `until` is a verb that a run of the method can stop after, or None."""
    commands = tuple(dict.fromkeys(kind.verb for kind in kinds if kind.is_command))
    if until is not None and until not in commands:
        raise SettingError(f"{method} has no step {until}; use one of its steps, {', '.join(commands)}")


def forecast_of_reuse(kinds: Sequence[StepKind], config: Mapping[str, Any], source: Path) -> str:
    """What a run with this configuration would reuse, as far as settings tell: for ``--dry-run``."""
    theirs = read_object(source / CONFIG)
    changed = {
        kind.label: differing_keys(settings_read(theirs, kind.reads), settings_read(config, kind.reads))
        for kind in kinds
        if kind.reads is not None
    }
    first = kinds[0].label
    if changed[first]:
        return f"nothing will be reused from {source}, since {first} differs: {'; '.join(changed[first])}"
    same = ", ".join(name for name in changed if not changed[name])
    return f"counted, but reused from {source} where inputs are the same: {same}"
