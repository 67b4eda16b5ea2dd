"""Re2LLM (arXiv 2403.16427): a frozen language model reflects on its mistakes; a policy learns which hint to give."""

from __future__ import annotations

from typing import Any

from recloop.experiment.run_folder import RunFolder
from recloop.methods.method import Method
from recloop.methods.re2llm.config import Re2llmConfig, quick_overrides
from recloop.methods.re2llm.cost_estimate import forecast
from recloop.methods.re2llm.hint_base import read_hint_base
from recloop.methods.re2llm.predict import recommend
from recloop.methods.re2llm.recipe import STEPS, re2llm
from recloop.methods.study import Study, open_study, own_parts
from recloop.progress import Progress


def _open(config: Re2llmConfig, run: RunFolder, progress: Progress, until: str | None, **objects: Any) -> Study:
    if config.explore.file is not None:
        read_hint_base(config.explore.file)  # a file of no hints is refused before any step
    return open_study(config, run, progress, until, own_parts("re2llm", objects, "log", "lm", "encoder"))


METHOD = Method("re2llm", Re2llmConfig, re2llm, STEPS, _open, forecast, quick_overrides, recommend)
