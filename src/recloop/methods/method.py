"""A method: a record that says how it is configured, run, planned and asked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from inspect import Parameter, signature
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from pydantic import BaseModel

from recloop.errors import SettingError
from recloop.experiment.run_folder import RunFolder
from recloop.experiment.step import StepKind, StepReached, Steps, require_command
from recloop.methods.trackers import trackers_named
from recloop.methods.tracking import reported
from recloop.progress import SILENT, Progress


def open_steps(config: BaseModel, run: RunFolder, progress: Progress, until: str | None) -> Steps:  # noqa: ARG001
    """Steps alone, for a method that takes no objects; its settings are ``study.run.config``."""
    return Steps(run, progress, until)


@dataclass(frozen=True, slots=True)
class Method:
    """What `recloop.run` and the command line need to know of a method.

    A method of your own is such a record, passed to `recloop.run`. A method of recloop is a folder of this room whose
    ``__init__.py`` holds one as ``METHOD``, and a line in `recloop.methods.registry`.

    name: as on the command line and in a run's manifest.
    config: the class of its settings.
    recipe: the algorithm, step by step; it is given what `open_study` gives.
    steps: the kinds of its steps, in their order. From them follow the commands that stop after a step, and what of
        another run can be reused.
    open_study: (config, run, progress, until, **objects) -> what the recipe works on. It derives from `Steps`; the
        objects are those that a user passes in place of what a name would pick, e.g. ``lm`` or ``reranker``.
    forecast: config -> the plan that ``--dry-run`` prints; None where there is none. One that has a parameter ``log``
        is handed the log, where it was read.
    quick: config -> what ``--quick`` sets, as typed; None where the defaults are small already.
    ask: (run, config, question, **options) -> an answer by what a finished run left; None where it answers none. An
        option that it does not name is refused.
    """

    name: str
    config: type[BaseModel]
    recipe: Callable[[Any], None]
    steps: Sequence[StepKind]
    open_study: Callable[..., Steps] = open_steps
    forecast: Callable[..., str] | None = None
    quick: Callable[[Any], list[tuple[str, str]]] | None = None
    ask: Callable[..., str] | None = None


def run_method(
    method: Method, config: BaseModel, run: RunFolder, progress: Progress, until: str | None = None,
    report_to: str | Sequence[str] | None = None, **objects: Any,
) -> str | None:  # fmt: skip
    """Do a run, or go on with it; which step was reached, where it stops before its end.

    Args:
        until: the command after whose first step it stops, SettingError if there is none; None for the whole run.
        report_to: trackers, as `trackers_named` takes them; None for those that the run was sent to before.
        objects: see `Method.open_study`.
    """
    require_command(method.name, method.steps, until)
    if until == "preflight" and getattr(config, "preflight", "") == "off":
        raise SettingError("preflight must not be off for a run until preflight, got off; leave the setting out")
    trackers = trackers_named(report_to)
    study = method.open_study(config, run, progress, until, **objects)
    try:
        with reported(run, trackers, progress):
            method.recipe(study)
    except StepReached as reached:
        return f"{reached} is done; go on with: recloop resume {run.path}"
    return None


def prompts_of(method: Method, config: BaseModel) -> str:
    """The prompts of a run with this configuration, in words; they are made in a folder that is removed."""
    with TemporaryDirectory() as folder, RunFolder.open(Path(folder) / "run", config.model_dump(mode="json")) as run:
        try:
            method.recipe(method.open_study(config, run, SILENT, "prompts"))
        except StepReached as reached:
            return str(reached)
    raise SettingError(f"{method.name} shows no prompts; use one of the methods dpo4rec, rerec, re2llm")


def ask_method(method: Method, config: BaseModel, run: RunFolder, question: str, **options: str) -> str:
    """What a finished run answers; SettingError for a method that answers nothing, or does not take an option."""
    if method.ask is None:
        raise SettingError(
            f"a run of {method.name} answers no questions; ask one of rerec or re2llm, or use one of dpo4rec by "
            f"recloop serve or recloop score"
        )
    taken = signature(method.ask).parameters.values()
    for name, value in options.items():
        if not any(one.name == name or one.kind is Parameter.VAR_KEYWORD for one in taken):
            raise SettingError(f"a run of {method.name} is asked without --{name}, got {value!r}; leave it out")
    return method.ask(run, config, question, **options)


def quick_settings(method: Method, config: BaseModel) -> list[tuple[str, str]]:
    """What ``--quick`` sets, as typed; SettingError for a method whose default is small already."""
    if method.quick is None:
        raise SettingError(f"--quick is not for {method.name}; its default is small already: leave it out")
    return method.quick(config)
