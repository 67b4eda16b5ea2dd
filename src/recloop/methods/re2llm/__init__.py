"""Re2LLM (arXiv 2403.16427): a frozen language model reflects on its mistakes; a policy learns which hint to give."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from recloop.methods.method import Method
from recloop.methods.re2llm.config import Re2llmConfig, quick_overrides

if TYPE_CHECKING:
    from recloop.experiment.run_folder import RunFolder
    from recloop.experiment.step import StepKind
    from recloop.methods.study import Study
    from recloop.progress import Progress


def _open(config: Re2llmConfig, run: RunFolder, progress: Progress, until: str | None, **objects: Any) -> Study:
    from recloop.methods.re2llm.hint_base import read_hint_base
    from recloop.methods.study import open_study, own_parts

    if config.explore.file is not None:
        read_hint_base(config.explore.file)  # a file of no hints is refused before any step
    return open_study(config, run, progress, until, own_parts("re2llm", objects, "log", "lm", "encoder"))


def _recipe(study: Study) -> None:
    from recloop.methods.re2llm.recipe import re2llm

    re2llm(study)


def _steps() -> Sequence[StepKind]:
    from recloop.methods.re2llm.steps import STEPS

    return STEPS


def _forecast(config: Re2llmConfig) -> str:
    from recloop.methods.re2llm.cost_estimate import forecast

    return forecast(config)


def _ask(run: RunFolder, config: Re2llmConfig, question: str, **options: Any) -> str:
    from recloop.methods.re2llm.predict import recommend

    return recommend(run, config, question, **options)


METHOD = Method("re2llm", Re2llmConfig, _recipe, _steps, _open, _forecast, quick_overrides, _ask)
