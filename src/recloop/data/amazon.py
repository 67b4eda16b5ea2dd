"""Amazon reviews with metadata, as the 2014 and 2018 releases have them: one object a line, often gzip."""

from __future__ import annotations

import html
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import polars as pl
from pydantic import BaseModel, ConfigDict, Field

from recloop.data.assemble import RawLog, clean_text, attribute_label, keep_core, number_log
from recloop.data.checks import (
    STRICT,
    BadRowPolicy,
    Check,
    duplicate_check,
    settle_bad_rows,
    split_bad_rows,
)
from recloop.data.json_files import read_objects, text_of
from recloop.records import Log, Domain

ATTRIBUTES = ("category", "brand")
POSITIVE_FROM_RATING = 5.0


class AmazonConfig(BaseModel):
    """What is kept of an Amazon log, and what its items are."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    domain: Domain = Field(default=Domain.BOOKS, description="What the items are: chooses the prompt's words.")
    min_per_user: int = Field(default=60, ge=1, description="Core: fewest interactions of a user.")
    min_per_item: int = Field(default=40, ge=1, description="Core: fewest interactions of an item.")


def read_amazon(
    reviews: Path,
    metadata: Path,
    config: AmazonConfig,
    bad_rows: BadRowPolicy = STRICT,
) -> Log:
    """Amazon reviews (``reviewerID, asin, overall, unixReviewTime``) with metadata.

    Positive is 5 stars. Attributes: category (without the top-level one), brand. The core is taken first; an
    item of the core without metadata or title is a bad row of the metadata's absence.

    Args:
        reviews: one object a line, plain or ``.gz``.
        metadata: the same, JSON (2018) or Python literals (2014).
        config: the core.
        bad_rows: error or quarantine.

    Raises:
        DataError: a file is absent or empty, rows are bad and not to be quarantined, or the core is empty.

    Source: KAR keeps users with 60 and items with 40 interactions of Amazon-Books.
    """
    ratings, bad_reviews = _read_reviews(reviews)
    items, bad_items = _read_metadata(metadata)
    users = ratings.select("user_id").unique(maintain_order=True)
    raw = RawLog("amazon", config.domain, users, items, ATTRIBUTES, ratings, POSITIVE_FROM_RATING)
    core = keep_core(raw, config.min_per_user, config.min_per_item).interactions
    known, bad_core = split_bad_rows(
        core,
        reviews,
        [
            Check(
                ~pl.col("item_id").is_in(items["item_id"].implode()),
                pl.col("item_id"),
                f"is not an item of {metadata.name}",
                "add its metadata or remove its reviews",
            )
        ],
    )
    settle_bad_rows([bad_reviews, bad_items, bad_core], bad_rows)
    return number_log(RawLog("amazon", config.domain, users, items, ATTRIBUTES, known, POSITIVE_FROM_RATING))


def _read_reviews(path: Path) -> tuple[pl.DataFrame, pl.DataFrame]:
    names = {
        "user_id": "reviewerID",
        "item_id": "asin",
        "rating_text": "overall",
        "time_text": "unixReviewTime",
    }
    columns = {name: (text_of(key), pl.String()) for name, key in names.items()}
    rows, odd = read_objects(path, "Amazon reviews", columns)
    rows = rows.with_columns(
        rating=pl.col("rating_text").cast(pl.Float32, strict=False),
        time=pl.col("time_text").cast(pl.Float64, strict=False).cast(pl.Int64, strict=False),
    )
    good, bad = split_bad_rows(
        rows,
        path,
        [
            Check(pl.col("user_id").is_null(), pl.col("user_id"), "lacks reviewerID", "remove the line"),
            Check(pl.col("item_id").is_null(), pl.col("item_id"), "lacks asin", "remove the line"),
            Check(
                ~pl.col("rating").is_in([1.0, 2.0, 3.0, 4.0, 5.0]),
                pl.col("rating_text"),
                "is not a rating from 1 to 5 (overall)",
                "correct it",
            ),
            Check(
                pl.col("time") < 0,
                pl.col("time_text"),
                "is not a time in seconds (unixReviewTime)",
                "correct it",
            ),
            duplicate_check(["user_id", "item_id"], "user and item"),
        ],
    )
    return good.select("line", "user_id", "item_id", "rating", "time"), pl.concat([odd, bad])


def _read_metadata(path: Path) -> tuple[pl.DataFrame, pl.DataFrame]:
    rows, odd = read_objects(
        path,
        "Amazon metadata",
        {
            "item_id": (text_of("asin"), pl.String()),
            "title": (_title, pl.String()),
            "category": (_categories, pl.List(pl.String)),
            "brand": (_brand, pl.List(pl.String)),
        },
    )
    rows = rows.with_columns(
        clean_text("title"),
        _labels("category"),
        _labels("brand"),
    )
    good, bad = split_bad_rows(
        rows,
        path,
        [
            Check(pl.col("item_id").is_null(), pl.col("item_id"), "lacks asin", "remove the line"),
            duplicate_check(["item_id"], "item"),
        ],
    )
    titled = good.filter(pl.col("title").str.len_bytes() > 0)
    return titled.select("item_id", "title", *ATTRIBUTES), pl.concat([odd, bad])


def _labels(column: str) -> pl.Expr:
    cleaned = pl.col(column).list.eval(attribute_label(pl.element()))
    return cleaned.list.eval(pl.element().filter(pl.element() != "")).list.unique(maintain_order=True)


def _title(found: Mapping[str, Any]) -> str:
    return html.unescape(str(found.get("title") or ""))


def _brand(found: Mapping[str, Any]) -> list[str]:
    """The brand; of books the author's page, which names the author."""
    brand = html.unescape(str(found.get("brand") or "")).strip()
    brand = brand.removeprefix("Visit Amazon's ").removesuffix(" Page")
    return [brand] if brand and brand.lower() != "unknown" else []


def _categories(found: Mapping[str, Any]) -> list[str]:
    """Without the top-level one. ``category`` is one path (2018), ``categories`` several (2014)."""
    value: Any = found.get("category") or found.get("categories")
    entries = cast("list[Any]", value) if isinstance(value, list) else []
    paths = cast("list[list[Any]]", entries) if entries and isinstance(entries[0], list) else [entries]
    return [html.unescape(str(name)) for path in paths for name in path[1:]]
