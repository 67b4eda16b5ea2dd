"""What the configurations of all methods share: sections that keep a method's defaults, and checks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, cast

from pydantic import BaseModel

from recloop.errors import SettingError
from recloop.evaluation.score import MetricsConfig
from recloop.settings import merged

PreflightMode = Literal["stop", "warn", "off"]
ABOUT_PREFLIGHT = "check 20 completions before a run costs anything, and stop or warn where they are of no use"

ABOUT_ENGINE = (
    "process: everything in this process; ray: completions, vectors, fits and rewards by workers of a Ray cluster, "
    "with the same results (docs/scale.md)"
)


def complete_sections(model: type[BaseModel], given: Any) -> Any:
    """`given` with what its sections leave out taken from the sections as `model` has them by default."""
    if not isinstance(given, dict):
        return given
    sections = {name: info.default for name, info in model.model_fields.items() if name in given}
    defaults = {name: default.model_dump() for name, default in sections.items() if isinstance(default, BaseModel)}
    return merged(defaults, cast(dict[str, Any], given))


def require_primary_metric(primary_metric: str, metrics: MetricsConfig) -> None:
    """SettingError unless the metric that leads the tables is measured."""
    if primary_metric not in metrics.names:
        raise SettingError(
            f"primary_metric must be one of metrics.names ({', '.join(metrics.names)}), got {primary_metric}; "
            f"add it there"
        )


def require_distinct(**values_by_name: Sequence[Any]) -> None:
    """SettingError where one of these settings names a value twice."""
    for name, values in values_by_name.items():
        if len(set(values)) < len(values):
            raise SettingError(f"{name} must differ, got {', '.join(map(str, values))}; drop the repeated")
