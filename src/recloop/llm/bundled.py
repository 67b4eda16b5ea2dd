"""The two small language models that ship with recloop, 3.3M parameters each, and the column names they know.

They were trained on catalogues of up to four columns, each with another role and one of that role's names
(`ROLES`). With other names, or two columns of one role, their texts lose the form. So such a column is shown
under a name of a free role. Its values stay: the models copy those from the prompt.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import polars as pl

from recloop.errors import SettingError
from recloop.progress import Progress

if TYPE_CHECKING:
    from recloop.data.sessions import SessionTask
    from recloop.records import Log

    AnyLog = TypeVar("AnyLog", Log, SessionTask)

MAKERS = ("director", "author", "artist", "studio", "brand", "developer", "publisher", "designer", "maker")
KINDS = ("genre", "category", "style", "type", "theme", "subject", "mood")
ERAS = ("era", "decade", "period")
OTHERS = ("country", "language", "format", "platform", "setting", "material", "actor", "label")
ROLES = {"era": ERAS, "kind": KINDS, "maker": MAKERS, "other": OTHERS}  # of columns; a catalogue has one each
STAND_INS = {"era": "era", "kind": "category", "maker": "maker", "other": "label"}
MANY_VALUES = 50  # guess: a column with more holds names of people or makers rather than kinds
FEW_FIRST = ("kind", "other", "maker", "era")
MANY_FIRST = ("maker", "other", "kind", "era")
YEAR = re.compile(r"(?:1[5-9]|20)\d\ds?")
TOKENIZER = "tokenizer.json"


def bundled_lm_folder(name: Literal["summaries", "answers"] = "summaries") -> Path:
    """The folder of a bundled LM: summaries writes what a user likes; answers ranks, reflects, and answers requests."""
    return Path(__file__).parent / "bundled_weights" / name


def reads_few_names(folder: Path) -> bool:
    """Whether a folder holds a bundled model or one trained from it: its tokenizer says so."""
    own = folder / TOKENIZER
    return own.is_file() and own.read_bytes() == (bundled_lm_folder() / TOKENIZER).read_bytes()


def taught_names(columns: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """What to call each column, given its distinct values.

    That is its own name where the models know it and its role is free, or no role is left; else one of a free role.

    Example:
        >>> taught_names({"Genres": ["War"], "year": ["1994", "1995"], "director": ["Bo"]})
        {'Genres': 'genre', 'year': 'era', 'director': 'director'}
    """
    role_of = {name: role for role, names in ROLES.items() for name in names}
    free = list(ROLES)
    found: dict[str, str] = {}
    for column in columns:
        taught = next((name for name in _spellings(column) if role_of.get(name) in free), None)
        if taught is not None:
            found[column] = taught
            free.remove(role_of[taught])
    for column, values in columns.items():
        if column not in found:
            role = next((role for role in _roles_for(values) if role in free), None)
            found[column] = column if role is None else STAND_INS[role]
            free = [one for one in free if one != role]
    return {column: found[column] for column in columns}


def _spellings(column: str) -> tuple[str, ...]:
    """A column's name, in lower case, and in the singular."""
    small = column.strip().casefold()
    return column, small, small.removesuffix("s"), re.sub("ies$", "y", small)


def _roles_for(values: Sequence[str]) -> tuple[str, ...]:
    """Roles, the one that fits a column of these values best first."""
    if values and all(YEAR.fullmatch(value) for value in values):
        return ("era", *FEW_FIRST)
    return MANY_FIRST if len(values) > MANY_VALUES else FEW_FIRST


def with_readable_columns(log: AnyLog, lm_folder: Path | None, progress: Progress) -> tuple[AnyLog, dict[str, str]]:
    """The log as the language model (None: one without a folder) is shown it, and the new names of its columns.

    SettingError: a bundled one has no attributes to read.
    """
    if lm_folder is None or not reads_few_names(lm_folder):
        return log, {}
    values = {attribute: log.items[attribute].explode().drop_nulls().unique().to_list() for attribute in log.attributes}
    if not any(values.values()):
        raise SettingError(
            f"the bundled language model (3.3M parameters) reads the attributes of items, got none in {log.name}; name "
            f"their columns, or use a model that reads titles: lm.name smollm2:base (135M parameters; recloop fetch "
            f"smollm2 gets it) with prompt.template short, a larger instruct model as "
            f"transformers:NAME_OR_FOLDER, or openai:BASE_URL#MODEL"
        )
    names = {old: new for old, new in taught_names(values).items() if old != new}
    if names:
        progress.say(f"{columns_text(names)}: the bundled language model (3.3M parameters) knows few column names")
    dated = [one for one, known in values.items() if all(map(YEAR.fullmatch, known)) and any(map(str.isdigit, known))]
    items = log.items
    if dated:  # as it was taught; of a year it copies three digits and guesses one (docs/log.md)
        progress.say(f"the years of {', '.join(dated)} are shown as decades, such as 1990s: it reads no single years")
        decades = pl.col(dated).list.eval(pl.element().str.head(3) + "0s").list.unique(maintain_order=True)
        items = items.with_columns(decades)
    attributes = tuple(names.get(attribute, attribute) for attribute in log.attributes)
    is_changed = bool(names or dated)
    return replace(log, items=items.rename(names), attributes=attributes) if is_changed else log, names


def columns_text(names: Mapping[str, str]) -> str:
    """Which column is shown as what."""
    return ", ".join(f"{old} is shown as {new}" for old, new in names.items())


def columns_note(names: Mapping[str, str]) -> dict[str, Any]:
    """What the step that made the prompts notes of new names, if there are any."""
    return {"columns": dict(names)} if names else {}


def columns_fact(made: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    """The report's lines on what was read and on new names, from what that step noted."""
    read = (("Read", "; ".join(made["reading"])),) if made.get("reading") else ()
    return (*read, ("Columns", columns_text(made["columns"]))) if "columns" in made else read


def in_shown_names(text: str, names: Mapping[str, str]) -> str:
    """A user's words, with the column names that the language model is shown."""
    if not names:
        return text
    shown = {old.casefold(): new for old, new in names.items()}
    old = "|".join(map(re.escape, sorted(names, key=len, reverse=True)))
    return re.sub(rf"(?<!\w)(?:{old})(?!\w)", lambda m: shown.get(m[0].casefold(), m[0]), text, flags=re.IGNORECASE)
