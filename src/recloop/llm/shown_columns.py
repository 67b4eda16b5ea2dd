"""A log's columns under names that the run's language model can read."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from recloop.data.sessions import SessionTask
from recloop.llm.bundled_columns import reads_few_names, taught_names
from recloop.progress import Progress
from recloop.records import Log

AnyLog = TypeVar("AnyLog", Log, SessionTask)


def with_readable_columns(log: AnyLog, lm_folder: Path | None, progress: Progress) -> tuple[AnyLog, dict[str, str]]:
    """The log as the language model is shown it, and the new names of the columns that got one.

    Args:
        log: what is to be put into prompts.
        lm_folder: of the language model; None, or a folder that is not there, for one elsewhere.
        progress: told which columns got another name.
    """
    if lm_folder is None or not reads_few_names(lm_folder):
        return log, {}
    values = {attribute: log.items[attribute].explode().drop_nulls().unique().to_list() for attribute in log.attributes}
    names = {old: new for old, new in taught_names(values).items() if old != new}
    if not names:
        return log, {}
    progress.say(f"{columns_text(names)}: the bundled language model reads few names of columns")
    attributes = tuple(names.get(attribute, attribute) for attribute in log.attributes)
    return replace(log, items=log.items.rename(names), attributes=attributes), names


def columns_text(names: Mapping[str, str]) -> str:
    """Which column is shown as what."""
    return ", ".join(f"{old} is shown as {new}" for old, new in names.items())


def columns_note(names: Mapping[str, str]) -> dict[str, Any]:
    """What the stage that made the prompts notes of new names, if there are any."""
    return {"columns": dict(names)} if names else {}


def columns_fact(made: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    """The report's line on new names, from what that stage noted."""
    return (("Columns", columns_text(made["columns"])),) if "columns" in made else ()


def in_shown_names(text: str, names: Mapping[str, str]) -> str:
    """A text in a user's words with the names that the language model is shown."""
    if not names:
        return text
    shown = {old.casefold(): new for old, new in names.items()}
    old = "|".join(map(re.escape, sorted(names, key=len, reverse=True)))
    return re.sub(rf"(?<!\w)(?:{old})(?!\w)", lambda m: shown.get(m[0].casefold(), m[0]), text, flags=re.IGNORECASE)
