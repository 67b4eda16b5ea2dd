"""Years at the end of titles."""

import polars as pl
import pytest

from recloop.data.checks import BadRowPolicy
from recloop.data.table_config import TableLogConfig
from recloop.data.table_log import read_table_log
from recloop.data.titles import without_year, year_of
from recloop.errors import SettingError

TITLES = {
    "Heat (1995)": ("Heat", "1995"),
    "Seven (a.k.a. Se7en) (1995) ": ("Seven (a.k.a. Se7en)", "1995"),
    "Lost [2004-2010]": ("Lost", "2004"),
    "Death Note (2006–2007)": ("Death Note", "2006"),
    "Fargo (2014– )": ("Fargo", "2014"),
    "Mulan II (2004) (V)": ("Mulan II", "2004"),
    "千と千尋（2001）": ("千と千尋", "2001"),
    "2001 (1968)": ("2001", "1968"),
    "1984": ("1984", None),
    "(2012)": ("(2012)", None),
    "Blade (3000)": ("Blade (3000)", None),
    "Apollo (13)": ("Apollo (13)", None),
    "Heat (1995) remastered": ("Heat (1995) remastered", None),
}


@pytest.mark.parametrize(("title", "parts"), TITLES.items())
def test_a_year_in_brackets_at_the_end_is_told_from_the_title(title, parts):
    assert pl.select(without_year(pl.lit(title)), year_of(pl.lit(title)).alias("year")).row(0) == parts


def read(folder, titles, said, **settings):
    ids = [f"i{number}" for number in range(len(titles))]
    columns = {"item": ids, "title": titles, "kind": ["p"] * len(ids)}
    columns |= {"year": ["1900"] * len(ids)} if "year" in settings.get("attributes", ()) else {}
    pl.DataFrame(columns).write_csv(folder / "items.csv")
    pl.DataFrame({"user": ["a"] * len(ids), "item": ids}).write_csv(folder / "log.csv")
    config = TableLogConfig(items=folder / "items.csv", **({"attributes": ("kind",)} | settings))
    return read_table_log(folder / "log.csv", config, bad_rows=BadRowPolicy(say=said.append))


DATED, PLAIN = "Heat (1995)", "Heat"


def test_when_nearly_all_titles_end_in_a_year_it_is_an_attribute_and_a_line_says_so(tmp_path):
    said: list[str] = []
    log = read(tmp_path, [DATED] * 9 + [PLAIN], said)
    assert log.attributes == ("kind", "year")
    assert log.items.columns == ["item", "item_id", "title", "kind", "year"]
    assert log.items["title"].unique().to_list() == ["Heat"]
    assert log.items["year"].to_list() == [["1995"]] * 9 + [[]]
    assert "".join(said) == (
        "the year in brackets that ends 9 of 10 titles is shown as the attribute year; "
        "data.table.year_from_title false keeps it in the titles"
    )


def test_it_stays_in_the_title_where_that_is_set_or_only_some_have_one(tmp_path):
    said: list[str] = []
    log = read(tmp_path, [DATED] * 10, said, year_from_title=False)
    assert (log.attributes, log.items["title"][0], said) == (("kind",), DATED, [])
    log = read(tmp_path, [DATED] * 8 + [PLAIN] * 2, said)
    assert (log.attributes, log.items["title"][0]) == (("kind",), DATED)
    assert said == [
        "8 of 10 titles end in a year in brackets and keep it; data.table.year_from_title true makes it an attribute"
    ]
    log = read(tmp_path, [DATED] * 8 + [PLAIN] * 2, said, year_from_title=True)
    assert log.items["year"].list.len().to_list() == [1] * 8 + [0] * 2


def test_a_column_year_that_is_shown_stays_as_it_is(tmp_path):
    said: list[str] = []
    log = read(tmp_path, [DATED] * 10, said, attributes=("year", "kind"))
    assert (log.attributes, log.items["title"][0], log.items["year"][0].to_list()) == (
        ("year", "kind"),
        PLAIN,
        ["1900"],
    )
    assert "left out, since there is a column year" in said[0]


def test_titles_without_any_year_are_left_alone_or_refused(tmp_path):
    said: list[str] = []
    assert (read(tmp_path, [PLAIN] * 10, said).attributes, said) == (("kind",), [])
    with pytest.raises(SettingError, match=r"year_from_title true wants titles .* got none in log, e.g. 'Heat'"):
        read(tmp_path, [PLAIN], said, year_from_title=True)
