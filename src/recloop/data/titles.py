"""Years in brackets at the end of titles, as in ``Heat (1995)``: taken off, and made an attribute."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import polars as pl

from recloop.data.assemble import RawLog
from recloop.errors import SettingError

ATTRIBUTE = "year"
NEARLY_ALL, SOME = 0.9, 0.1  # guess: shares of titles from which on years are taken off, or are worth a line
ABOUT = (
    "Make the year in brackets at the end of titles an attribute, year; false: keep it in the title; none: make it one "
    "when 90% of titles end in it."
)
# A span of years counts as its first; what IMDb writes after a year (video, television, video game) goes with it.
_BRACKETED = r"\s*[(\[（]((?:18|19|20)\d\d)(?:\s*[-–—]\s*\d{0,4})?\s*[)\]）](?:\s*\((?:V|TV|VG)\))?\s*$"


def year_of(title: pl.Expr) -> pl.Expr:
    """The year at the end of a title, as text; null without one, and where the title is nothing else."""
    return title.str.extract(r"\S" + _BRACKETED, 1)


def without_year(title: pl.Expr) -> pl.Expr:
    """The title before its year.

    Example:
        >>> titles = pl.Series(["Heat (1995)", "1984", "(2012)", "Lost [2004-2010]"])
        >>> titles.to_frame("title").select(without_year(pl.col("title"))).to_series().to_list()
        ['Heat', '1984', '(2012)', 'Lost']
    """
    return pl.when(year_of(title).is_null()).then(title).otherwise(title.str.replace(_BRACKETED, ""))


def years_apart(raw: RawLog, wanted: bool | None, say: Callable[[str], None], setting: str) -> RawLog:
    """The log with the years of its titles as the attribute ``year``, the last one; an own one of this name stays.

    Args:
        wanted: None to do so only when nearly all titles end in a year.
        say: takes what was done, or that some titles keep their years.
        setting: the full name of the setting that holds `wanted`.

    Raises:
        SettingError: it is wanted, and no title ends in a year.
    """
    year = raw.items.select(year_of(pl.col("title"))).to_series()
    num, of = year.count(), len(year)
    if wanted and not num:
        first = "" if raw.items.is_empty() else raw.items["title"][0]
        raise SettingError(
            f"{setting} true wants titles that end in a year in brackets, got none in {raw.name}, e.g. {first!r}; "
            f"leave it out"
        )
    if wanted is False or num < (1 if wanted else SOME * of) or not num:
        return raw
    if not wanted and num < NEARLY_ALL * of:
        say(f"{num} of {of} titles end in a year in brackets and keep it; {setting} true makes it an attribute")
        return raw
    has_own = ATTRIBUTE in raw.attributes
    shown = "left out, since there is a column year" if has_own else "shown as the attribute year"
    say(f"the year in brackets that ends {num} of {of} titles is {shown}; {setting} false keeps it in the titles")
    items = raw.items.with_columns(without_year(pl.col("title")))
    if has_own:
        return replace(raw, items=items)
    years = pl.concat_list(year.alias(ATTRIBUTE)).list.drop_nulls()
    return replace(raw, items=items.with_columns(years), attributes=(*raw.attributes, ATTRIBUTE))
