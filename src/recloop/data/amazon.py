"""Amazon reviews with metadata, in the forms of the 2014, 2018 and 2023 releases: one object a line, often gzip."""

from __future__ import annotations

import html
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import polars as pl
from pydantic import BaseModel

from recloop.data import checks
from recloop.data.assemble import RawLog, attribute_labels, clean_text, keep_core, number_log
from recloop.data.checks import STRICT, BadRowPolicy, Check, Rows
from recloop.data.text_files import first_keys, plain_text, read_objects
from recloop.data.times import TIME, with_times
from recloop.data.titles import ABOUT, years_apart
from recloop.errors import DataError
from recloop.records import Domain, Log
from recloop.settings import setting

ATTRIBUTES = ("category", "brand")
POSITIVE_FROM_RATING = 5.0


@dataclass(frozen=True, slots=True)
class Release:
    """The keys of a release's reviews, and the unit of its times."""

    user: str
    item: str
    rating: str
    time: str
    unit: str

    @property
    def keys(self) -> str:
        return f"{self.user}, {self.item}, {self.rating}, {self.time}"


OLD = Release("reviewerID", "asin", "overall", "unixReviewTime", "s")
NEW = Release("user_id", "parent_asin", "rating", "timestamp", "ms")
KEYS_OF_2018, KEYS_OF_2014 = {"verified", "vote", "style", "category"}, {"helpful", "categories"}


class AmazonConfig(BaseModel, frozen=True, extra="forbid"):
    """What is kept of an Amazon log, and what its items are."""

    domain: Domain = setting(Domain.BOOKS, "What the items are: chooses the prompt's words.")
    min_per_user: int = setting(60, "Core: fewest interactions of a user.", ge=1)
    min_per_item: int = setting(40, "Core: fewest interactions of an item.", ge=1)
    year_from_title: bool | None = setting(None, ABOUT)


def read_amazon(reviews: Path, metadata: Path, config: AmazonConfig, bad_rows: BadRowPolicy = STRICT) -> Log:
    """The log of Amazon reviews and their metadata; `bad_rows` is told the release, which their first keys tell.

    A rating of 5 is positive. Attributes: category (without the top-level one), brand. The core is taken
    first. A review whose item has no metadata or no title is a bad row. Items of 2023 are parents of variants, which
    one user may review several times: as in that release's own cores, the earliest review counts.

    Args:
        reviews: one object a line, plain or ``.gz``.
        metadata: the same, JSON (2018, 2023) or Python literals (2014).

    Raises:
        DataError: a file is absent, empty or of no release, the two are of different ones, rows are bad and not to be
            quarantined, or the core is empty.
    """
    release = _release(reviews, metadata, bad_rows.say)
    ratings, items = _read_reviews(reviews, release, bad_rows.say), _read_metadata(metadata, release)
    users = ratings.good.select("user_id").unique(maintain_order=True)
    raw = RawLog("amazon", config.domain, users, items.good, ATTRIBUTES, ratings.good, POSITIVE_FROM_RATING)
    core = Rows(reviews, keep_core(raw, config.min_per_user, config.min_per_item).interactions)
    reason = f"is not an item of {metadata.name}"
    core = core.check(checks.known("item_id", items.good["item_id"], reason, "add its metadata or remove its reviews"))
    checks.settle([ratings, items, core], bad_rows)
    raw = years_apart(raw, config.year_from_title, bad_rows.say, "data.amazon.year_from_title")
    return number_log(replace(raw, interactions=core.good))


def _release(reviews: Path, metadata: Path, say: Callable[[str], None]) -> Release:
    keys, item_keys = first_keys(reviews, "Amazon reviews").keys(), first_keys(metadata, "Amazon metadata").keys()
    release = next((one for one in (NEW, OLD) if {one.user, one.item} <= keys), None)
    if release is None:
        raise DataError(
            f"Amazon reviews must have the keys {OLD.keys} (2014, 2018) or {NEW.keys} (2023), got "
            f"{', '.join(keys) or 'lines that are no JSON objects'} in {reviews}; give the reviews of a release, "
            f"or read your own file with data.name table"
        )
    if release.item not in item_keys or "title" not in item_keys:
        raise DataError(
            f"Amazon metadata must have the keys {release.item} and title, as its reviews are of "
            f"{'2023' if release is NEW else '2014 or 2018'}, got "
            f"{', '.join(item_keys) or 'lines that are no JSON objects'} in {metadata}; give the metadata of the "
            f"same release"
        )
    years = [year for year, own in (("2014", KEYS_OF_2014), ("2018", KEYS_OF_2018)) if own & (keys | item_keys)]
    year = "2023" if release is NEW else " or ".join(years or ("2014", "2018"))
    say(f"read as the Amazon release of {year} (keys {release.keys}, times in {release.unit})")
    return release


def _read_reviews(path: Path, release: Release, say: Callable[[str], None]) -> Rows:
    keys = {
        "user_id": release.user, "item_id": release.item, "rating_text": release.rating, "time_text": release.time
    }  # fmt: skip

    def cells(found: dict[str, Any]) -> dict[str, Any]:
        return {name: plain_text(found.get(key)) for name, key in keys.items()}

    rows = read_objects(path, "Amazon reviews", cells, dict.fromkeys(keys, pl.String))
    is_rating = pl.col("rating").is_in([1.0, 2.0, 3.0, 4.0, 5.0])
    rows = rows.with_columns(rating=pl.col("rating_text").cast(pl.Float32, strict=False)).check(
        checks.missing("user_id", "user_id", f"lacks {release.user}", "remove the line"),
        checks.missing("item_id", "item_id", f"lacks {release.item}", "remove the line"),
        Check(~is_rating, pl.col("rating_text"), f"is not a rating from 1 to 5 ({release.rating})", "correct it"),
    )
    rows = with_times(rows, "time_text", release.unit)
    pair = ["user_id", "item_id"]
    if release is NEW:
        first = rows.good.sort(TIME, maintain_order=True).unique(pair, keep="first").sort("line")
        if num := rows.good.height - first.height:
            say(f"{num} further reviews of an item by the same user are left out; the earliest counts")
        rows = replace(rows, good=first)
    else:
        rows = rows.check(checks.duplicate(pair, "user and item"))
    return rows.select("line", *pair, "rating", time=pl.col(TIME))


def _read_metadata(path: Path, release: Release) -> Rows:
    schema = {"item_id": pl.String, "title": pl.String} | dict.fromkeys(ATTRIBUTES, pl.List(pl.String))
    labels = {attribute: attribute_labels(pl.col(attribute)) for attribute in ATTRIBUTES}
    item = _item_of_2023 if release is NEW else _item
    rows = read_objects(path, "Amazon metadata", item, schema).with_columns(clean_text("title"), **labels)
    rows = rows.check(
        checks.missing("item_id", "item_id", f"lacks {release.item}", "remove the line"),
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


def _item_of_2023(found: dict[str, Any]) -> dict[str, Any]:
    """An item; its brand is a book's author, or else the store; the main category stands in for missing categories."""
    author, path = found.get("author"), found.get("categories")
    name = cast("dict[str, Any]", author).get("name") if isinstance(author, dict) else None
    brand = re.sub(
        r"\s*\((?:Author|Editor|Illustrator|Translator|Narrator).*$", "", str(name or found.get("store") or "")
    )
    category = cast("list[Any]", path)[1:] if isinstance(path, list) and path else [found.get("main_category") or ""]
    return {
        "item_id": plain_text(found.get("parent_asin")),
        "title": html.unescape(str(found.get("title") or "")),
        "category": [html.unescape(str(one)) for one in category],
        "brand": [html.unescape(brand)] if brand.strip() else [],
    }


def _categories(found: dict[str, Any]) -> list[str]:
    """Without the top-level one. ``category`` is one path (2018), ``categories`` several (2014)."""
    value: Any = found.get("category") or found.get("categories")
    entries = cast("list[Any]", value) if isinstance(value, list) else []
    paths = cast("list[list[Any]]", entries) if entries and isinstance(entries[0], list) else [entries]
    return [html.unescape(str(name)) for path in paths for name in path[1:]]
