"""ReRec (arXiv 2604.07851): requests in words; a language model reinforced by how good its pick was."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from recloop.methods.method import Method
from recloop.methods.rerec.config import ReRecConfig, quick_overrides

if TYPE_CHECKING:
    from recloop.experiment.run_folder import RunFolder
    from recloop.experiment.step import StepKind
    from recloop.methods.rerec.data import RequestStudy
    from recloop.progress import Progress


def _open(config: ReRecConfig, run: RunFolder, progress: Progress, until: str | None, **objects: Any) -> RequestStudy:
    from recloop.methods.rerec.data import open_study
    from recloop.methods.study import own_parts

    return open_study(config, run, progress, until, own_parts("rerec", objects, "log").log)


def _recipe(study: RequestStudy) -> None:
    from recloop.methods.rerec.recipe import rerec

    rerec(study)


def _steps() -> Sequence[StepKind]:
    from recloop.methods.rerec.steps import STEPS

    return STEPS


def _forecast(config: ReRecConfig) -> str:
    from recloop.methods.rerec.cost_estimate import forecast

    return forecast(config)


def _ask(run: RunFolder, config: ReRecConfig, question: str, **options: Any) -> str:
    from recloop.methods.rerec.predict import ask_run

    return ask_run(run, config, question, options.get("user"))


METHOD = Method("rerec", ReRecConfig, _recipe, _steps, _open, _forecast, quick_overrides, _ask)
