"""Any log in a table: CSV, TSV, Parquet or JSONL with named columns."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import polars as pl
from pydantic import BaseModel, model_validator

from recloop.data import checks
from recloop.data.assemble import RawLog, attribute_labels, clean_text, keep_rated_items, number_log
from recloop.data.checks import STRICT, BadRowPolicy, Check, Rows
from recloop.data.table_files import read_table
from recloop.data.times import TIME, with_times
from recloop.data.titles import ABOUT, years_apart
from recloop.errors import DataError, SettingError
from recloop.records import Domain, Log
from recloop.settings import setting


class TableLogConfig(BaseModel, frozen=True, extra="forbid"):
    """Which columns of which tables hold what."""

    domain: Domain = setting(Domain.GENERIC, "What the items are: chooses the prompt's words.")
    user: str = setting("user", "Column of user ids, in the log and in the table of users.")
    item: str = setting("item", "Column of item ids, in the log and in the table of items.")
    rating: str | None = setting(None, "Column of ratings; none when the log is implicit.")
    time: str | None = setting(
        None, "Column of times, ISO 8601 or numbers since 1970; none when rows are in time order."
    )
    time_format: str | None = setting(
        None,
        "How times are written that are neither: a format such as '%d/%m/%Y %H:%M'; s, ms, us or ns for numbers in "
        "this unit; order for numbers that only tell what came first.",
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

    @model_validator(mode="after")
    def _fits_together(self) -> TableLogConfig:
        if self.attributes and self.items is None:
            raise SettingError(
                f"attributes are columns of the table of items, got {', '.join(self.attributes)} and no such table; "
                f"give table.items"
            )
        taken = {"item", "item_id", "title"} & set(self.attributes)
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
        return self


def read_table_log(
    path: Path, config: TableLogConfig, *, min_item_ratings: int = 0, bad_rows: BadRowPolicy = STRICT
) -> Log:
    """The log in a table, with optional tables of items and users; `bad_rows` is told the columns that nothing reads.

    Raises:
        DataError: a table is absent, empty or lacks a column, or rows are bad and not to be quarantined.
    """
    items = _read_items(config.items, config) if config.items else None
    users = _read_users(config.users, config) if config.users else None
    log, unread = _read_interactions(path, config, items, users, bad_rows.say)
    if unread:
        bad_rows.say(_unread_columns(path, config, unread))
    checks.settle([rows for rows in (items, users, log) if rows is not None], bad_rows)
    if items is None:
        items = replace(log, good=log.good.select("item_id", title="item_id").unique("item_id", maintain_order=True))
    if users is None:
        users = replace(log, good=log.good.select("user_id").unique(maintain_order=True))
    threshold = config.positive_from_rating if config.rating else None
    name = path.name.split(".")[0]
    raw = RawLog(name, config.domain, users.good, items.good, config.attributes, log.good, threshold)
    raw = years_apart(raw, config.year_from_title, bad_rows.say, "data.table.year_from_title")
    return number_log(keep_rated_items(raw, min_item_ratings))


def _read_interactions(
    path: Path, config: TableLogConfig, items: Rows | None, users: Rows | None, say: Callable[[str], None]
) -> tuple[Rows, list[str]]:
    """The rows, and the columns that nothing reads."""
    columns = [config.user, config.item, *filter(None, (config.rating, config.time))]
    rows, names = read_table(path, "the log", columns)
    tests = [
        checks.missing(name, name, f"has no {name}", "give it or remove the row") for name in (config.user, config.item)
    ]
    if users is not None:
        known = users.good["user_id"]
        tests.append(checks.known(config.user, known, "is not in the table of users", "add or remove it"))
    if items is not None:
        known = items.good["item_id"]
        tests.append(checks.known(config.item, known, "is not in the table of items", "add or remove it"))
    rating, time = pl.lit(None, dtype=pl.Float32), pl.col("line").cast(pl.Float64)
    if config.rating:
        rating = pl.col(config.rating).cast(pl.Float32, strict=False)
        is_rating = rating.is_between(config.rating_min, config.rating_max)
        reason = f"is not a rating from {config.rating_min:g} to {config.rating_max:g}"
        tests.append(Check(~is_rating, pl.col(config.rating), reason, "correct it or widen table.rating-max"))
    if config.time:
        rows = with_times(rows, config.time, config.time_format, say, "data.table.time_format")
        time = pl.col(TIME)
    tests.append(checks.duplicate([config.user, config.item], "user and item"))
    log = rows.check(*tests).select(user_id=pl.col(config.user), item_id=pl.col(config.item), rating=rating, time=time)
    return log, [name for name in names if name not in columns]


def _unread_columns(path: Path, config: TableLogConfig, unread: Sequence[str]) -> str:
    parts = [f"nothing reads the columns {', '.join(unread)} of {path}"]
    if config.rating is None:
        parts.append("without table.rating every interaction is positive")
    if config.time is None:
        parts.append("without table.time rows are taken to be in time order")
    return "; ".join(parts)


def _read_items(path: Path, config: TableLogConfig) -> Rows:
    columns = [config.item, config.title, *config.attributes]
    joined_by = dict.fromkeys(config.attributes, config.attribute_separator)
    rows, _ = read_table(path, "the table of items", columns, joined_by=joined_by)
    is_untitled = pl.col(config.title).str.strip_chars().str.len_bytes() == 0
    values = {
        attribute: attribute_labels(pl.col(attribute).fill_null("").str.split(config.attribute_separator))
        for attribute in config.attributes
    }
    return rows.check(
        checks.missing(config.item, config.title, "has no id"),
        checks.duplicate([config.item], "item"),
        Check(is_untitled, pl.col(config.item), "has no title", "give it one"),
    ).select(item_id=pl.col(config.item), title=clean_text(config.title), **values)


def _read_users(path: Path, config: TableLogConfig) -> Rows:
    rows, _ = read_table(path, "the table of users", [config.user], with_others=True)
    names = rows.good.columns
    taken = sorted({"user", "user_id"} & set(names) - {config.user})
    if taken:
        raise DataError(
            f"the table of users must have no profile column called {taken[0]!r}, got one beside the ids in "
            f"{config.user!r} in {path}; rename it or remove it"
        )
    profile = [clean_text(name) for name in names if name not in ("line", config.user)]
    return rows.check(
        checks.missing(config.user, "line", "has no user id"), checks.duplicate([config.user], "user")
    ).select(pl.col(config.user).alias("user_id"), *profile)
