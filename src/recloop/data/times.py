"""Times of interactions: seconds since 1970 (UTC) from what a file holds, in full order.

ISO 8601 and numbers since 1970 are read without asking; anything else could be read in several ways, and wants
`time_format`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import polars as pl

from recloop.data.checks import Check, Rows
from recloop.errors import DataError, SettingError
from recloop.progress import SILENT

FIRST_S, LAST_S = 631_152_000, 4_102_444_800  # 1990 and 2100: a number outside them is no time of a log
UNITS = {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}
IN_WORDS = {"s": "seconds", "ms": "milliseconds", "us": "microseconds", "ns": "nanoseconds"}
ORDER = "order"
TIME = " time in seconds"  # put beside the columns of a log; its space keeps it apart from theirs
_ISO = (
    r"^(\d{4})-?(\d{2})-?(\d{2})"
    r"(?:[T ]?(\d{2}):?(\d{2})(?::?(\d{2})(?:[.,](\d{1,9}))?)?\s*(Z|z|[+-]\d{2}(?::?\d{2})?)?)?$"
)


def with_times(
    rows: Rows, column: str, form: str | None, say: Callable[[str], None] = SILENT.say, setting: str = ""
) -> Rows:
    """The rows with the column `TIME`, Float64 seconds since 1970; bad rows are those whose cell is no time.

    Args:
        column: of texts.
        form: None for ISO 8601 and numbers since 1970; ``s``, ``ms``, ``us``, ``ns`` for numbers in this unit;
            ``order`` for numbers that only tell what came first; or a format of strftime, for the whole column.
        say: takes a line when numbers are not in seconds.
        setting: the full name of the setting that holds `form`, for messages; empty where the format is published.

    Raises:
        DataError: most cells are no time in this form, and there is a setting, which the message offers.
        SettingError: `form` is no format.
    """
    whole = rows.good[column].cast(pl.Int64, strict=False)
    if form in (None, "s") and whole.is_between(FIRST_S, LAST_S).fill_null(value=False).all():
        return rows.with_columns(whole.cast(pl.Float64).alias(TIME))
    texts = rows.good[column].str.strip_chars()
    seconds, reason = _read(texts, form, say, setting)
    bad = seconds.is_null() & texts.is_not_null() & (texts.str.len_bytes() > 0)
    if setting and bad.sum() * 2 > len(texts):
        first = rows.good["line"].filter(bad)[0]
        do = (
            f"say how times are written with {setting}, e.g. '%d/%m/%Y %H:%M', or 'order' for numbers that only tell "
            f"what came first"
        )
        raise DataError(f"{rows.file} line {first}: {texts.filter(bad)[0][:80]!r} {reason}; {do}")
    do = "correct it" + (f", or say with {setting} how to read it" if setting else "")
    return rows.with_columns(seconds.alias(TIME)).check(Check(pl.col(TIME).is_null(), pl.col(column), reason, do))


def _read(texts: pl.Series, form: str | None, say: Callable[[str], None], setting: str) -> tuple[pl.Series, str]:
    """Seconds, null where a text is no time, and what is wrong with such a text."""
    number = pl.DataFrame({"text": texts}).select(pl.col("text").cast(pl.Float64, strict=False)).to_series()
    number = number.set(~number.is_finite().fill_null(False), None)
    if form == ORDER:
        return number, "is not a number"
    if form in UNITS:
        return _scaled(
            texts, number, UNITS[form]
        ), f"is not a number of {IN_WORDS[form]} since 1970 between 1990 and 2100"
    if form is not None:
        return _formatted(texts, form, setting), f"is not a time of the form {form!r} between 1990 and 2100"
    is_date = texts.str.contains(r"^(19|20|21)\d{6}(\d{6})?$").fill_null(False)  # 20240131: in no unit a time of a log
    is_number = number.is_not_null() & ~is_date
    dates = pl.repeat(None, len(texts), dtype=pl.Float64, eager=True) if is_number.all() else _iso(texts)
    size = cast("float | None", number.filter(is_number).abs().median()) or 0.0
    scale = next((scale for scale in UNITS.values() if FIRST_S * scale <= size <= LAST_S * scale), 1)
    if scale > 1 and is_number.any():
        unit = next(name for name, one in UNITS.items() if one == scale)
        say(f"numbers in the column of times are read as {unit} since 1970")
    reason = "is neither ISO 8601, such as 2024-01-31T12:00:00Z, nor a number since 1970 between 1990 and 2100"
    return pl.select(pl.when(is_number).then(_scaled(texts, number, scale)).otherwise(dates)).to_series(), reason


def _scaled(texts: pl.Series, number: pl.Series, scale: int) -> pl.Series:
    """Seconds; whole numbers are divided as such, since nanoseconds need more digits than a float has."""
    whole = texts.cast(pl.Int64, strict=False)
    parts = (whole // scale).cast(pl.Float64) + (whole % scale).cast(pl.Float64) / scale
    seconds = pl.select(pl.coalesce(parts, number / scale)).to_series()
    return seconds.set(~seconds.is_between(FIRST_S, LAST_S).fill_null(False), None)


def _iso(texts: pl.Series) -> pl.Series:
    names = ("year", "month", "day", "hour", "minute", "second", "part", "zone")
    found = pl.DataFrame({"text": texts}).select(pl.col("text").str.extract_groups(_ISO).alias("parts")).unnest("parts")
    found.columns = list(names)
    day = pl.concat_str("year", "month", "day").str.to_date("%Y%m%d", strict=False)
    hour, minute, second = (pl.col(name).fill_null("0").cast(pl.Int64) for name in ("hour", "minute", "second"))
    clock = pl.when((hour < 24) & (minute < 60) & (second < 61)).then(3600 * hour + 60 * minute + second)
    fraction = ("0." + pl.col("part").fill_null("0")).cast(pl.Float64)
    digits = pl.col("zone").str.replace(":", "").str.slice(1)
    offset = 3600 * digits.str.head(2).cast(pl.Int64, strict=False)
    offset += 60 * digits.str.slice(2).replace("", "0").cast(pl.Int64, strict=False)
    offset = pl.when(pl.col("zone").str.starts_with("-")).then(-offset).otherwise(offset).fill_null(0)
    seconds = (day.dt.epoch("s") + clock - offset).cast(pl.Float64) + fraction
    return found.select(seconds).to_series()


def _formatted(texts: pl.Series, form: str, setting: str) -> pl.Series:
    choices = f"{setting} must be s, ms, us, ns, order or a format such as '%d/%m/%Y %H:%M', got {form!r}"
    if "%" not in form:
        raise SettingError(f"{choices}; choose one of them")
    frame = pl.DataFrame({"text": texts})
    has_clock = any(mark in form for mark in ("%H", "%I", "%T", "%R", "%X", "%s", "%c", "%+", "%r"))
    try:
        if "%z" in form:
            read = pl.col("text").str.to_datetime(form, strict=False, time_unit="us", time_zone="UTC")
        elif has_clock:
            read = pl.col("text").str.to_datetime(form, strict=False, time_unit="us")
        else:
            read = pl.col("text").str.to_date(form, strict=False).cast(pl.Datetime("us"))
        micros = frame.select(read.dt.epoch("us")).to_series()
    except (pl.exceptions.PolarsError, ValueError) as error:
        raise SettingError(f"{choices} ({error}); correct it") from error
    seconds = (micros // UNITS["us"]).cast(pl.Float64) + (micros % UNITS["us"]).cast(pl.Float64) / UNITS["us"]
    return seconds.set(~seconds.is_between(FIRST_S, LAST_S).fill_null(False), None)
