"""Damaged files of every kind: a reader either reads them or raises an error of ours that names a file."""

import gzip
import io
import json

import numpy as np
import pytest

from recloop.data.amazon import read_amazon
from recloop.data.checks import BadRowPolicy
from recloop.data.implicit_log import read_implicit
from recloop.data.kar_knowledge import read_klg
from recloop.data.load import load_log
from recloop.data.movielens import read_movielens
from recloop.data.table_config import TableLogConfig
from recloop.data.table_log import read_table_log
from recloop.errors import DataError, RecloopError
from recloop.progress import SILENT
from test_data_amazon import META_2014, META_2018, REVIEWS, TWO_CORE
from test_data_amazon import write as write_amazon
from test_data_implicit_log import write as write_implicit
from test_data_kar_knowledge import klg_folder
from test_data_movielens import METADATA
from test_data_movielens import write as write_movielens
from test_data_table_log import CONFIG, ITEMS, LOG
from test_data_table_log import write as write_table

PIECES = [
    b"",
    b"::",
    b"\n",
    b"\x00",
    b"\xff",
    b"\xc3",
    b'"',
    b"{",
    b"[]",
    b"-1",
    b"1e999",
    b"null",
    b",",
    b"NaN",
    b"\\",
]


def movielens(folder):
    (folder / "extra.dat").write_text("\n".join(METADATA))
    (folder / "texts.json").write_text('{"2": "a", "7": "b"}')
    write_movielens(folder)
    return lambda policy: read_movielens(
        folder, metadata=folder / "extra.dat", item_knowledge=folder / "texts.json", bad_rows=policy
    )


def amazon_2014(folder):
    paths = write_amazon(folder, REVIEWS, META_2014)
    return lambda policy: read_amazon(*paths, TWO_CORE, policy)


def amazon_packed(folder):
    paths = write_amazon(folder, REVIEWS, META_2018, packed=True)
    return lambda policy: read_amazon(*paths, TWO_CORE, policy)


def implicit(folder):
    write_implicit(folder)
    return lambda policy: read_implicit(folder, policy)


def kar(folder):
    klg_folder(folder)
    return lambda policy: read_klg(folder, policy)


def table(kind):
    def made(folder):
        log, items = write_table(folder / f"log.{kind}", LOG), write_table(folder / f"items.{kind}", ITEMS)
        config = CONFIG.model_copy(update={"items": items, "attributes": ("kind",)})
        return lambda policy: read_table_log(log, config, bad_rows=policy)

    made.__name__ = kind
    return made


KINDS = [movielens, amazon_2014, amazon_packed, implicit, kar, table("csv"), table("parquet"), table("jsonl")]


def complaint_of(read, policy):
    """The message of the error of ours that reading ends in; None when it does not. Others come through."""
    try:
        read(policy)
    except RecloopError as error:
        return str(error)
    return None


@pytest.mark.slow
@pytest.mark.parametrize("num_damages", [6, pytest.param(100, marks=pytest.mark.soak)])
@pytest.mark.parametrize("make", KINDS, ids=lambda make: make.__name__)
def test_damage_is_read_or_named(tmp_path, make, num_damages):
    rng = np.random.default_rng(0)
    read = make(tmp_path)
    assert complaint_of(read, BadRowPolicy()) is None
    originals = {path: path.read_bytes() for path in sorted(tmp_path.iterdir())}
    complaints = []
    for damage in range(num_damages):
        path = list(originals)[damage % len(originals)]
        raw = originals[path]
        start = int(rng.integers(len(raw)))
        stop = start + int(rng.integers(0, 6))
        path.write_bytes(raw[:start] + PIECES[rng.integers(len(PIECES))] + raw[stop:])
        complaints.append(complaint_of(read, BadRowPolicy()))
        if complaints[-1] is None:
            complaints.pop()
        else:
            named = (path.name.split(".")[0], "must have interactions")
            assert any(name in complaints[-1] for name in named)
            complaint_of(read, BadRowPolicy(tmp_path.parent / f"{make.__name__}.bad"))
        path.write_bytes(raw)
    assert complaints


@pytest.mark.parametrize("item", [None, {"title": ["a"]}, {"title": "t", "categories": 5, "brand": {}}, {"title": "t"}])
def test_a_wrong_shape_inside_json_is_read_or_named(tmp_path, item):
    write_implicit(tmp_path, log={"a": [0]})
    (tmp_path / "x.item.json").write_text(json.dumps({"0": item}))
    complaint = complaint_of(lambda policy: read_implicit(tmp_path, policy), BadRowPolicy())
    assert complaint is None or "x.item.json line 1" in complaint


def test_a_gzip_bomb_is_refused_before_it_is_unpacked(tmp_path):
    raw = io.BytesIO()
    with gzip.GzipFile(fileobj=raw, mode="wb") as packed:
        packed.write(b"user,item\n")
        for _ in range(300):
            packed.write(b"u1,i1\n" * 200_000)
    (tmp_path / "log.csv").write_bytes(raw.getvalue())
    with pytest.raises(DataError, match=r"must unpack to at most 100 times its size, got .*log\.csv"):
        read_table_log(tmp_path / "log.csv", CONFIG)


def test_what_packs_well_is_read(tmp_path):
    rows = b"".join(b"u%d,i1\n" % n for n in range(200_000))
    (tmp_path / "log.csv").write_bytes(gzip.compress(b"user,item\n" + rows))
    assert read_table_log(tmp_path / "log.csv", TableLogConfig()).num_users == 200_000


@pytest.mark.parametrize("head", [b"user,item\nu1,", b'{"user": "u1", "item": "'], ids=["cells", "objects"])
def test_a_huge_cell_is_refused_at_once(tmp_path, head):
    (tmp_path / "log.csv").write_bytes(head + b"x" * 20_000_000 + b'"}\n')
    with pytest.raises(DataError, match="lines of at most 8 MiB"):
        read_table_log(tmp_path / "log.csv", TableLogConfig())


def test_a_cell_of_a_megabyte_is_read(tmp_path):
    (tmp_path / "log.csv").write_bytes(b"user,item\nu1," + b"x" * 1_000_000 + b"\nu2,i\n")
    assert read_table_log(tmp_path / "log.csv", TableLogConfig()).items["item_id"].str.len_chars().max() == 1_000_000


def test_ids_that_stand_for_titles_and_what_is_said_hold_no_control_characters(tmp_path):
    (tmp_path / "log.csv").write_bytes(b"user,item,\x1b[2J\nu1,i\x1b[31m1,x\nu2,i2,y\n")
    log = load_log("table", path=tmp_path / "log.csv", progress=SILENT)
    assert log.items["title"].to_list() == ["i [31m1", "i2"]
    assert any("\\x1b[2J" in line for line in log.reading)
    assert not any("\x1b" in line for line in log.reading)


@pytest.mark.parametrize("blank", [" ", "\u200b", "\u2003\t"])
def test_a_title_of_nothing_that_is_seen_is_a_bad_row(tmp_path, blank):
    (tmp_path / "ratings.dat").write_text("1::1::5::978300000\n1::2::3::978300001\n")
    (tmp_path / "movies.dat").write_text(f"1::{blank}::Drama\n2::Heat (1995)::Crime\n")
    with pytest.raises(DataError, match="line 1: '1' has no title"):
        load_log("movielens", path=tmp_path, progress=SILENT)


def test_a_folder_takes_no_bad_rows(tmp_path):
    (tmp_path / "log.csv").write_text("user,item\nu1,i1\n")
    settings = {"on_bad_rows": "quarantine", "quarantine": tmp_path}
    with pytest.raises(DataError, match=r"data\.quarantine must be a file, got the folder"):
        load_log("table", path=tmp_path / "log.csv", progress=SILENT, **settings)
    assert [path.name for path in tmp_path.iterdir()] == ["log.csv"]
    assert not list(tmp_path.parent.glob(".*.part"))


@pytest.mark.parametrize("position", ["1e300", "inf", "0", "1.5"])
def test_a_place_in_a_list_is_a_whole_number(tmp_path, position):
    (tmp_path / "log.csv").write_text("user,item\nu1,i1\nu1,i2\n")
    (tmp_path / "shown.csv").write_text(f"user,list,item,label,place\nu1,l1,i1,1,1\nu1,l1,i2,0,{position}\n")
    table = {"impressions": tmp_path / "shown.csv", "position": "place"}
    with pytest.raises(DataError, match=r"whole number from 1|is not a number, as a position is"):
        load_log("table", path=tmp_path / "log.csv", table=table, progress=SILENT)
