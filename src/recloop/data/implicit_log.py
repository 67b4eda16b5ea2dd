"""Implicit ordered logs: each user's items in their order, without ratings or times.

A folder with one ``*.inter.json`` (user to list of items, oldest first) and one ``*.item.json`` (item to
title, brand, categories), as the Amazon subsets of the LLM recommendation literature are passed around.
"""

from __future__ import annotations

import html
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, cast

import polars as pl
from pydantic import BaseModel

from recloop.data import checks
from recloop.data.assemble import RawLog, attribute_labels, clean_text, number_log
from recloop.data.checks import STRICT, BadRowPolicy, Check, Rows
from recloop.data.text_files import read_json_object
from recloop.data.titles import ABOUT, years_apart
from recloop.errors import DataError
from recloop.records import Domain, Log
from recloop.settings import setting

SHARED_BY = 0.9  # guess: share of the items from which on a top-level category says nothing


class ImplicitConfig(BaseModel, frozen=True, extra="forbid"):
    """How an implicit log's items are described."""

    categories: Literal["together", "apart"] = setting(
        "together",
        "An item's path of categories as one column, category; or apart: its first step as "
        "category, the steps below as subcategory.",
    )

    year_from_title: bool | None = setting(None, ABOUT)

    @property
    def attributes(self) -> tuple[str, ...]:
        return ("category", "subcategory", "brand") if self.categories == "apart" else ("category", "brand")


TOGETHER = ImplicitConfig()


def read_implicit(folder: Path, bad_rows: BadRowPolicy = STRICT, config: ImplicitConfig = TOGETHER) -> Log:
    """The implicit log of a folder with one ``*.inter.json`` and one ``*.item.json``; every interaction is positive.

    Attributes: category (without the top-level one that nine tenths of the items share), brand. A bad row's
    ``line`` is the number of its entry in the file.

    Raises:
        DataError: the files are not there or not of this form, or rows are bad and not to be quarantined.
    """
    interactions_path, items_path = _only(folder, "*.inter.json"), _only(folder, "*.item.json")
    items = _read_items(items_path, config)
    log = _read_interactions(interactions_path, items.good["item_id"])
    checks.settle([items, log], bad_rows)
    users = log.good.select("user_id").unique(maintain_order=True)
    raw = RawLog("implicit", Domain.PRODUCTS, users, items.good, config.attributes, log.good, None)
    return number_log(years_apart(raw, config.year_from_title, bad_rows.say, "data.implicit.year_from_title"))


def _only(folder: Path, pattern: str) -> Path:
    found = sorted(folder.glob(pattern))
    if len(found) != 1:
        raise DataError(
            f"an implicit log is a folder with one {pattern}, got {len(found)} in {folder}; check data.path"
        )
    return found[0]


def _read_interactions(path: Path, item_ids: pl.Series) -> Rows:
    lists: dict[str, list[str]] = {}
    for user, items in read_json_object(path, "interactions").items():
        if not isinstance(items, list):
            raise DataError(
                f"every user must have a list of items, got another value for {user!r} in {path}; correct it"
            )
        lists[user] = [str(item) for item in cast("list[Any]", items)]
    columns = {"line": range(1, len(lists) + 1), "user_id": list(lists), "item_id": list(lists.values())}
    schema = {"line": pl.Int64, "user_id": pl.String, "item_id": pl.List(pl.String)}
    num_items = pl.col("item_id").list.len()
    has_none = Check(num_items == 0, pl.col("user_id"), "has no items", "remove the user")
    users = Rows(path, pl.DataFrame(columns, schema=schema)).check(has_none)
    met = users.good.with_columns(time=pl.int_ranges(num_items)).explode("item_id", "time")
    reason, do = "is not an item of the item file", "add the item or remove it from the list"
    return (
        replace(users, good=met)
        .check(checks.known("item_id", item_ids, reason, do), checks.duplicate(["user_id", "item_id"], "user and item"))
        .select("user_id", "item_id", pl.lit(None, dtype=pl.Float32).alias("rating"), "time")
    )


def _read_items(path: Path, config: ImplicitConfig) -> Rows:
    found = read_json_object(path, "items")
    entries = [cast("dict[str, Any]", item) if isinstance(item, dict) else {} for item in found.values()]
    # Names hold ", "; the separator is a comma without a space.
    paths = [re.split(r",(?! )", str(entry.get("categories") or "")) for entry in entries]
    tops = Counter(path[0] for path in paths if path[0])
    shared = {name for name, count in tops.items() if count >= SHARED_BY * tops.total()}
    paths = [path[1:] if path[0] in shared else path for path in paths]
    columns = {"category": paths}
    if config.categories == "apart":
        columns = {"category": [path[:1] for path in paths], "subcategory": [path[1:] for path in paths]}
    rows = pl.DataFrame(
        {
            "line": range(1, len(found) + 1),
            "item_id": list(found),
            "title": [html.unescape(str(entry.get("title") or "")) for entry in entries],
            **columns,
            "brand": [[html.unescape(str(entry.get("brand") or ""))] for entry in entries],
        },
        schema_overrides={attribute: pl.List(pl.String) for attribute in config.attributes},
    )
    labels = [attribute_labels(pl.col(attribute)) for attribute in config.attributes]
    return (
        Rows(path, rows.with_columns(clean_text("title")))
        .check(checks.missing("title", "item_id", "has no title"))
        .select("item_id", "title", *labels)
    )
