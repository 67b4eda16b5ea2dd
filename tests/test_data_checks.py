"""Bad rows: found, named by file, line and value, and settled once."""

import json
from pathlib import Path

import polars as pl
import pytest

from recloop.data.checks import BadRowPolicy, Check, Rows, duplicate, settle
from recloop.data.text_files import read_fields, read_lines
from recloop.errors import DataError, RecloopError


def rows_of(*rating, file=Path("a.txt"), **columns):
    schema = {"line": pl.Int64, "rating": pl.String}
    good = pl.DataFrame({"line": range(1, len(rating) + 1), "rating": rating}, schema=schema)
    return Rows(file, good.with_columns(**{name: pl.Series(values) for name, values in columns.items()}))


NOT_A_STAR = Check(~pl.col("rating").is_in(["1", "5"]), pl.col("rating"), "is not 1 or 5", "correct it")


def test_a_row_is_reported_under_the_first_check_it_fails(tmp_path):
    long = Check(pl.col("rating").str.len_bytes() > 1, pl.col("rating"), "is long", "shorten it")
    rows = rows_of("1", "9", "55", None, "5").check(long, NOT_A_STAR)
    assert rows.good["line"].to_list() == [1, 5]
    found = rows.bad.select("line", "value", "reason").rows()
    # null fails the first check it meets: unknown is not good
    assert found == [(2, "9", "is not 1 or 5"), (3, "55", "is long"), (4, "(missing)", "is long")]


def test_the_error_lists_file_line_value_reason_and_advice(tmp_path):
    rows = rows_of(*"1234567", file=tmp_path / "stars.txt").check(NOT_A_STAR)
    with pytest.raises(DataError) as caught:
        settle([rows], BadRowPolicy())
    message = str(caught.value)
    assert isinstance(caught.value, RecloopError)
    assert message.startswith("5 rows are bad:")
    assert f"{tmp_path}/stars.txt line 2: '2' is not 1 or 5; correct it" in message
    assert "quarantine" in message


def test_the_error_shows_five_rows_and_counts_the_rest(tmp_path):
    with pytest.raises(DataError, match="and 2 more"):
        settle([rows_of(*"2222222").check(NOT_A_STAR)], BadRowPolicy())


def test_quarantine_holds_every_bad_row_with_its_reason_and_says_how_many(tmp_path):
    said = []
    rows = rows_of("1", "2", "3").check(NOT_A_STAR)
    quarantine = tmp_path / "made" / "bad.jsonl"
    for _ in range(2):  # a second read writes the file again
        settle([rows, rows_of("0", file=Path("b.txt")).check(NOT_A_STAR)], BadRowPolicy(quarantine, said.append))
    found = [json.loads(line) for line in quarantine.read_text().splitlines()]
    assert [(row["line"], row["value"]) for row in found] == [(2, "2"), (3, "3"), (1, "0")]
    assert found[0]["reason"] == "is not 1 or 5"
    assert found[0]["file"].endswith("a.txt")
    assert said[0] == f"3 bad rows set aside in {quarantine}: 3 is not 1 or 5"


def test_a_clean_read_leaves_an_empty_quarantine_and_says_nothing(tmp_path):
    said = []
    quarantine = tmp_path / "bad.jsonl"
    quarantine.write_text("old\n")
    settle([], BadRowPolicy(quarantine, said.append))
    assert quarantine.read_text() == ""
    assert said == []


@pytest.mark.parametrize(
    ("raw", "texts"),
    [
        (b"a\nb\n", ["a", "b"]),
        ("\ufeffé\r\n\r\nb".encode(), ["é", "b"]),
        ("é\nplain\nñ".encode("latin-1"), ["é", "plain", "ñ"]),
        ("1\x85continued\n2".encode(), ["1\x85continued", "2"]),
    ],
)
def test_lines_are_read_in_either_encoding_with_their_numbers(tmp_path, raw, texts):
    path = tmp_path / "lines.txt"
    path.write_bytes(raw)
    rows = read_lines(path, "lines")
    assert rows.good["text"].to_list() == texts
    assert rows.bad.is_empty()
    assert rows.good["line"].to_list() == [1, 3] if "\r\n\r\n" in raw.decode("latin-1") else True


def test_lines_in_the_rarer_encoding_are_bad(tmp_path):
    path = tmp_path / "mixed.txt"
    path.write_bytes("é\n".encode("latin-1") * 2 + b"plain\n" + "é\n".encode())
    rows = read_lines(path, "lines")
    assert rows.good["line"].to_list() == [1, 2, 3]
    assert rows.bad["line"].to_list() == [4]
    assert "latin-1" in rows.bad["reason"][0]


@pytest.mark.parametrize("content", [None, b"", b"\n \r\n".replace(b" ", b"")])
def test_an_absent_or_empty_file_is_one_clear_error(tmp_path, content):
    path = tmp_path / "ratings.dat"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match=r"ratings must .*ratings\.dat"):
        read_lines(path, "ratings")


def test_fields_are_split_and_counted(tmp_path):
    path = tmp_path / "fields.txt"
    path.write_text("a::b\na\na::b::c\n")
    rows = read_fields(path, "fields", "::", ["x", "y"])
    assert rows.good.select("x", "y").rows() == [("a", "b")]
    assert rows.bad["line"].to_list() == [2, 3]


def test_the_first_of_duplicates_stays(tmp_path):
    rows = rows_of("1", "1", "1", u=["a", "a", "a"], i=["x", "y", "x"])
    rows = rows.check(duplicate(["u", "i"], "user and item"))
    assert rows.good["line"].to_list() == [1, 2]
    assert rows.bad["value"].to_list() == ["a, x"]


def test_a_bad_row_makes_no_later_row_a_duplicate(tmp_path):
    rows = rows_of("9", "5", "1", None, u=["a", "a", "a", "b"])
    # The order given does not matter: line 2 is the first good row of a, and line 4 repeats nothing.
    rows = rows.check(duplicate(["u"], "user"), NOT_A_STAR)
    assert rows.good["line"].to_list() == [2]
    assert rows.bad.select("line", "reason").rows() == [
        (1, "is not 1 or 5"),
        (3, "repeats the user of an earlier line"),
        (4, "is not 1 or 5"),
    ]
