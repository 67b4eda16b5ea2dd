"""Times of interactions: what is read without asking, what wants a format, and that no order is lost."""

from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recloop.data.checks import Rows
from recloop.data.times import TIME, with_times
from recloop.errors import DataError, SettingError


def read(texts, form=None, say=lambda line: None):
    frame = pl.DataFrame(
        {"line": range(2, len(texts) + 2), "when": texts}, schema={"line": pl.Int64, "when": pl.String}
    )
    rows = with_times(Rows(Path("log.csv"), frame), "when", form, say, "data.table.time_format")
    return rows.good[TIME].to_list(), rows.bad["line"].to_list()


NOON = datetime(2024, 1, 31, 12, tzinfo=UTC).timestamp()

WITHOUT_ASKING = [
    ("2024-01-31", NOON - 43200),
    ("20240131", NOON - 43200),
    ("20240131120000", NOON),
    ("20240131T120000Z", NOON),
    ("2024-01-31T12:00", NOON),
    ("2024-01-31 12:00:00", NOON),
    (" 2024-01-31T12:00:00Z ", NOON),
    ("2024-01-31T14:00:00+02:00", NOON),
    ("2024-01-31T06:30:00-0530", NOON),
    ("2024-01-31T12:00:00.125Z", NOON + 0.125),
    ("2024-01-31T12:00:00,5", NOON + 0.5),
    ("1706702400", NOON),
    ("1706702400.25", NOON + 0.25),
    ("1.7067024e9", NOON),
]


@pytest.mark.parametrize(("text", "seconds"), WITHOUT_ASKING, ids=[text for text, _ in WITHOUT_ASKING])
def test_iso_and_seconds_are_read_without_asking(text, seconds):
    assert read([text]) == ([seconds], [])


def test_mixed_zones_become_one(tmp_path):
    texts = ["2024-01-31T12:00:00Z", "2024-01-31T13:00:00+01:00", "2024-01-31 12:00:00"]
    assert read(texts) == ([NOON] * 3, [])


@pytest.mark.slow
@given(st.datetimes(datetime(1991, 1, 1), datetime(2099, 1, 1)), st.integers(-23, 23))
def test_a_time_is_read_as_the_standard_library_reads_it(moment, hours):
    zoned = moment.replace(tzinfo=timezone(timedelta(hours=hours)))
    (seconds,), bad = read([zoned.isoformat()])
    assert not bad
    assert seconds == pytest.approx(zoned.timestamp(), abs=1e-6)


@pytest.mark.parametrize(("unit", "scale"), [("ms", 10**3), ("us", 10**6), ("ns", 10**9)])
def test_other_units_are_told_by_their_size_and_said(unit, scale):
    said = []
    whole = int(NOON) * scale
    assert read([str(whole), str(whole + scale // 4)], say=said.append) == ([NOON, NOON + 0.25], [])
    assert said == [f"numbers in the column of times are read as {unit} since 1970"]
    said.clear()
    assert read([str(whole)], unit, said.append) == ([NOON], [])
    assert not said


def test_a_cell_in_another_unit_than_the_column_is_bad():
    good = [str(int(NOON) + n) for n in range(3)]
    assert read([*good, str(int(NOON) * 1000), "soon", "2024-02-30", "25:00"][:5])[1] == [5, 6]


NO_TIME = ["2024", "7", "soon", "01/12/2024", "2024-02-30", "2024-01-31T25:00", "1e30", "99999999999999999999", "nan"]


@pytest.mark.parametrize("text", NO_TIME)
def test_what_could_mean_something_else_is_refused_with_the_setting_that_helps(text):
    with pytest.raises(DataError, match=r"log.csv line 2: .*say how times are written with data\.table\.time_format"):
        read([text, text])


def test_numbers_that_only_tell_the_order_are_read_as_such():
    assert read(["3", "1", "2.5", "x"], "order") == ([3.0, 1.0, 2.5], [5])


def test_a_format_holds_for_the_whole_column():
    assert read(["31/01/2024 12:00", "01/02/2024 12:00", "2024-01-31"], "%d/%m/%Y %H:%M") == ([NOON, NOON + 86400], [4])
    assert read(["1/31/2024 12:00:00 PM"], "%m/%d/%Y %I:%M:%S %p") == ([NOON], [])
    assert read(["31.01.2024 13:00 +0100"], "%d.%m.%Y %H:%M %z") == ([NOON], [])
    with pytest.raises((DataError, SettingError), match="time_format"):
        read(["31/01/2024"], "%Q")
    with pytest.raises(SettingError, match=r"must be s, ms, us, ns, order or a format such as .*got 'minutes'"):
        read(["31/01/2024"], "minutes")


def test_fractions_keep_their_order():
    texts = ["1706702400.100", "1706702400.200", "1706702400.300"]
    assert read(texts)[0] == sorted({float(text) for text in texts})
