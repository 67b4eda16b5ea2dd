"""MIND: news, what users read, and the lists they were shown, from its published files.

Source: Wu et al. 2020, "MIND: A Large-scale Dataset for News Recommendation". Its authors shuffled the news inside a
list, so that ``position`` is the place in the file and not where a user saw it.
"""

from __future__ import annotations

from pathlib import Path

import polars as pl

from recloop.data import checks
from recloop.data.assemble import RawLog, attribute_labels, clean_text, number_log
from recloop.data.checks import STRICT, BadRowPolicy, Check, Rows
from recloop.data.text_files import read_fields
from recloop.data.times import TIME, with_times
from recloop.records import Domain, Log

ATTRIBUTES = ("category", "subcategory")
_BEHAVIOR_FIELDS = ("list_id", "user_id", "when", "history", "shown")
_NEWS_FIELDS = ("item_id", *ATTRIBUTES, "title", "abstract", "url", "title_entities", "abstract_entities")


def read_mind(folder: Path, bad_rows: BadRowPolicy = STRICT) -> Log:
    """The log with its impressions. News that ``news.tsv`` lacks are kept: their id is their title.

    A user's history is that of the user's first list, each news once; its times only tell the order.

    Args:
        folder: ``behaviors.tsv`` and ``news.tsv``.

    Raises:
        DataError: a file is absent or empty, or rows are bad and not to be quarantined.
    """
    news, lists = _read_news(folder / "news.tsv"), _read_behaviors(folder / "behaviors.tsv")
    checks.settle([news, lists], bad_rows)
    ordered = lists.good.sort("time", "line", maintain_order=True)
    first = ordered.unique("user_id", keep="first", maintain_order=True)
    read = first.select("user_id", "time", item_id=pl.col("history").str.split(" ")).explode("item_id")
    read = read.filter(pl.col("item_id") != "").unique(["user_id", "item_id"], keep="first", maintain_order=True)
    before = pl.len().over("user_id").cast(pl.Int64) - pl.int_range(pl.len()).over("user_id")
    interactions = read.with_columns(rating=pl.lit(None, dtype=pl.Float32), time=pl.col("time") - before)
    shown = (
        ordered.select("user_id", "list_id", "time", cell=pl.col("shown").str.split(" "))
        .explode("cell")
        .with_columns(pl.col("cell").str.split_exact("-", 1).struct.rename_fields(["item_id", "label"]))
        .unnest("cell")
        .with_columns(position=pl.int_range(1, pl.len() + 1).over("list_id"))
    )
    ids = pl.concat([interactions.select("item_id"), shown.select("item_id")]).unique(maintain_order=True)
    unknown = ids.join(news.good, on="item_id", how="anti", maintain_order="left")
    nothing = pl.lit([], dtype=pl.List(pl.String))
    untold = unknown.select("item_id", title="item_id", **dict.fromkeys(ATTRIBUTES, nothing))
    if untold.height:
        bad_rows.say(f"{untold.height:,} of {ids.height:,} news are not in news.tsv: their id is their title")
    items = pl.concat([news.good, untold])
    users = first.select("user_id")
    raw = RawLog("mind", Domain.GENERIC, users, items, ATTRIBUTES, interactions, None, impressions=shown)
    return number_log(raw)


def _read_news(path: Path) -> Rows:
    rows = read_fields(path, "MIND news", "\t", _NEWS_FIELDS, checks.duplicate(["item_id"], "news"))
    labels = {name: attribute_labels(pl.concat_list(pl.col(name))) for name in ATTRIBUTES}
    rows = rows.check(checks.missing("title", "item_id", "has no title", "give it one or remove the line"))
    return rows.select("item_id", title=clean_text("title"), **labels)


def _read_behaviors(path: Path) -> Rows:
    cell = r"^\S+-[01]( \S+-[01])*$"
    is_list = pl.col("shown").str.contains(cell)
    broken = Check(~is_list, pl.col("shown"), "is no list such as 'N1-0 N2-1'", "restore the line")
    rows = read_fields(path, "MIND behaviors", "\t", _BEHAVIOR_FIELDS, broken, checks.duplicate(["list_id"], "list"))
    rows = with_times(rows, "when", "%m/%d/%Y %I:%M:%S %p")
    return rows.select("line", "list_id", "user_id", "history", "shown", time=pl.col(TIME))
