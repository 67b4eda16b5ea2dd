"""Tables of separated cells: separators, headers, encodings, and the two ways of reading that must agree."""

import csv

import numpy as np
import polars as pl
import pytest

from recloop.data import separated
from recloop.data.separated import TableForm, read_separated
from recloop.errors import DataError

TEXTS = ["The, X", 'say "no"', "a;b", "1,5", "é", "", "x|y", "  z", "a:b"]


def read(path, wanted=None, numbers=(), **form):
    said = []
    rows, names = read_separated(path, "the table", TableForm(say=said.append, **form), wanted, numbers)
    return rows, names, said


@pytest.mark.parametrize("separator", [",", "\t", ";", "|"])
@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
def test_what_the_csv_module_writes_is_read_back_with_its_lines(tmp_path, separator, line_end):
    rng = np.random.default_rng(0)
    rows = [[str(n), *rng.choice(TEXTS, 3).tolist()] for n in range(200)]
    with (tmp_path / "log.csv").open("w", newline="") as file:
        csv.writer(file, delimiter=separator, lineterminator=line_end).writerows([["id", "one", "two", "three"], *rows])
    found, names, said = read(tmp_path / "log.csv")
    assert names == ("id", "one", "two", "three")
    assert found.bad.is_empty()
    assert found.good.rows() == [(n + 2, *(cell.strip() for cell in row)) for n, row in enumerate(rows)]
    assert len(said) == (separator != ",")


@pytest.mark.parametrize(
    "content",
    ["a,b\n1,2\n3,4", 'a,b\n"1,5",2\n"""x""",4\n', "a,b\n1,\n,2\n\n\n", "a,b\r\n1,2\r\n", "a\n1\n2\n", "a,b\n1,é\n"],
)
def test_both_ways_of_reading_agree_on_a_clean_file(tmp_path, monkeypatch, content):
    (tmp_path / "log.csv").write_text(content, newline="")
    with monkeypatch.context() as patch:
        patch.setattr(separated, "_read_rows", None)
        fast = read(tmp_path / "log.csv")[0]
    monkeypatch.setattr(separated, "_read_clean", lambda *_: None)
    slow = read(tmp_path / "log.csv")[0]
    assert fast.good.rows() == slow.good.rows()
    assert fast.good.height


@pytest.mark.parametrize(
    ("content", "good", "bad"),
    [
        ("a,b\n1\n2,3\n4,5,6\n", [(3, "2", "3")], [2, 4]),
        ("a,b\n1\n2,3,4\n", [], [2, 3]),  # as many separators as two good rows have
        ("a,b\n1,2\n\n3,4\n", [(2, "1", "2"), (4, "3", "4")], []),
        ('a,b\n1,x"y\n3,4\n', [(2, "1", 'x"y'), (3, "3", "4")], []),
        ('a,b\n1, "x, y"\n', [(2, "1", "x, y")], []),
        ('a,b\n1,"x\ny"\n2,3\n', [(2, "1", "x\ny"), (4, "2", "3")], []),
        ("\n\na,b\n1,2\n", [(4, "1", "2")], []),
        ("a,b\n1,é\n2,ü\n3,\udcff\n4,5\n", [(2, "1", "é"), (3, "2", "ü"), (5, "4", "5")], [4]),
    ],
)
def test_rows_keep_their_lines_and_those_of_other_lengths_are_bad(tmp_path, content, good, bad):
    (tmp_path / "log.csv").write_bytes(content.encode(errors="surrogateescape"))
    rows = read(tmp_path / "log.csv")[0]
    assert rows.good.rows() == good
    assert rows.bad["line"].sort().to_list() == bad


@pytest.mark.parametrize(
    ("name", "content", "names", "said"),
    [
        ("log.csv", "user;item;rating\nu;143;1,0\n", ("user", "item", "rating"), "semicolons"),
        ("log.csv", "user;item,no;rating\nu;1,5;2,5\n", ("user", "item,no", "rating"), "semicolons"),
        ("ratings.dat", "user::item\n1::2\n", ("user", "item"), "double colons"),
        ("log.inter", "user:token\titem:token\ttime:float\nu\t1\t2\n", ("user", "item", "time"), "tabs"),
        ("log.tsv", "user\titem\nThe, X\ty\n", ("user", "item"), None),
        ("log.csv", "user,item\na|b,c|d\n", ("user", "item"), None),
        ("log.csv", "user,item,,\na,b,,\n", ("user", "item"), None),
    ],
)
def test_the_separator_is_the_one_the_file_shows_and_said_when_the_name_says_another(
    tmp_path, name, content, names, said
):
    (tmp_path / name).write_text(content)
    _, found, lines = read(tmp_path / name, ["user", "item"])
    assert found == names
    assert lines == ([] if said is None else [f"the cells of {name} are separated by {said}"])


def test_decimal_commas_between_semicolons_are_points(tmp_path):
    (tmp_path / "log.csv").write_text("a;b;c\n1,5;2,5;2024-01-31T12:00:00,5\n4;x,1;-0,25\n")
    rows = read(tmp_path / "log.csv", ["a", "b", "c"], numbers=["a", "c"])[0]
    assert rows.good.select("a", "b", "c").rows() == [("1.5", "2,5", "2024-01-31T12:00:00,5"), ("4", "x,1", "-0.25")]


def test_without_a_header_columns_have_numbers(tmp_path):
    (tmp_path / "log.csv").write_text("u1\t143\t5\nu2\t144\t4\n")
    rows, names, _ = read(tmp_path / "log.csv", ["1", "3"], has_header=False)
    assert names == ("1", "2", "3")
    assert rows.good.rows() == [(1, "u1", "5"), (2, "u2", "4")]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "cp1251", "utf-16", "shift_jis"])
def test_a_declared_encoding_is_read_and_another_than_utf_8_is_never_guessed(tmp_path, encoding):
    text = "映画" if encoding == "shift_jis" else "фильм"
    (tmp_path / "log.csv").write_text(f"a,b\n1,x\n2,{text}\n", encoding=encoding)
    assert read(tmp_path / "log.csv", encoding=encoding)[0].good["b"].to_list() == ["x", text]
    if encoding.startswith("utf-8"):
        assert read(tmp_path / "log.csv")[1] == ("a", "b")
        with pytest.raises(DataError, match=r"ascii as data\.table\.encoding says, got .* line (1|3) that is not"):
            read(tmp_path / "log.csv", encoding="ascii")
        return
    with pytest.raises(DataError, match=r"must be UTF-8, got .*(line 3 that is not: '2,.x|which is UTF-16)"):
        read(tmp_path / "log.csv")


def test_carriage_returns_alone_end_lines_and_a_long_cell_is_read(tmp_path):
    (tmp_path / "log.csv").write_text("a,b\r1,2\r3,4\r", newline="")
    rows, _, said = read(tmp_path / "log.csv")
    assert rows.good.rows() == [(2, "1", "2"), (3, "3", "4")]
    assert said == ["the lines of log.csv end in carriage returns alone"]
    (tmp_path / "log.csv").write_text('a,b\n1,"' + "x" * 200_000 + '\ny"\n')
    assert read(tmp_path / "log.csv")[0].good["b"].str.len_bytes().to_list() == [200_002]


def test_names_twice_are_an_error_and_a_column_that_is_not_wanted_is_not_kept(tmp_path):
    (tmp_path / "log.csv").write_text("a,b,a\n1,2,3\n")
    with pytest.raises(DataError, match="must name each column once, got a, b, a"):
        read(tmp_path / "log.csv")
    (tmp_path / "log.csv").write_text("b,a,line\n1,2,3\n")
    assert read(tmp_path / "log.csv", ["a"])[0].good.equals(pl.DataFrame({"line": [2], "a": ["2"]}))


def test_the_limit_of_the_csv_module_stays_as_it_was(tmp_path):
    before = csv.field_size_limit()
    (tmp_path / "log.csv").write_text('a,b\n1,"x\ny"\n')
    read(tmp_path / "log.csv")
    (tmp_path / "bad.csv").write_text('a,b\n1,"x\n')
    with pytest.raises(DataError):
        read(tmp_path / "bad.csv")
    assert csv.field_size_limit() == before
