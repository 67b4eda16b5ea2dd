"""Any log in a table."""

import gzip
import json

import polars as pl
import pytest
from pydantic import ValidationError

from recloop.data.checks import BadRowPolicy
from recloop.data.table_log import TableLogConfig, read_table_log
from recloop.errors import DataError, SettingError
from recloop.settings import validate

LOG = {
    "who": ["b", "a", "a"],
    "what": ["y", "x", "y"],
    "rate": ["5", "2.5", "4"],
    "when": ["978300007", "978300009", "978300008"],
}
ITEMS = {"what": ["x", "y", "z"], "title": ["The, X", "Y", "Z"], "kind": ["p|q", "", "p"]}
CONFIG = TableLogConfig(user="who", item="what", rating="rate", time="when")
IDS = TableLogConfig(user="who", item="what")


def write(path, columns):
    frame = pl.DataFrame(columns)
    match path.suffix:
        case ".csv":
            frame.write_csv(path)
        case ".tsv":
            frame.write_csv(path, separator="\t")
        case ".parquet":
            frame.write_parquet(path)
        case ".jsonl":
            path.write_text("".join(json.dumps(row) + "\n" for row in frame.iter_rows(named=True)))
    return path


@pytest.mark.parametrize("kind", ["csv", "tsv", "parquet", "jsonl"])
def test_every_kind_of_table_is_read_alike(tmp_path, kind):
    config = CONFIG.model_copy(update={"items": write(tmp_path / f"items.{kind}", ITEMS), "attributes": ("kind",)})
    dataset = read_table_log(write(tmp_path / f"log.{kind}", LOG), config)
    assert dataset.users.rows() == [(0, "b"), (1, "a")]
    assert dataset.items.rows() == [(0, "x", "The, X", ["p", "q"]), (1, "y", "Y", [])]
    assert dataset.interactions.rows() == [(0, 1, 5.0, 978300007), (1, 1, 4.0, 978300008), (1, 0, 2.5, 978300009)]
    assert dataset.positive_from_rating == 4
    assert dataset.name == "log"


def test_without_ratings_times_and_items_the_log_is_implicit_and_in_order(tmp_path):
    dataset = read_table_log(write(tmp_path / "log.csv", LOG), TableLogConfig(user="who", item="what"))
    assert dataset.positive_from_rating is None
    assert dataset.items["title"].to_list() == ["y", "x"]
    assert dataset.interactions.select("user", "item").rows() == [(0, 0), (1, 1), (1, 0)]


def test_numbers_and_dates_are_times(tmp_path):
    when = ["2001-01-01T00:01:00", "2001-01-02", "978307290.9"]
    dataset = read_table_log(write(tmp_path / "log.csv", {**LOG, "when": when}), CONFIG)
    assert sorted(dataset.interactions["time"]) == [978307260, 978307290.9, 978393600]


def test_times_in_another_form_want_its_name_and_never_a_guess(tmp_path):
    log = write(tmp_path / "log.csv", {**LOG, "when": ["01/12/2024", "02/01/2024", "03/03/2024"]})
    for policy in (BadRowPolicy(), BadRowPolicy(tmp_path / "q")):
        with pytest.raises(DataError, match=r"line 2: '01/12/2024' is neither ISO .*data\.table\.time_format"):
            read_table_log(log, CONFIG, bad_rows=policy)
    read = {
        form: read_table_log(log, CONFIG.model_copy(update={"time_format": form})).interactions["time"].to_list()
        for form in ("%m/%d/%Y", "%d/%m/%Y")
    }
    assert read == {"%m/%d/%Y": [1705017600, 1706745600, 1709424000], "%d/%m/%Y": [1733011200, 1704153600, 1709424000]}
    with pytest.raises(SettingError, match="time_format says how"):
        validate(TableLogConfig, {"time_format": "s"})


def test_a_users_table_gives_the_profile(tmp_path):
    users = write(tmp_path / "users.csv", {"who": ["a", "b"], "job": ["cook", "clerk"]})
    dataset = read_table_log(write(tmp_path / "log.csv", LOG), CONFIG.model_copy(update={"users": users}))
    assert dataset.users.rows() == [(0, "a", "cook"), (1, "b", "clerk")]


def test_a_profile_has_all_keys_that_any_user_has(tmp_path):
    users = tmp_path / "users.jsonl"
    users.write_text('{"who": "a", "job": "cook", "tags": ["x"]}\n{"who": "b", "age": 7}\n')
    dataset = read_table_log(write(tmp_path / "log.csv", LOG), CONFIG.model_copy(update={"users": users}))
    assert dataset.users.rows(named=True) == [
        {"user": 0, "user_id": "a", "job": "cook", "age": None},
        {"user": 1, "user_id": "b", "job": None, "age": "7"},
    ]


@pytest.mark.parametrize("kind", ["parquet", "jsonl"])
def test_a_list_in_a_cell_is_several_attribute_values(tmp_path, kind):
    items = {
        "what": ["x", "y"],
        "title": ["X", "Y"],
        "kind": [["p", "q, r", "p"], None],
        "year": [[1990], []],
    }
    config = CONFIG.model_copy(
        update={"items": write(tmp_path / f"items.{kind}", items), "attributes": ("kind", "year")}
    )
    dataset = read_table_log(write(tmp_path / "log.csv", LOG), config)
    assert dataset.items.select("kind", "year").rows() == [(["p", "q r"], ["1990"]), ([], [])]


def test_a_profile_may_not_take_the_name_of_the_ids(tmp_path):
    users = write(tmp_path / "users.csv", {"who": ["a", "b"], "user_id": ["1", "2"]})
    with pytest.raises(DataError, match="no profile column called 'user_id', got one beside the ids in 'who'"):
        read_table_log(write(tmp_path / "log.csv", LOG), CONFIG.model_copy(update={"users": users}))


def test_bytes_that_are_no_text_and_a_column_called_line_are_named(tmp_path):
    log = write(tmp_path / "log.parquet", {**LOG, "what": [b"x", b"\xff", b"y"]})
    with pytest.raises(DataError, match="must hold text or numbers in column 'what'"):
        read_table_log(log, CONFIG)
    log = write(tmp_path / "log.parquet", {**LOG, "line": [4, 5, 6], "rest": [b"\xff"] * 3})
    assert read_table_log(log, CONFIG).interactions.height == 3
    with pytest.raises(DataError, match="must have no column 'line'"):
        read_table_log(log, CONFIG.model_copy(update={"time": "line"}))


def test_json_that_cannot_be_kept_is_a_bad_row(tmp_path):
    log = tmp_path / "log.jsonl"
    half, digits, deep = '{"who": "\\ud83d", "what": 1}', f'{{"who": {"1" * 5000}}}', "[" * 100_000
    log.write_text("\n".join(['{"who": "\\ud83d\\ude00", "what": 1}', half, digits, deep]))
    with pytest.raises(DataError) as caught:
        read_table_log(log, IDS)
    assert [n for n in range(1, 5) if f"line {n}: " in str(caught.value)] == [2, 3, 4]
    dataset = read_table_log(log, IDS, bad_rows=BadRowPolicy(tmp_path / "q"))
    assert dataset.users["user_id"].to_list() == ["\U0001f600"]


def test_quoted_cells_may_span_lines(tmp_path):
    path = tmp_path / "log.csv"
    path.write_text('who,what\na,"x\ny"\n\n"b, c",z\nd\n')
    with pytest.raises(DataError, match=r"line 6: 'd' does not have the 2 cells of the header"):
        read_table_log(path, TableLogConfig(user="who", item="what"))
    dataset = read_table_log(path, TableLogConfig(user="who", item="what"), bad_rows=BadRowPolicy(tmp_path / "q"))
    assert dataset.users["user_id"].to_list() == ["a", "b, c"]


ROWS = "".join(f"u{n},i{n}\n" for n in range(3, 25))


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (
            'who,what\nu1,i1\nu2,"i2\n' + ROWS,
            "the rest of the file in one cell in the row that begins on line 3",
        ),
        ('"who,what\n' + ROWS, "the rest of the file in one cell in the row that begins on line 1"),
        ('who,what\nu1,"i1\n' + 9_000 * ROWS, "field larger than field limit .* begins on line 2"),
        # Closed by the next stray quote: cells "i1\nu2,i2\n", then what follows it up to the end of the line.
        ('who,what\nu1,"i1\nu2,i2\n",x,\nu3,i3\n', "4 cells for 2 columns in the row that begins on line 2"),
        ("who,what\nu1,i\r1\n", "a carriage return inside line 2"),
        ("who,what\ru1,i1\ru2,i2\r", "a carriage return inside line 1"),
    ],
)
def test_a_stray_quote_or_line_end_is_an_error_of_the_file_even_under_quarantine(tmp_path, content, complaint):
    path = tmp_path / "log.csv"
    path.write_text(content, newline="")
    for policy in (BadRowPolicy(), BadRowPolicy(tmp_path / "q")):
        with pytest.raises(DataError, match=complaint):
            read_table_log(path, IDS, bad_rows=policy)


def test_a_closed_quote_may_hold_line_ends_of_every_kind(tmp_path):
    path = tmp_path / "log.csv"
    path.write_text('who,what\r\nu1,"i\r1"\r\nu2,"i""2\r\nx"', newline="")
    assert read_table_log(path, IDS).items["item_id"].to_list() == ["i\r1", 'i"2\nx']


def test_a_packed_table_is_unpacked_or_named(tmp_path):
    path = tmp_path / "log.csv.gz"
    path.write_bytes(gzip.compress("who,what\né,i1\n".encode()))
    dataset = read_table_log(path, IDS)
    assert (dataset.name, dataset.users["user_id"].to_list()) == ("log", ["é"])
    path.write_text("who,what\nu1,i1\n")
    with pytest.raises(DataError, match="must be gzip as its name says"):
        read_table_log(path, IDS)


@pytest.mark.parametrize("name", ["log.csv", "log.jsonl"])
def test_utf_16_is_named(tmp_path, name):
    (tmp_path / name).write_text('who,what\n{"who": "a", "what": "b"}\n', encoding="utf-16")
    with pytest.raises(DataError, match=r"must be UTF-8, got .* which is marked as UTF-16; save it as UTF-8"):
        read_table_log(tmp_path / name, IDS)


def test_a_header_in_another_encoding_than_the_rows_is_named(tmp_path):
    rows = "".join(f"é{n},i1\n" for n in range(3))
    (tmp_path / "log.csv").write_bytes("who,what,qué\n".encode() + rows.encode("latin-1"))
    with pytest.raises(DataError, match=r"must begin with a header, got .* line 1 that is not in the encoding"):
        read_table_log(tmp_path / "log.csv", IDS, bad_rows=BadRowPolicy(tmp_path / "q"))


BAD = [
    ("who", "", "has no who"),
    ("what", "", "has no what"),
    ("what", "w", "'w' is not in the table of items"),
    ("rate", "5.5", "'5.5' is not a rating from 1 to 5"),
    ("rate", "", "is not a rating"),
    ("when", "soon", "'soon' is neither ISO 8601"),
    ("when", "1704067200000", "'1704067200000' is neither ISO 8601"),
    ("when", "", "is neither ISO 8601"),
    ("who", "b", "'b, y' repeats the user and item"),
]


@pytest.mark.parametrize(("column", "value", "complaint"), BAD, ids=[complaint for *_, complaint in BAD])
def test_a_bad_row_is_one_error_or_is_set_aside(tmp_path, column, value, complaint):
    row = {"who": "c", "what": "y", "rate": "3", "when": "978300001", column: value}
    log = write(tmp_path / "log.csv", {name: [*cells, row[name]] for name, cells in LOG.items()})
    config = CONFIG.model_copy(update={"items": write(tmp_path / "items.csv", ITEMS)})
    with pytest.raises(DataError) as caught:
        read_table_log(log, config)
    assert f"{log} line 5: " in str(caught.value)
    assert complaint in str(caught.value)
    dataset = read_table_log(log, config, bad_rows=BadRowPolicy(tmp_path / "bad.jsonl"))
    assert dataset.interactions.height == 3


@pytest.mark.parametrize(
    ("name", "content", "complaint"),
    [
        ("log.xls", "x", "got .xls"),
        ("log.csv", "", "which is empty"),
        ("log.csv", "who,what,rate,when\n", "with a header only"),
        ("log.csv", "who,what,when\na,x,1\n", "must have a column 'rate', got who, what, when"),
        ("log.csv", "who,who\na,b\n", "must name each column once"),
        ("log.parquet", "not parquet", "must be Parquet"),
        ("log.jsonl", '{"who": 1, "userId": 2}\n{"itemId": 3}\n', "'what', got who, userId, itemId in"),
        ("log.jsonl", "who,what\n\nu1,i1\n", r"must hold a JSON object a line, .* \(line 1: 'who,what'\)"),
        ("log.jsonl", '{"who": 1, "what": [1], "rate": 1, "when": 1}', "text or numbers in column 'what'"),
    ],
)
def test_a_table_of_the_wrong_form_is_one_clear_error(tmp_path, name, content, complaint):
    (tmp_path / name).write_text(content)
    with pytest.raises(DataError, match=complaint):
        read_table_log(tmp_path / name, CONFIG)


def test_settings_must_fit_together():
    with pytest.raises(ValidationError, match="attributes are columns of the table of items"):
        TableLogConfig(attributes=("kind",))
    for attributes in (("kind", "kind"), ("title",), ("item_id",)):
        with pytest.raises(ValidationError, match="attributes must differ from each other and from item, item_id"):
            TableLogConfig(items="items.csv", attributes=attributes)
    with pytest.raises(ValidationError, match="positive_from_rating must be above rating_min"):
        TableLogConfig(rating="rate", positive_from_rating=9)
