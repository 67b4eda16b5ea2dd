"""What columns are called before the bundled models, which read few names.

Their lessons had catalogues of up to four columns, each of another role and called by one of that role's
names (`ROLES`). Before a column of another name, or two of one role, they lose the form. So such a
column is shown under a name of a role that is free. Values are copied from the prompt and may be any.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from recloop.llm.bundled import bundled_lm_folder

MAKERS = ("director", "author", "artist", "studio", "brand", "developer", "publisher", "designer", "maker")
KINDS = ("genre", "category", "style", "type", "theme", "subject", "mood")
ERAS = ("era", "decade", "period")
OTHERS = ("country", "language", "format", "platform", "setting", "material", "actor", "label")
ROLES = {"era": ERAS, "kind": KINDS, "maker": MAKERS, "other": OTHERS}  # of columns; a catalogue has one each
STAND_INS = {"era": "era", "kind": "category", "maker": "maker", "other": "label"}
MANY_VALUES = 50  # guess: of a column; more are names of people or makers rather than kinds
FEW_FIRST = ("kind", "other", "maker", "era")
MANY_FIRST = ("maker", "other", "kind", "era")
YEAR = re.compile(r"(?:1[5-9]|20)\d\ds?")
TOKENIZER = "tokenizer.json"


def reads_few_names(folder: Path) -> bool:
    """Whether a model's folder holds a bundled model, or one trained from it: by its tokenizer."""
    own = folder / TOKENIZER
    return own.is_file() and own.read_bytes() == (bundled_lm_folder() / TOKENIZER).read_bytes()


def taught_names(columns: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """What to call each column.

    Args:
        columns: the distinct values of each, in the order of the prompt.

    Returns:
        A name per column, its own where that was taught and its role is free. A column for which no role is
        left keeps its name.

    Example:
        >>> taught_names({"Genres": ["War"], "year": ["1994", "1995"], "director": ["Bo"]})
        {'Genres': 'genre', 'year': 'era', 'director': 'director'}
    """
    role_of = {name: role for role, names in ROLES.items() for name in names}
    free = list(ROLES)
    found: dict[str, str] = {}
    for column in columns:
        taught = next((name for name in _simpler(column) if role_of.get(name) in free), None)
        if taught is not None:
            found[column] = taught
            free.remove(role_of[taught])
    for column, values in columns.items():
        if column not in found:
            role = next((role for role in _roles_for(values) if role in free), None)
            found[column] = column if role is None else STAND_INS[role]
            free = [one for one in free if one != role]
    return {column: found[column] for column in columns}


def _simpler(column: str) -> tuple[str, ...]:
    """A column's name, and as one item in small letters."""
    small = column.strip().casefold()
    return column, small, small.removesuffix("s"), re.sub("ies$", "y", small)


def _roles_for(values: Sequence[str]) -> tuple[str, ...]:
    """Roles by how well a column of these values fits them."""
    if values and all(YEAR.fullmatch(value) for value in values):
        return ("era", *FEW_FIRST)
    return MANY_FIRST if len(values) > MANY_VALUES else FEW_FIRST
