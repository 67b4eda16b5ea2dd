"""Any log in tables: CSV, TSV, Parquet or JSONL with named columns, or data frames."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import polars as pl

from recloop.data import checks
from recloop.data.assemble import RawLog, attribute_labels, clean_text, counts_of, keep_rated_items, number_log
from recloop.data.checks import STRICT, BadRowPolicy, Check, Heard, Rows
from recloop.data.frames import NamedFrame, TableSource, as_polars
from recloop.data.separated import TableForm
from recloop.data.table_config import TableColumns, TableLogConfig
from recloop.data.table_files import read_table
from recloop.data.times import TIME, with_times
from recloop.data.titles import years_apart
from recloop.errors import DataError
from recloop.progress import Progress, terminal_progress
from recloop.records import Log
from recloop.settings import validate

RATING = " rating as a number"  # put beside the columns of a log; its space keeps it apart from theirs


@dataclass(frozen=True, slots=True)
class _Tables:
    """A log's tables, and how they are read.

    forms: how the log, the tables of items, users and impressions are written.
    of: what a setting's name begins with in messages, e.g. ``data.table.``.
    """

    columns: TableColumns
    log: TableSource
    items: TableSource | None
    users: TableSource | None
    impressions: TableSource | None
    forms: Sequence[TableForm]
    bad_rows: BadRowPolicy
    of: str


def read_table_log(
    path: Path, config: TableLogConfig, *, min_item_ratings: int = 0, bad_rows: BadRowPolicy = STRICT
) -> Log:
    """The log in a table, with optional tables of items, users and impressions.

    `bad_rows` is told the columns that nothing reads.

    Raises:
        DataError: a table is absent, empty or lacks a column, or rows are bad and not to be quarantined.
    """
    headers = (None, config.items_header, config.users_header, None)
    log, items, users, shown = (config.form(bad_rows.say, has_header) for has_header in headers)
    files = path, config.items, config.users, config.impressions
    tables = _Tables(config, *files, (log, items, users, shown), bad_rows, "data.table.")
    return _read_log(tables, path.name.split(".")[0], min_item_ratings)


def log_from_frames(
    interactions: Any,
    items: Any = None,
    users: Any = None,
    impressions: Any = None,
    *,
    name: str = "log",
    progress: Progress | None = None,
    **columns: Any,
) -> Log:
    """The log in data frames; see `Log.from_frames`."""
    progress = progress or terminal_progress()
    given = {"interactions": interactions, "items": items, "users": users, "impressions": impressions}
    sources = {
        what: NamedFrame(f"the frame of {what}", as_polars(frame, what))
        for what, frame in given.items()
        if frame is not None or what == "interactions"
    }
    names = sources["interactions"].frame.columns
    found: dict[str, str | None] = {"user": "user_id", "item": "item_id"}
    found.update({one: one for one in ("rating", "time") if one in names})
    if "impressions" in sources:
        shown = {"list": "list_id", "shown_at": "time", "position": "position", "score": "score"}
        there = sources["impressions"].frame.columns
        found.update({key: column for key, column in shown.items() if key == "list" or column in there})
    if isinstance(columns.get("attributes"), str):
        columns["attributes"] = (columns["attributes"],)
    config = validate(TableColumns, found | columns)
    config.require_tables(items=items is not None, impressions=impressions is not None)
    heard = Heard(progress.say)
    form = TableForm(say=heard)
    policy = BadRowPolicy(say=heard, instead="leave them out")
    log, beside = sources["interactions"], [sources.get(what) for what in ("items", "users", "impressions")]
    read = _read_log(_Tables(config, log, *beside, forms=(form,) * 4, bad_rows=policy, of=""), name, 0)
    for line in read.reading:
        heard(line)
    return replace(read, reading=(f"frames: {counts_of(read)}", *heard.lines))


def _read_log(tables: _Tables, name: str, min_item_ratings: int) -> Log:
    config, say = tables.columns, tables.bad_rows.say
    items = _read_items(tables, tables.items) if tables.items else None
    users = _read_users(tables, tables.users) if tables.users else None
    log, unread = _read_interactions(tables, items, users)
    shown = _read_impressions(tables, tables.impressions, items, users) if tables.impressions else None
    if unread:
        say(_unread_columns(tables, unread))
    checks.settle([rows for rows in (items, users, log, shown) if rows is not None], tables.bad_rows)
    if shown is not None:
        _require_lists(tables, log, shown)
    met = [log.good] if shown is None else [log.good, shown.good]
    item_table = _each_once(met, "item_id").with_columns(title="item_id") if items is None else items.good
    user_table = _each_once(met, "user_id") if users is None else users.good
    threshold = config.positive_from_rating if config.rating else None
    raw = RawLog(
        name, config.domain, user_table, item_table, config.attributes, log.good, threshold,
        impressions=None if shown is None else shown.good,
    )  # fmt: skip
    raw = years_apart(raw, config.year_from_title, say, f"{tables.of}year_from_title")
    return number_log(keep_rated_items(raw, min_item_ratings))


def _require_lists(tables: _Tables, log: Rows, shown: Rows) -> None:
    """DataError where no list is left or times are those of lists alone; says how many users of lists did nothing."""
    if shown.good.is_empty():
        raise DataError(
            f"the table of impressions must hold good rows, got {shown.bad.height:,} bad ones in {shown.file}"
        )
    if tables.columns.shown_at and not tables.columns.time:
        raise DataError(
            f"a history is what came before a list, got {tables.of}shown_at and no times of the log; name them with "
            f"{tables.of}time, or leave {tables.of}shown_at out"
        )
    users = shown.good["user_id"].cast(pl.String).unique()
    num_new = int((~users.is_in(log.good["user_id"].cast(pl.String).unique().implode())).sum())
    if num_new:
        tables.bad_rows.say(f"{num_new:,} users of lists have no interactions: their histories are empty")


def _each_once(tables: Sequence[pl.DataFrame], ids: str) -> pl.DataFrame:
    found = [one.select(pl.col(ids).unique(maintain_order=True).cast(pl.String)) for one in tables]
    return pl.concat(found).unique(maintain_order=True)


def _read_interactions(tables: _Tables, items: Rows | None, users: Rows | None) -> tuple[Rows, list[str]]:
    """The rows, and the columns that nothing reads."""
    config, say = tables.columns, tables.bad_rows.say
    keys = ("user", "item", *(key for key in ("rating", "time") if getattr(config, key)))
    columns = {getattr(config, key): f"{tables.of}{key}" for key in keys}
    rows, unread = read_table(
        tables.log, "the log", columns, tables.forms[0], numbers=list(columns)[2:], with_others=config.baskets
    )
    if config.baskets:
        cells = pl.concat_list(config.item, *unread).alias(config.item)
        rows, unread = replace(rows, good=rows.good.with_columns(cells).drop(unread).explode(config.item)), ()
        rows = replace(rows, good=rows.good.filter(~checks.is_blank(config.item)))
    rows = rows.with_columns(pl.col(config.user, config.item).cast(pl.Categorical))
    tests = _owner_checks(rows, config, items, users)
    rating, time = pl.lit(None, dtype=pl.Float32), pl.col("line").cast(pl.Float64)
    if config.rating:
        rows = rows.with_columns(pl.col(config.rating).cast(pl.Float32, strict=False).alias(RATING))
        rating = pl.col(RATING)
        tests += _rating_checks(tables, rating)
    if config.time:
        rows = with_times(rows, config.time, config.time_format, say, f"{tables.of}time_format")
        time = pl.col(TIME)
    if config.repeats == "error":
        tests.append(checks.duplicate([config.user, config.item], "user and item", f"{tables.of}repeats"))
    log = rows.check(*tests).select(user_id=pl.col(config.user), item_id=pl.col(config.item), rating=rating, time=time)
    return replace(log, good=_of_repeats(log.good, config.repeats, say)), list(unread)


def _owner_checks(rows: Rows, config: TableColumns, items: Rows | None, users: Rows | None) -> list[Check]:
    return [
        *_id_checks(rows, config.user, users and users.good["user_id"], "is not in the table of users"),
        *_id_checks(rows, config.item, items and items.good["item_id"], "is not in the table of items"),
    ]


def _id_checks(rows: Rows, column: str, known: pl.Series | None, reason: str) -> list[Check]:
    """Checks of a categorical column of ids: each id is looked at once, since there are far fewer than rows."""
    ids = rows.good.select(pl.col(column).unique(maintain_order=True).cast(pl.String))
    blank = ids.filter(checks.is_blank(column))[column]
    unknown = blank.clear() if known is None else ids.filter(~pl.col(column).is_in(known.implode()))[column]
    text = pl.col(column).cast(pl.String)
    faults = ((blank, f"has no {column}", "give it or remove the row"), (unknown, reason, "add or remove it"))
    return [Check(text.is_in(found.implode()), text, why, do) for found, why, do in faults if len(found)]


def _rating_checks(tables: _Tables, rating: pl.Expr) -> list[Check]:
    config, of = tables.columns, tables.of
    text, reason = pl.col(config.rating or ""), f"is not a rating from {config.rating_min:g} to {config.rating_max:g}"
    do = f"correct it, or say with {'--data.table.rating-{0}' if of else 'rating_{0}'} where the scale {{1}}"
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


def _unread_columns(tables: _Tables, unread: Sequence[str]) -> str:
    parts, of = [f"nothing reads the columns {', '.join(unread)} of {tables.log}"], tables.of.removeprefix("data.")
    if tables.columns.rating is None:
        parts.append(f"without {of}rating every interaction is positive")
    if tables.columns.time is None:
        parts.append(f"without {of}time rows are taken to be in time order")
    return "; ".join(parts)


def _read_items(tables: _Tables, source: TableSource) -> Rows:
    config = tables.columns
    item = config.items_id or config.item
    columns = {item: f"{tables.of}items_id", config.title: f"{tables.of}title"}
    columns |= dict.fromkeys(config.attributes, f"{tables.of}attributes")
    joined_by = dict.fromkeys(config.attributes, config.attribute_separator)
    rows, unread = read_table(source, "the table of items", columns, tables.forms[1], joined_by=joined_by)
    if unread:
        attributes = f"{tables.of}attributes".removeprefix("data.")
        told = f"nothing reads the columns {', '.join(unread)} of {source}"
        tables.bad_rows.say(f"{told}; name in {attributes} those that prompts and rerankers should have")
    values = {
        attribute: attribute_labels(pl.col(attribute).fill_null("").str.split(config.attribute_separator))
        for attribute in config.attributes
    }
    return rows.check(
        Check(checks.is_blank(item), pl.col(config.title), "has no id", "give it one"),
        checks.duplicate([item], "item"),
        Check(checks.is_blank(config.title), pl.col(item), "has no title", "give it one"),
    ).select(item_id=pl.col(item), title=clean_text(config.title), **values)


def _read_users(tables: _Tables, source: TableSource) -> Rows:
    user = tables.columns.users_id or tables.columns.user
    columns = {user: f"{tables.of}users_id"}
    rows, _ = read_table(source, "the table of users", columns, tables.forms[2], with_others=True)
    names = rows.good.columns
    taken = sorted({"user", "user_id"} & set(names) - {user})
    if taken:
        raise DataError(
            f"the table of users must have no profile column called {taken[0]!r}, got one beside the ids in "
            f"{user!r} in {source}; rename it or remove it"
        )
    profile = [clean_text(name) for name in names if name not in ("line", user)]
    return rows.check(
        Check(checks.is_blank(user), pl.col("line"), "has no user id", "give it one"), checks.duplicate([user], "user")
    ).select(pl.col(user).alias("user_id"), *profile)


def _read_impressions(tables: _Tables, source: TableSource, items: Rows | None, users: Rows | None) -> Rows:
    config, say = tables.columns, tables.bad_rows.say
    optional = [key for key in ("position", "score", "shown_at") if getattr(config, key)]
    keys = ["user", "item", "list", *(["label"] if config.label else []), *optional]
    columns = {getattr(config, key): f"{tables.of}{key}" for key in keys}
    rows, unread = read_table(source, "the table of impressions", columns, tables.forms[3], numbers=list(columns)[3:])
    if unread:
        say(f"nothing reads the columns {', '.join(unread)} of {source}")
    rows = rows.with_columns(pl.col(config.user, config.item).cast(pl.Categorical))
    tests = _owner_checks(rows, config, items, users)
    tests.append(Check(checks.is_blank(config.list), pl.col(config.item), "is of no list", "give it the list's id"))
    made = {f"{key}_id": pl.col(getattr(config, key)) for key in ("user", "item", "list")}
    if config.label:
        text = pl.col(config.label).str.to_lowercase().replace({"true": "1", "false": "0"})
        made["label"] = label = text.cast(pl.Float32, strict=False)
        grade = "is not 0 or a positive grade"
        tests.append(Check(~(label.is_finite() & (label >= 0)), pl.col(config.label), grade, "correct it"))
    tests.append(checks.duplicate([config.list, config.item], "list and item"))
    for key in ("position", "score"):
        name = getattr(config, key)
        if name:
            made[key] = pl.col(name).cast(pl.Float64, strict=False)
            is_odd = (pl.col(name).str.len_bytes() > 0).fill_null(False) & ~made[key].is_finite().fill_null(False)
            tests.append(Check(is_odd, pl.col(name), f"is not a number, as a {key} is", "correct it or leave it out"))
    if config.shown_at:
        rows = with_times(rows, config.shown_at, config.time_format, say, f"{tables.of}time_format")
        made["time"] = pl.col(TIME)
    return rows.check(*tests).select(**made)
