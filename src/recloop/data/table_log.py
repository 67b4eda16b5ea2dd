"""Any log in a table: CSV, TSV, Parquet or JSONL with named columns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import polars as pl
from pydantic import BaseModel, model_validator

from recloop.data import checks
from recloop.data.assemble import RawLog, attribute_labels, clean_text, keep_rated_items, number_log
from recloop.data.checks import STRICT, BadRowPolicy, Check, Rows
from recloop.data.table_files import read_table
from recloop.errors import DataError, SettingError
from recloop.records import Domain, Log
from recloop.settings import setting

LATEST_S = 10**11  # times in milliseconds are larger from 1973 on
TIME = " time in seconds"  # put beside the columns of the log; its space keeps it apart from theirs


class TableLogConfig(BaseModel, frozen=True, extra="forbid"):
    """Which columns of which tables hold what."""

    domain: Domain = setting(Domain.GENERIC, "What the items are: chooses the prompt's words.")
    user: str = setting("user", "Column of user ids, in the log and in the table of users.")
    item: str = setting("item", "Column of item ids, in the log and in the table of items.")
    rating: str | None = setting(None, "Column of ratings; none when the log is implicit.")
    time: str | None = setting(
        None,
        "Column of times: seconds (not milliseconds; at most 1e11), or ISO dates; none when rows are in time order.",
    )
    rating_min: float = setting(1.0, "Lowest rating there is.")
    rating_max: float = setting(5.0, "Highest rating there is.")
    positive_from_rating: float = setting(4.0, "A rating of at least this is positive.")
    items: Path | None = setting(None, "Table of items; none: the ids are the titles.")
    title: str = setting("title", "Column of titles in the table of items.")
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
    log, unread = _read_interactions(path, config, items, users)
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
    return number_log(keep_rated_items(raw, min_item_ratings))


def _read_interactions(
    path: Path, config: TableLogConfig, items: Rows | None, users: Rows | None
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
    rating, time = pl.lit(None, dtype=pl.Float32), pl.col("line").cast(pl.Int64)
    if config.rating:
        rating = pl.col(config.rating).cast(pl.Float32, strict=False)
        is_rating = rating.is_between(config.rating_min, config.rating_max)
        reason = f"is not a rating from {config.rating_min:g} to {config.rating_max:g}"
        tests.append(Check(~is_rating, pl.col(config.rating), reason, "correct it or widen table.rating-max"))
    if config.time:
        rows, time = rows.with_columns(_times(rows.good[config.time]).alias(TIME)), pl.col(TIME)
        reason = "is neither a number nor a date such as 2024-01-31T12:00:00"
        tests.append(Check(time.is_null(), pl.col(config.time), reason, "correct it"))
        reason = "is not a time in seconds up to the year 5138"
        is_far = ~time.is_between(-LATEST_S, LATEST_S)
        tests.append(Check(is_far, pl.col(config.time), reason, "divide milliseconds by 1,000"))
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


def _times(texts: pl.Series) -> pl.Series:
    """Whole seconds from numbers or ISO dates, null where neither; numbers are not tried as dates, which takes long."""
    number = pl.col("text").cast(pl.Float64, strict=False)
    whole = pl.when(number.is_finite()).then(number).cast(pl.Int64, strict=False)
    frame = pl.DataFrame({"text": texts})
    times = frame.select(pl.coalesce(pl.col("text").cast(pl.Int64, strict=False), whole)).to_series()
    is_rest = times.is_null() & texts.is_not_null()
    if not is_rest.any():
        return times
    rest = frame.filter(is_rest).select(
        pl.col("text").str.to_datetime(strict=False, time_zone="UTC", time_unit="ms").dt.epoch("s")
    )
    return times.scatter(is_rest.arg_true(), rest.to_series())


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
