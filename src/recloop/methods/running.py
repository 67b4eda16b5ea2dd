"""What the command line needs of every method: its settings, its plan, its run."""

from __future__ import annotations

from pydantic import BaseModel

from recloop.errors import SettingError
from recloop.progress import Progress
from recloop.runs import RunFolder


def config_model(method: str) -> type[BaseModel]:
    """The settings of a method, by the name that a run folder keeps.

    Raises:
        SettingError: there is no such method.
    """
    match method:
        case "dpo4rec":
            from recloop.methods.dpo4rec_config import Dpo4RecConfig

            return Dpo4RecConfig
        case "rerec":
            from recloop.methods.rerec_config import ReRecConfig

            return ReRecConfig
        case _:
            raise SettingError(f"there is no method {method}; the methods are dpo4rec, rerec")


def is_rerec(config: BaseModel) -> bool:
    """Whether these are settings of ReRec."""
    return type(config).__name__ == "ReRecConfig"


def quick(config: BaseModel) -> BaseModel:
    """The small study of a method that has one; SettingError for another."""
    if not is_rerec(config):
        raise SettingError("--quick is for rerec, got it for dpo4rec; lower data.world.num_users instead")
    from recloop.methods.rerec_config import ReRecConfig
    from recloop.methods.rerec_config import quick as quick_rerec

    assert isinstance(config, ReRecConfig)
    return quick_rerec(config)


def forecast(config: BaseModel) -> str:
    """The plan of a run: amounts and about how long it takes."""
    if is_rerec(config):
        from recloop.methods.rerec_config import ReRecConfig
        from recloop.methods.rerec_plan import forecast as forecast_rerec

        assert isinstance(config, ReRecConfig)
        return forecast_rerec(config)
    from recloop.methods.plan import forecast as forecast_dpo4rec

    return forecast_dpo4rec(config)  # pyright: ignore[reportArgumentType] - the only other settings


def run_method(config: BaseModel, run: RunFolder, progress: Progress, until: str | None) -> str:
    """Do a run, or go on with it; what it ended with."""
    if is_rerec(config):
        from recloop.methods.rerec import run as run_rerec
        from recloop.methods.rerec_config import ReRecConfig

        assert isinstance(config, ReRecConfig)
        return run_rerec(config, run, progress, until)
    from recloop.methods.dpo4rec import run as run_dpo4rec

    return run_dpo4rec(config, run, progress, until)  # pyright: ignore[reportArgumentType] - the only other
