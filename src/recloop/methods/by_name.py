"""The methods by their names on the command line: their settings, their run, their plan."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from recloop.errors import SettingError

if TYPE_CHECKING:
    from pydantic import BaseModel

    from recloop.progress import Progress
    from recloop.runs import RunFolder

METHODS = ("dpo4rec", "re2llm")


def config_model(method: str) -> type[BaseModel]:
    """The settings of a method; SettingError when there is no such method."""
    match method:
        case "dpo4rec":
            from recloop.methods.dpo4rec_config import Dpo4RecConfig

            return Dpo4RecConfig
        case "re2llm":
            from recloop.methods.re2llm_config import Re2llmConfig

            return Re2llmConfig
        case _:
            raise SettingError(f"there is no method {method}; the methods are {', '.join(METHODS)}")


def run_by_name(method: str, config: BaseModel, run: RunFolder, progress: Progress, until: str | None) -> str:
    """Do or continue a run with the settings of its method; how it ended, in words."""
    match method:
        case "re2llm":
            from recloop.methods.re2llm import run as run_re2llm
            from recloop.methods.re2llm_config import Re2llmConfig

            assert isinstance(config, Re2llmConfig)
            return run_re2llm(config, run, progress, until)
        case _:
            from recloop.methods.dpo4rec import run as run_dpo4rec
            from recloop.methods.dpo4rec_config import Dpo4RecConfig

            assert isinstance(config, Dpo4RecConfig)
            return run_dpo4rec(config, run, progress, until)


def forecast_by_name(method: str, config: BaseModel) -> str:
    """The plan of a run with the settings of its method."""
    match method:
        case "re2llm":
            from recloop.methods.re2llm_config import Re2llmConfig
            from recloop.methods.re2llm_plan import forecast as forecast_re2llm

            assert isinstance(config, Re2llmConfig)
            return forecast_re2llm(config)
        case _:
            from recloop.methods.dpo4rec_config import Dpo4RecConfig
            from recloop.methods.plan import forecast

            assert isinstance(config, Dpo4RecConfig)
            return forecast(config)


def quick_settings(method: str, config: BaseModel) -> list[tuple[str, str]]:
    """What ``--quick`` sets, as typed; SettingError for a method that has no quick form."""
    if method != "re2llm":
        raise SettingError(f"--quick is for re2llm, got it for {method}; its default is small already")
    from recloop.methods.re2llm_config import Re2llmConfig, quick_overrides

    assert isinstance(config, Re2llmConfig)
    return quick_overrides(config)


def recommend_from(folder: Path, session: str, candidates: str) -> str:
    """What a finished Re2LLM run recommends after a session."""
    from recloop.runs import RunFolder

    with RunFolder.reopen(folder) as run:
        if run.manifest["method"] != "re2llm":
            raise SettingError(
                f"ask wants a run of re2llm, got one of {run.manifest['method']}; name another"
            )
        from recloop.methods.re2llm_config import Re2llmConfig
        from recloop.methods.recommending import recommend

        return recommend(Re2llmConfig.model_validate(run.config), run, session, candidates)
