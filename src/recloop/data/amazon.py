"""Amazon reviews with metadata, as the 2014 and 2018 releases have them: one object a line, often gzip."""

from __future__ import annotations

import html
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import polars as pl
from pydantic import BaseModel

from recloop.data import checks
from recloop.data.assemble import RawLog, attribute_labels, clean_text, keep_core, number_log
from recloop.data.checks import STRICT, BadRowPolicy, Check, Rows
from recloop.data.text_files import plain_text, read_objects
from recloop.data.times import TIME, with_times
from recloop.records import Domain, Log
from recloop.settings import setting

ATTRIBUTES = ("category", "brand")
POSITIVE_FROM_RATING = 5.0


class AmazonConfig(BaseModel, frozen=True, extra="forbid"):
    """What is kept of an Amazon log, and what its items are."""

    domain: Domain = setting(Domain.BOOKS, "What the items are: chooses the prompt's words.")
    min_per_user: int = setting(60, "Core: fewest interactions of a user.", ge=1)
    min_per_item: int = setting(40, "Core: fewest interactions of an item.", ge=1)


def read_amazon(reviews: Path, metadata: Path, config: AmazonConfig, bad_rows: BadRowPolicy = STRICT) -> Log:
    """The log of Amazon reviews (``reviewerID, asin, overall, unixReviewTime``) and their metadata.

    A rating of 5 is positive. Attributes: category (without the top-level one), brand. The core is taken
    first. A review whose item has no metadata or no title is a bad row.

    Args:
        reviews: one object a line, plain or ``.gz``.
        metadata: the same, JSON (2018) or Python literals (2014).

    Raises:
        DataError: a file is absent or empty, rows are bad and not to be quarantined, or the core is empty.
    """
    ratings, items = _read_reviews(reviews), _read_metadata(metadata)
    users = ratings.good.select("user_id").unique(maintain_order=True)
    raw = RawLog("amazon", config.domain, users, items.good, ATTRIBUTES, ratings.good, POSITIVE_FROM_RATING)
    core = Rows(reviews, keep_core(raw, config.min_per_user, config.min_per_item).interactions)
    reason = f"is not an item of {metadata.name}"
    core = core.check(checks.known("item_id", items.good["item_id"], reason, "add its metadata or remove its reviews"))
    checks.settle([ratings, items, core], bad_rows)
    return number_log(replace(raw, interactions=core.good))


def _read_reviews(path: Path) -> Rows:
    keys = {"user_id": "reviewerID", "item_id": "asin", "rating_text": "overall", "time_text": "unixReviewTime"}

    def cells(found: dict[str, Any]) -> dict[str, Any]:
        return {name: plain_text(found.get(key)) for name, key in keys.items()}

    rows = read_objects(path, "Amazon reviews", cells, dict.fromkeys(keys, pl.String))
    is_rating = pl.col("rating").is_in([1.0, 2.0, 3.0, 4.0, 5.0])
    rows = rows.with_columns(rating=pl.col("rating_text").cast(pl.Float32, strict=False)).check(
        Check(pl.col("user_id").is_null(), pl.col("user_id"), "lacks reviewerID", "remove the line"),
        Check(pl.col("item_id").is_null(), pl.col("item_id"), "lacks asin", "remove the line"),
        Check(~is_rating, pl.col("rating_text"), "is not a rating from 1 to 5 (overall)", "correct it"),
    )
    rows = with_times(rows, "time_text", "s").check(checks.duplicate(["user_id", "item_id"], "user and item"))
    return rows.select("line", "user_id", "item_id", "rating", time=pl.col(TIME))


def _read_metadata(path: Path) -> Rows:
    schema = {"item_id": pl.String, "title": pl.String} | dict.fromkeys(ATTRIBUTES, pl.List(pl.String))
    labels = {attribute: attribute_labels(pl.col(attribute)) for attribute in ATTRIBUTES}
    rows = read_objects(path, "Amazon metadata", _item, schema).with_columns(clean_text("title"), **labels)
    rows = rows.check(
        Check(pl.col("item_id").is_null(), pl.col("item_id"), "lacks asin", "remove the line"),
        checks.duplicate(["item_id"], "item"),
    )
    titled = rows.good.filter(pl.col("title").str.len_bytes() > 0)
    return replace(rows, good=titled.select("item_id", "title", *ATTRIBUTES))


def _item(found: dict[str, Any]) -> dict[str, Any]:
    """An item; a book's brand is its author, by the name of the author's page."""
    title, brand = (html.unescape(str(found.get(key) or "")) for key in ("title", "brand"))
    brand = brand.strip().removeprefix("Visit Amazon's ").removesuffix(" Page")
    brands = [brand] if brand and brand.lower() != "unknown" else []
    return {"item_id": plain_text(found.get("asin")), "title": title, "category": _categories(found), "brand": brands}


def _categories(found: dict[str, Any]) -> list[str]:
    """Without the top-level one. ``category`` is one path (2018), ``categories`` several (2014)."""
    value: Any = found.get("category") or found.get("categories")
    entries = cast("list[Any]", value) if isinstance(value, list) else []
    paths = cast("list[list[Any]]", entries) if entries and isinstance(entries[0], list) else [entries]
    return [html.unescape(str(name)) for path in paths for name in path[1:]]
