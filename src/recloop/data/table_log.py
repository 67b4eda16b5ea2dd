"""Any log in a table: CSV, TSV, Parquet or JSONL with named columns."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import polars as pl
from pydantic import BaseModel, model_validator

from recloop.data import checks
from recloop.data.assemble import RawLog, attribute_labels, clean_text, keep_rated_items, number_log
from recloop.data.checks import STRICT, BadRowPolicy, Check, Rows
from recloop.data.separated import TableForm
from recloop.data.table_files import read_table
from recloop.data.times import TIME, with_times
from recloop.data.titles import ABOUT, years_apart
from recloop.errors import DataError, SettingError
from recloop.records import Domain, Log
from recloop.settings import setting

RATING = " rating as a number"  # put beside the columns of a log; its space keeps it apart from theirs


class TableLogConfig(BaseModel, frozen=True, extra="forbid"):
    """Which columns of which tables hold what."""

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
    rating_min: float = setting(1.0, "Lowest rating there is.")
    rating_max: float = setting(5.0, "Highest rating there is.")
    positive_from_rating: float = setting(4.0, "A rating of at least this is positive.")
    items: Path | None = setting(None, "Table of items; none: the ids are the titles.")
    title: str = setting("title", "Column of titles in the table of items.")
    year_from_title: bool | None = setting(None, ABOUT)
    attributes: tuple[str, ...] = setting((), "Columns of the table of items shown in prompts, in this order.")
    attribute_separator: str = setting("|", "Between several values in a cell.", min_length=1)
    users: Path | None = setting(None, "Table of users; its other columns are the profile.")
    separator: str | None = setting(None, "Between cells of all tables; none: as each file shows.", min_length=1)
    encoding: str | None = setting(None, "Of all tables, e.g. cp1251; none: UTF-8.")
    header: bool = setting(True, "Whether the log's first line names the columns; without, they are called 1, 2, ...")
    items_header: bool | None = setting(None, "The same of the table of items; none: as the log.")
    users_header: bool | None = setting(None, "The same of the table of users; none: as the log.")

    @model_validator(mode="after")
    def _fits_together(self) -> TableLogConfig:
        if self.attributes and self.items is None:
            raise SettingError(
                f"attributes are columns of the table of items, got {', '.join(self.attributes)} and no such table; "
                f"give table.items"
            )
        self._columns_differ()
        taken = {"item", "item_id", "title", self.title} & set(self.attributes)
        if taken or len(set(self.attributes)) < len(self.attributes):
            raise SettingError(
                f"attributes must differ from each other and from item, item_id and title, got "
                f"{', '.join(self.attributes)}; leave the repeated out, or rename the column"
            )
        if not self.rating_min < self.positive_from_rating <= self.rating_max:
            raise SettingError(
                f"positive_from_rating must be above rating_min and at most rating_max, got "
                f"{self.positive_from_rating:g} with {self.rating_min:g} to {self.rating_max:g}; correct it"
            )
        if self.time_format is not None and self.time is None:
            raise SettingError(
                f"time_format says how table.time is written, got {self.time_format!r} and no such column"
            )
        if self.encoding is not None and not _is_known_encoding(self.encoding):
            raise SettingError(f"encoding must be one that Python knows, got {self.encoding!r}; e.g. cp1251, shift_jis")
        return self

    def _columns_differ(self) -> None:
        tables = (
            {"user": self.user, "item": self.item, "rating": self.rating, "time": self.time},
            {"items_id": self.items_id or self.item, "title": self.title if self.items else None},
        )
        for one in tables:
            columns = [name for name in one.values() if name is not None]
            twice = [name for name in columns if columns.count(name) > 1]
            if twice:
                both = " and ".join(key for key, name in one.items() if name == twice[0])
                raise SettingError(f"{both} must be different columns, got {twice[0]!r} for both; name each its own")

    def form(self, say: Callable[[str], None], has_header: bool | None = None) -> TableForm:
        """How a table is written; `say` takes what is found out about it."""
        return TableForm(self.separator, self.encoding, self.header if has_header is None else has_header, say)


def _is_known_encoding(name: str) -> bool:
    try:
        "a".encode(name)
    except (LookupError, ValueError):
        return False
    return True


def read_table_log(
    path: Path, config: TableLogConfig, *, min_item_ratings: int = 0, bad_rows: BadRowPolicy = STRICT
) -> Log:
    """The log in a table, with optional tables of items and users; `bad_rows` is told the columns that nothing reads.

    Raises:
        DataError: a table is absent, empty or lacks a column, or rows are bad and not to be quarantined.
    """
    items = _read_items(config.items, config, bad_rows.say) if config.items else None
    users = _read_users(config.users, config, bad_rows.say) if config.users else None
    log, unread = _read_interactions(path, config, items, users, bad_rows.say)
    if unread:
        bad_rows.say(_unread_columns(path, config, unread))
    checks.settle([rows for rows in (items, users, log) if rows is not None], bad_rows)
    if items is None:
        items = replace(log, good=_each_once(log.good, "item_id").with_columns(title="item_id"))
    if users is None:
        users = replace(log, good=_each_once(log.good, "user_id"))
    threshold = config.positive_from_rating if config.rating else None
    name = path.name.split(".")[0]
    raw = RawLog(name, config.domain, users.good, items.good, config.attributes, log.good, threshold)
    raw = years_apart(raw, config.year_from_title, bad_rows.say, "data.table.year_from_title")
    return number_log(keep_rated_items(raw, min_item_ratings))


def _each_once(log: pl.DataFrame, ids: str) -> pl.DataFrame:
    return log.select(pl.col(ids).unique(maintain_order=True).cast(pl.String))


def _read_interactions(
    path: Path, config: TableLogConfig, items: Rows | None, users: Rows | None, say: Callable[[str], None]
) -> tuple[Rows, list[str]]:
    """The rows, and the columns that nothing reads."""
    keys = ("user", "item", *(key for key in ("rating", "time") if getattr(config, key)))
    columns = {getattr(config, key): f"data.table.{key}" for key in keys}
    rows, unread = read_table(path, "the log", columns, config.form(say), numbers=list(columns)[2:])
    rows = rows.with_columns(pl.col(config.user, config.item).cast(pl.Categorical))
    tests = [
        *_id_checks(rows, config.user, users and users.good["user_id"], "is not in the table of users"),
        *_id_checks(rows, config.item, items and items.good["item_id"], "is not in the table of items"),
    ]
    rating, time = pl.lit(None, dtype=pl.Float32), pl.col("line").cast(pl.Float64)
    if config.rating:
        rows = rows.with_columns(pl.col(config.rating).cast(pl.Float32, strict=False).alias(RATING))
        rating = pl.col(RATING)
        tests += _rating_checks(config, rating)
    if config.time:
        rows = with_times(rows, config.time, config.time_format, say, "data.table.time_format")
        time = pl.col(TIME)
    if config.repeats == "error":
        tests.append(checks.duplicate([config.user, config.item], "user and item", "data.table.repeats"))
    log = rows.check(*tests).select(user_id=pl.col(config.user), item_id=pl.col(config.item), rating=rating, time=time)
    return replace(log, good=_of_repeats(log.good, config.repeats, say)), list(unread)


def _id_checks(rows: Rows, column: str, known: pl.Series | None, reason: str) -> list[Check]:
    """Checks of a categorical column of ids: each id is looked at once, since there are far fewer than rows."""
    ids = rows.good.select(pl.col(column).unique(maintain_order=True).cast(pl.String))
    blank = ids.filter(is_blank(column))[column]
    unknown = blank.clear() if known is None else ids.filter(~pl.col(column).is_in(known.implode()))[column]
    text = pl.col(column).cast(pl.String)
    faults = ((blank, f"has no {column}", "give it or remove the row"), (unknown, reason, "add or remove it"))
    return [Check(text.is_in(found.implode()), text, why, do) for found, why, do in faults if len(found)]


def _rating_checks(config: TableLogConfig, rating: pl.Expr) -> list[Check]:
    text, reason = pl.col(config.rating or ""), f"is not a rating from {config.rating_min:g} to {config.rating_max:g}"
    do = "correct it, or say with --data.table.rating-{0} where the scale {1}"
    return [
        Check(~rating.is_finite(), text, reason, "correct it"),
        Check(rating < config.rating_min, text, reason, do.format("min", "begins")),
        Check(rating > config.rating_max, text, reason, do.format("max", "ends")),
    ]


def _of_repeats(log: pl.DataFrame, which: str, say: Callable[[str], None]) -> pl.DataFrame:
    """The interactions that count; `say` takes how many do not."""
    if which in ("error", "all"):
        return log
    keep: Any = which
    kept = log.sort("time", maintain_order=True).unique(["user_id", "item_id"], keep=keep, maintain_order=True)
    if kept.height < log.height:
        say(f"{log.height - kept.height} repeats of a user and item are left out: the {which} counts")
    return kept


def _unread_columns(path: Path, config: TableLogConfig, unread: Sequence[str]) -> str:
    parts = [f"nothing reads the columns {', '.join(unread)} of {path}"]
    if config.rating is None:
        parts.append("without table.rating every interaction is positive")
    if config.time is None:
        parts.append("without table.time rows are taken to be in time order")
    return "; ".join(parts)


def is_blank(column: str) -> pl.Expr:
    """Whether a cell holds nothing that is seen: spaces, control characters and joiners alone, or null."""
    return ~pl.col(column).str.contains(r"[^\p{C}\p{Z}]").fill_null(value=False)


def _read_items(path: Path, config: TableLogConfig, say: Callable[[str], None]) -> Rows:
    item = config.items_id or config.item
    columns = {item: "data.table.items_id", config.title: "data.table.title"}
    columns |= dict.fromkeys(config.attributes, "data.table.attributes")
    joined_by = dict.fromkeys(config.attributes, config.attribute_separator)
    form = config.form(say, config.items_header)
    rows, _ = read_table(path, "the table of items", columns, form, joined_by=joined_by)
    values = {
        attribute: attribute_labels(pl.col(attribute).fill_null("").str.split(config.attribute_separator))
        for attribute in config.attributes
    }
    return rows.check(
        Check(is_blank(item), pl.col(config.title), "has no id", "give it one"),
        checks.duplicate([item], "item"),
        Check(is_blank(config.title), pl.col(item), "has no title", "give it one"),
    ).select(item_id=pl.col(item), title=clean_text(config.title), **values)


def _read_users(path: Path, config: TableLogConfig, say: Callable[[str], None]) -> Rows:
    user = config.users_id or config.user
    form = config.form(say, config.users_header)
    rows, _ = read_table(path, "the table of users", {user: "data.table.users_id"}, form, with_others=True)
    names = rows.good.columns
    taken = sorted({"user", "user_id"} & set(names) - {user})
    if taken:
        raise DataError(
            f"the table of users must have no profile column called {taken[0]!r}, got one beside the ids in "
            f"{user!r} in {path}; rename it or remove it"
        )
    profile = [clean_text(name) for name in names if name not in ("line", user)]
    return rows.check(
        Check(is_blank(user), pl.col("line"), "has no user id", "give it one"), checks.duplicate([user], "user")
    ).select(pl.col(user).alias("user_id"), *profile)
