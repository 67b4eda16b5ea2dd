"""A configuration from plain values, with one clear error for all that do not fit."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from recloop.errors import SettingError

Config = TypeVar("Config", bound=BaseModel)


def validate(model: type[Config], tree: Mapping[str, Any]) -> Config:
    """The configuration these sections and values make; SettingError names every value that does not fit."""
    try:
        return model.model_validate(tree)
    except ValidationError as error:
        raise SettingError(_explain(error, list(model.model_fields))) from error


def _explain(error: ValidationError, known: list[str]) -> str:
    lines: list[str] = []
    for fault in error.errors(include_url=False):
        key = ".".join(str(part) for part in fault["loc"])
        message = fault["msg"].removeprefix("Value error, ")
        if fault["type"] == "extra_forbidden" and len(fault["loc"]) == 1:
            near = difflib.get_close_matches(key, known, 1)
            message = (
                f"no such setting; did you mean {near[0]}?" if near else f"no such setting; use {', '.join(known)}"
            )
        is_about_one_value = fault["type"] != "missing" and not isinstance(fault["input"], dict | BaseModel)
        got = f", got {fault['input']!r}" if is_about_one_value else ""
        lines.append(f"{key}: {message}{got}" if key else message)
    return "the settings do not hold together:\n  " + "\n  ".join(lines)
