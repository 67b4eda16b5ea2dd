"""Which columns of which tables hold what, and how the tables are written."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, model_validator

from recloop.data.separated import TableForm
from recloop.data.titles import ABOUT
from recloop.errors import SettingError
from recloop.records import Domain
from recloop.settings import setting

USUAL_MAX = 5.0  # where most scales of ratings end
OF_LISTS = ("list", "label", "position", "score", "shown_at")


class TableColumns(BaseModel, frozen=True, extra="forbid"):
    """What the columns of a log's tables are called, and what they mean."""

    domain: Domain = setting(Domain.GENERIC, "What the items are: chooses the prompt's words.")
    user: str = setting("user", "Column of user ids.")
    item: str = setting("item", "Column of item ids.")
    items_id: str | None = setting(None, "Column of item ids in the table of items; none: as in the log.")
    users_id: str | None = setting(None, "Column of user ids in the table of users; none: as in the log.")
    rating: str | None = setting(None, "Column of ratings; none when the log is implicit.")
    time: str | None = setting(
        None, "Column of times, ISO 8601 or numbers since 1970; none when rows are in time order."
    )
    time_format: str | None = setting(
        None,
        "How times are written that are neither: a format such as '%d/%m/%Y %H:%M'; s, ms, us or ns for numbers in "
        "this unit; order for numbers that only tell what came first.",
    )
    repeats: Literal["error", "first", "last", "all"] = setting(
        "error", "What counts where a user has an item more than once; all: each time, as for plays and purchases."
    )
    baskets: bool = setting(
        False,
        "A row is a basket: columns that have no other meaning hold its items too, one a cell; empty ones are none.",
    )
    rating_min: float = setting(1.0, "Lowest rating there is.")
    rating_max: float = setting(USUAL_MAX, "Highest rating there is.")
    positive_from_rating: float = setting(
        4.0, "A rating of at least this is positive; give it where rating_max is not 5."
    )
    title: str = setting("title", "Column of titles in the table of items.")
    year_from_title: bool | None = setting(None, ABOUT)
    attributes: tuple[str, ...] = setting((), "Columns of the table of items shown in prompts, in this order.")
    attribute_separator: str = setting("|", "Between several values in a cell.", min_length=1)
    list: str = setting("list", "Column of list ids in the table of impressions.")
    label: str | None = setting(
        "label",
        "Column of its labels: 0, or 1 (or another grade) for a click; none: 1 for what is liked later.",
    )
    position: str | None = setting(None, "Column of the place where an item was shown, from 1.")
    score: str | None = setting(None, "Column of the first stage's scores, higher is better.")
    shown_at: str | None = setting(
        None, "Column of the times when lists were shown; a history then holds what came before the first list."
    )

    @model_validator(mode="after")
    def _columns_fit(self) -> TableColumns:
        taken = {"item", "item_id", "title", self.title} & set(self.attributes)
        if taken or len(set(self.attributes)) < len(self.attributes):
            raise SettingError(
                f"attributes must differ from each other and from item, item_id and title, got "
                f"{', '.join(self.attributes)}; leave the repeated out, or rename the column"
            )
        if self.rating_max != USUAL_MAX and "positive_from_rating" not in self.model_fields_set:
            raise SettingError(
                f"positive_from_rating must be given where the scale does not end at {USUAL_MAX:g}, got rating_max "
                f"{self.rating_max:g} alone; say from which rating on an item is liked"
            )
        if not self.rating_min < self.positive_from_rating <= self.rating_max:
            raise SettingError(
                f"positive_from_rating must be above rating_min and at most rating_max, got "
                f"{self.positive_from_rating:g} with {self.rating_min:g} to {self.rating_max:g}; correct it"
            )
        if self.time_format is not None and self.time is None and self.shown_at is None:
            raise SettingError(
                f"time_format says how table.time is written, got {self.time_format!r} and no such column"
            )
        return self

    def require_tables(self, *, items: bool, impressions: bool) -> None:
        """SettingError where two columns of a table are one, or one is of a table that is not there."""
        if self.attributes and not items:
            raise SettingError(
                f"attributes are columns of the table of items, got {', '.join(self.attributes)} and no such table; "
                f"give table.items"
            )
        given = [name for name in OF_LISTS if getattr(self, name) != type(self).model_fields[name].default]
        if given and not impressions:
            raise SettingError(
                f"{given[0]} is a column of the table of impressions, got it without such a table; give it too"
            )
        self._require_apart("user", "item", "rating", "time")
        if items:
            self._require_apart("item" if self.items_id is None else "items_id", "title")
        if impressions:
            self._require_apart("user", "item", *OF_LISTS)

    def _require_apart(self, *keys: str) -> None:
        named = {key: getattr(self, key) for key in keys if getattr(self, key) is not None}
        columns = tuple(named.values())
        twice = [name for name in columns if columns.count(name) > 1]
        if twice:
            both = " and ".join(key for key, name in named.items() if name == twice[0])
            raise SettingError(f"{both} must be different columns, got {twice[0]!r} for both; name each its own")


class TableLogConfig(TableColumns, frozen=True, extra="forbid"):
    """Which columns of which files hold what."""

    items: Path | None = setting(None, "Table of items; none: the ids are the titles.")
    users: Path | None = setting(None, "Table of users; its other columns are the profile.")
    impressions: Path | None = setting(
        None, "Table of the lists that users were shown, a row for each item of a list; ids are called as in the log."
    )
    separator: str | None = setting(None, "Between cells of all tables; none: as each file shows.", min_length=1)
    encoding: str | None = setting(None, "Of all tables, e.g. cp1251; none: UTF-8.")
    header: bool = setting(True, "Whether the log's first line names the columns; without, they are called 1, 2, ...")
    items_header: bool | None = setting(None, "The same of the table of items; none: as the log.")
    users_header: bool | None = setting(None, "The same of the table of users; none: as the log.")

    @model_validator(mode="after")
    def _files_fit(self) -> TableLogConfig:
        self.require_tables(items=self.items is not None, impressions=self.impressions is not None)
        if self.encoding is not None and not _is_known_encoding(self.encoding):
            raise SettingError(f"encoding must be one that Python knows, got {self.encoding!r}; e.g. cp1251, shift_jis")
        return self

    def form(self, say: Callable[[str], None], has_header: bool | None = None) -> TableForm:
        """How a table is written; `say` takes what is found out about it."""
        return TableForm(self.separator, self.encoding, self.header if has_header is None else has_header, say)


def _is_known_encoding(name: str) -> bool:
    try:
        "a".encode(name)
    except (LookupError, ValueError):
        return False
    return True
