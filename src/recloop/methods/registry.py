"""The methods by their names on the command line: their settings, their run, their plan, their answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from recloop.errors import SettingError

if TYPE_CHECKING:
    from pydantic import BaseModel

    from recloop.experiment.run_folder import RunFolder
    from recloop.progress import Progress

METHODS = ("dpo4rec", "rerec", "re2llm")


def config_model(method: str) -> type[BaseModel]:
    """The settings of a method; SettingError when there is no such method."""
    match method:
        case "dpo4rec":
            from recloop.methods.dpo4rec.config import Dpo4RecConfig

            return Dpo4RecConfig
        case "rerec":
            from recloop.methods.rerec.config import ReRecConfig

            return ReRecConfig
        case "re2llm":
            from recloop.methods.re2llm.config import Re2llmConfig

            return Re2llmConfig
        case _:
            raise SettingError(f"there is no method {method}; the methods are {', '.join(METHODS)}")


def run_by_name(method: str, config: BaseModel, run: RunFolder, progress: Progress, until: str | None) -> str:
    """Do or continue a run with the settings of its method; how it ended, in words."""
    match method:
        case "rerec":
            from recloop.methods.rerec.config import ReRecConfig
            from recloop.methods.rerec.recipe import run as run_rerec

            assert isinstance(config, ReRecConfig)
            return run_rerec(config, run, progress, until)
        case "re2llm":
            from recloop.methods.re2llm.config import Re2llmConfig
            from recloop.methods.re2llm.recipe import run as run_re2llm

            assert isinstance(config, Re2llmConfig)
            return run_re2llm(config, run, progress, until)
        case _:
            from recloop.methods.dpo4rec.config import Dpo4RecConfig
            from recloop.methods.dpo4rec.recipe import run as run_dpo4rec

            assert isinstance(config, Dpo4RecConfig)
            return run_dpo4rec(config, run, progress, until)


def forecast_by_name(method: str, config: BaseModel) -> str:
    """The plan of a run with the settings of its method."""
    match method:
        case "rerec":
            from recloop.methods.rerec.config import ReRecConfig
            from recloop.methods.rerec.cost_estimate import forecast as forecast_rerec

            assert isinstance(config, ReRecConfig)
            return forecast_rerec(config)
        case "re2llm":
            from recloop.methods.re2llm.config import Re2llmConfig
            from recloop.methods.re2llm.cost_estimate import forecast as forecast_re2llm

            assert isinstance(config, Re2llmConfig)
            return forecast_re2llm(config)
        case _:
            from recloop.methods.dpo4rec.config import Dpo4RecConfig
            from recloop.methods.dpo4rec.cost_estimate import forecast

            assert isinstance(config, Dpo4RecConfig)
            return forecast(config)


def quick_settings(method: str, config: BaseModel) -> list[tuple[str, str]]:
    """What ``--quick`` sets, as typed; SettingError for a method that has no quick form."""
    match method:
        case "rerec":
            from recloop.methods.rerec import config as rerec_config

            assert isinstance(config, rerec_config.ReRecConfig)
            return rerec_config.quick_overrides(config)
        case "re2llm":
            from recloop.methods.re2llm import config as re2llm_config

            assert isinstance(config, re2llm_config.Re2llmConfig)
            return re2llm_config.quick_overrides(config)
        case _:
            raise SettingError(f"--quick is for rerec and re2llm, got it for {method}; its default is small already")


def ask_run(names: Sequence[str], flags: Mapping[str, str], others: Mapping[str, str]) -> str:
    """What the models of a finished run say to a request (rerec) or after a session (re2llm).

    Args:
        names: the run's folder, and the request.
        flags: ``user`` with a request; ``session`` and ``candidates`` in its place.
        others: flags that `ask` does not have.

    Raises:
        SettingError: not one run with one question that its method answers.
    """
    wanted = 'recloop ask FOLDER "a film by Ann Vale" [--user ID], or recloop ask FOLDER --session "A; B; C"'
    if others or len(names) != (1 if "session" in flags else 2):
        told = " ".join([*names, *(f"--{flag}" for flag in (*flags, *others))])
        raise SettingError(f"ask wants a run folder and a request or a session, got {told or 'none'}; {wanted}")
    from recloop.experiment.run_folder import RunFolder

    with RunFolder.reopen(Path(names[0])) as run:
        method = run.manifest["method"]
        if method == "rerec" and "session" not in flags:
            from recloop.methods.rerec.config import ReRecConfig
            from recloop.methods.rerec.predict import ask_run as ask_rerec

            return ask_rerec(run, ReRecConfig.model_validate(run.config), names[1], flags.get("user"))
        if method == "re2llm" and "session" in flags:
            from recloop.methods.re2llm.config import Re2llmConfig
            from recloop.methods.re2llm.predict import recommend

            config = Re2llmConfig.model_validate(run.config)
            return recommend(config, run, flags["session"], flags.get("candidates", ""))
        raise SettingError(
            f"a request wants a run of rerec and a session one of re2llm, got a run of {method}; {wanted}"
        )
