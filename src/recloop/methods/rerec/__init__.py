"""ReRec (arXiv 2604.07851): requests in words; a language model reinforced by how good its pick was."""

from __future__ import annotations

from typing import Any

from recloop.experiment.run_folder import RunFolder
from recloop.methods.method import Method
from recloop.methods.rerec.config import ReRecConfig, quick_overrides
from recloop.methods.rerec.cost_estimate import forecast
from recloop.methods.rerec.data import RequestStudy, open_study
from recloop.methods.rerec.predict import ask_run
from recloop.methods.rerec.recipe import STEPS, rerec
from recloop.methods.study import own_parts
from recloop.progress import Progress


def _open(config: ReRecConfig, run: RunFolder, progress: Progress, until: str | None, **objects: Any) -> RequestStudy:
    return open_study(config, run, progress, until, own_parts("rerec", objects, "log").log)


METHOD = Method("rerec", ReRecConfig, rerec, STEPS, _open, forecast, quick_overrides, ask_run)
