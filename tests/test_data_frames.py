"""Logs in data frames, and impressions in tables: the same log and the same checks as from files."""

from datetime import UTC, datetime

import datasets
import numpy as np
import pandas as pd
import polars as pl
import pytest

import recloop as rl
from recloop.data.checks import BadRowPolicy
from recloop.data.table_config import TableLogConfig
from recloop.data.table_log import read_table_log
from recloop.errors import DataError, SettingError
from recloop.progress import Progress
from recloop.rerankers.list_baselines import AsShown

BOUGHT = {
    "user_id": ["b", "a", "a"],
    "item_id": [7, 5, 7],
    "rating": [5.0, 2.5, 4.0],
    "time": [978300007, 978300009, 978300008],
}
ITEMS = {"item_id": [5, 7, 9], "title": ["X", "Y (1995)", "Z"], "kind": [["p", "q"], [], ["p"]]}
USERS = {"user_id": ["a", "b"], "town": ["Ulm", "Bonn"]}
SHOWN = {
    "user_id": ["a"] * 3 + ["b"] * 2,
    "list_id": [1, 1, 1, 2, 2],
    "item_id": [5, 7, 9, 9, 5],
    "label": [0, 1, 0, 1, 0],
    "position": [1, 2, 3, 1, 2],
    "time": [978300100, 978300100, 978300100, 978300200, 978300200],
}
MAKERS = {"polars": pl.DataFrame, "pandas": pd.DataFrame, "datasets": datasets.Dataset.from_dict}


def told():
    lines = []
    progress = Progress(None)
    progress.say = lines.append
    return progress, lines


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_every_kind_of_frame_is_read_as_the_file_is(tmp_path, make):
    log = rl.Log.from_frames(make(BOUGHT), make(ITEMS), make(USERS), make(SHOWN), attributes=("kind",))
    pl.DataFrame(BOUGHT).write_parquet(tmp_path / "log.parquet")
    for name, table in (("items", ITEMS), ("users", USERS), ("shown", SHOWN)):
        pl.DataFrame(table).write_parquet(tmp_path / f"{name}.parquet")
    table = {
        "user": "user_id", "item": "item_id", "rating": "rating", "time": "time", "attributes": ("kind",),
        "items": tmp_path / "items.parquet", "users": tmp_path / "users.parquet",
        "impressions": tmp_path / "shown.parquet", "list": "list_id", "position": "position", "shown_at": "time",
    }  # fmt: skip
    read = rl.load_log("table", path=tmp_path / "log.parquet", table=table)
    for part in ("users", "items", "interactions", "impressions"):
        assert getattr(log, part).equals(getattr(read, part)), part
    assert log.users.rows() == [(0, "a", "Ulm"), (1, "b", "Bonn")]
    assert log.items.rows()[0] == (0, "5", "X", ["p", "q"])
    assert log.interactions.rows() == [(0, 1, 4.0, 978300008.0), (0, 0, 2.5, 978300009.0), (1, 1, 5.0, 978300007.0)]
    assert log.impressions.rows()[0] == (0, 0, "1", 0, 0.0, 1, None, 978300100.0)


def test_times_may_be_dates_with_or_without_a_zone():
    when = [datetime(2020, 1, 1, 12, tzinfo=UTC), datetime(2020, 1, 2), datetime(2020, 1, 3)]
    plain = pl.DataFrame({**BOUGHT, "time": [moment.replace(tzinfo=None) for moment in when]})
    zoned = plain.with_columns(pl.col("time").dt.replace_time_zone("UTC").dt.convert_time_zone("Asia/Tokyo"))
    first, second = (rl.Log.from_frames(frame).interactions for frame in (plain, zoned))
    assert first.equals(second)
    assert first["time"].max() == 1577880000.0 + 1.5 * 86400


def test_what_nothing_reads_is_said():
    progress, lines = told()
    log = rl.Log.from_frames(pl.DataFrame({**BOUGHT, "shop": [1, 2, 3]}), rating=None, progress=progress)
    assert log.positive_from_rating is None
    [line] = lines
    assert line.startswith("nothing reads the columns rating, shop of the frame of interactions; without rating every")
    progress, lines = told()
    items = pl.DataFrame({"item_id": [5, 7], "title": ["X", "Y"], "leaf": ["green", "black"]})
    rl.Log.from_frames(pl.DataFrame(BOUGHT), items, progress=progress)
    assert lines[0] == (
        "nothing reads the columns leaf of the frame of items; name in attributes those that prompts and rerankers "
        "should have"
    )


@pytest.mark.parametrize(
    ("changes", "columns", "message"),
    [
        ({"user_id": None}, {}, r"'user_id', got item_id, rating, time in the frame of interactions; say with user"),
        ({"rating": [5.0, 9.0, 4.0]}, {}, r"line 2: '9' is not a rating .*with rating_max.*\n.*or leave them out"),
        ({"rating": [5.0, np.nan, 4.0]}, {}, "line 2: '.missing.' is not a rating"),
        ({"item_id": [7, 7, 7]}, {}, r"line 3: 'a, 7' repeats the user and item .* with repeats which count"),
        ({"time": ["1/2/2020", "2/2/2020", "3/2/2020"]}, {}, "say how times are written with time_format"),
    ],
)  # fmt: skip
def test_a_frame_is_checked_as_a_file_is(changes, columns, message):
    table = {name: cells for name, cells in (BOUGHT | changes).items() if cells is not None}
    with pytest.raises(DataError, match=f"(?s){message}"):
        rl.Log.from_frames(pl.DataFrame(table), **columns)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (({"user_id": ["a"]},), DataError, "interactions must be a frame of polars, pandas or datasets, got dict"),
        ((pl.DataFrame(BOUGHT), [1]), DataError, "items must be a frame .* got list"),
        ((pl.DataFrame(BOUGHT), None, None, 3), DataError, "impressions must be a frame .* got int"),
        ((pd.DataFrame({"user_id": ["a", 1], "item_id": [1, 2]}),), DataError, "plain columns, got a frame of pandas"),
    ],
)
def test_what_is_no_frame_is_one_error(arguments, error, message):
    with pytest.raises(error, match=message):
        rl.Log.from_frames(*arguments)


def test_settings_are_those_of_the_columns_alone():
    with pytest.raises(SettingError, match=r"usr.*did you mean user"):
        rl.Log.from_frames(pl.DataFrame(BOUGHT), usr="user_id")
    with pytest.raises(SettingError, match="attributes are columns of the table of items"):
        rl.Log.from_frames(pl.DataFrame(BOUGHT), attributes=("kind",))
    with pytest.raises(SettingError, match="position is a column of the table of impressions"):
        rl.Log.from_frames(pl.DataFrame(BOUGHT), position="place")
    with pytest.raises(SettingError, match="user and item must be different columns"):
        rl.Log.from_frames(pl.DataFrame(BOUGHT), item="user_id")


def lists_in(tmp_path, **changes):
    (tmp_path / "log.csv").write_text("user,item,when\na,5,2020-01-01\nb,7,2020-01-01\n")
    table = {"user": ["a", "a", "b", "b"], "item": [5, 7, 9, 5], "list": [1, 1, 2, 2], "label": [0, 1, 1, 0]}
    pl.DataFrame(table | {name: cells for name, cells in changes.items() if cells is not None}).write_csv(
        tmp_path / "shown.csv"
    )
    return tmp_path / "log.csv"


def read_lists(path, **settings):
    config = TableLogConfig(time="when", impressions=path.with_name("shown.csv"), **settings)
    return read_table_log(path, config, bad_rows=BadRowPolicy())


def test_lists_in_a_table_bring_items_and_users_that_the_log_lacks(tmp_path):
    log = read_lists(lists_in(tmp_path, user=["a", "a", "c", "c"]))
    assert log.users["user_id"].to_list() == ["a", "b", "c"]
    assert log.items["item_id"].to_list() == ["5", "7", "9"]
    assert log.impressions["time"].is_null().all()


def test_without_times_a_history_leaves_out_what_was_listed(tmp_path):
    log = read_lists(lists_in(tmp_path))
    histories = rl.lists_from_impressions(log, split={"train": 0.5, "reward": 0, "valid": 0, "test": 0.5}).histories
    assert histories.of(0)[0].tolist() == []  # 5 stands in the user's list: it may be what was chosen there
    assert log.items["item_id"][histories.of(1)[0]].to_list() == ["7"]


@pytest.mark.parametrize(
    ("changes", "settings", "message"),
    [
        ({"label": [0, "yes", 1, 0]}, {}, "shown.csv line 3: 'yes' is not 0 or a positive grade"),
        ({"label": [0, -1, 1, 0]}, {}, "line 3: '-1' is not 0 or a positive grade"),
        ({"list": [1, "", 2, 2]}, {}, "line 3: '7' is of no list"),
        ({"place": [1, 2, "top", 2]}, {"position": "place"}, "line 4: 'top' is not a number, as a position is"),
        ({}, {"score": "points"}, "table of impressions must have a column 'points'.*data.table.score"),
        (
            {"list": [1, 1, 1, 1], "item": [5, 7, 9, 4]},
            {},
            "got list '1' of 'a' and 'b'; number lists apart",
        ),
        ({"item": [5, 5, 9, 5]}, {}, "line 3: '1, 5' repeats the list and item of an earlier line"),
        ({"place": [1, 2, 0, 1]}, {"position": "place"}, "must be a whole number from 1, got 0; count from 1"),
        ({"place": [1, 2, 1.5, 1]}, {"position": "place"}, "must be a whole number from 1, got 1.5"),
        ({"at": [1, 2, 3, 4]}, {"shown_at": "at"}, "say how times are written with data.table.time_format"),
    ],
)
def test_wrong_lists_are_one_error(tmp_path, changes, settings, message):
    with pytest.raises(DataError, match=f"(?s){message}"):
        read_lists(lists_in(tmp_path, **{name: list(map(str, cells)) for name, cells in changes.items()}), **settings)


def test_a_log_says_how_it_was_read(tmp_path):
    (tmp_path / "log.csv").write_text("user;item;shop\na;x;1\nb;y;2\n;z;3\n")
    quarantine = {"on_bad_rows": "quarantine", "quarantine": tmp_path / "bad.jsonl"}
    log = rl.load_log("table", path=tmp_path / "log.csv", users=1, **quarantine)
    head, *rest = log.reading
    assert head == "reader table: 2 interactions of 2 users with 2 items; kept 1 users, drawn"
    assert any("semicolons" in line for line in rest)
    assert any("nothing reads the columns shop" in line for line in rest)
    assert any("1 bad rows set aside" in line and "has no user" in line for line in rest)
    frames = rl.Log.from_frames(pl.DataFrame(BOUGHT), impressions=pl.DataFrame(SHOWN))
    assert frames.reading[0] == "frames: 3 interactions of 2 users with 3 items, 2 lists shown"


def test_lists_of_one_item_are_counted_and_left_out():
    alone = pl.DataFrame({"user_id": ["a"], "list_id": ["9"], "item_id": [5], "label": [1]})
    shown = pl.concat([pl.DataFrame(SHOWN).select(alone.columns).cast({"list_id": pl.String}), alone])
    log = rl.Log.from_frames(pl.DataFrame(BOUGHT), impressions=shown)
    lists = rl.lists_from_impressions(log, split={"train": 0.5, "reward": 0, "valid": 0, "test": 0.5})
    assert lists.notes == ("1 of 3 lists hold one item and are left out",)


def test_times_of_lists_want_times_of_the_log_since_all_would_lie_before():
    bought, shown = pl.DataFrame(BOUGHT), pl.DataFrame(SHOWN)
    with pytest.raises(DataError, match="got shown_at and no times of the log; name them with time, or"):
        rl.Log.from_frames(bought.drop("time"), impressions=shown)
    ordered = bought.with_columns(time=pl.Series([1, 2, 3]))
    with pytest.raises(DataError, match="got times of the lists and a mere order of the log"):
        rl.with_impressions(rl.Log.from_frames(ordered, time_format="order"), shown.filter(pl.col("item_id") != 9))


def test_clicks_are_named_or_said_to_be_absent():
    bought, shown = pl.DataFrame(BOUGHT), pl.DataFrame(SHOWN)
    with pytest.raises(DataError, match=r"must have a column 'label'.*say with label what it is called"):
        rl.Log.from_frames(bought, impressions=shown.rename({"label": "clicked"}))
    log = rl.Log.from_frames(bought, impressions=shown.drop("label").with_columns(time=pl.lit(978300000)), label=None)
    assert log.reading[-1] == "lists without labels: 1 of 5 items were liked later"
    assert log.impressions.filter(pl.col("label") > 0).select("user", "list_id").rows() == [(1, "1")]


def test_clicks_may_be_true_and_false(tmp_path):
    bought, shown = pl.DataFrame(BOUGHT), pl.DataFrame(SHOWN)
    clicks = shown.with_columns(pl.col("label").cast(pl.Boolean))
    logs = [rl.Log.from_frames(bought, impressions=one) for one in (shown, clicks)]
    assert logs[0].impressions.equals(logs[1].impressions)
    assert rl.with_impressions(logs[0], clicks).impressions.equals(logs[0].impressions)


def test_what_lists_hold_beside_is_said_and_users_without_a_history_are_counted():
    shown = pl.DataFrame(SHOWN).with_columns(device=pl.lit("phone"), user_id=pl.lit("c"))
    log = rl.Log.from_frames(pl.DataFrame(BOUGHT), impressions=shown)
    assert "nothing reads the columns device of the frame of impressions" in log.reading
    assert "1 users of lists have no interactions: their histories are empty" in log.reading
    made = rl.candidate_lists(rl.load_log(users=40))
    assert made.notes == ()


def test_lists_that_other_protocols_do_not_read_are_said():
    log = rl.load_log("simulated", users=40)
    ids = log.users["user_id"][0], log.items["item_id"]
    shown = {"user_id": [ids[0]] * 2, "list_id": [1, 1], "item_id": ids[1][:2].to_list(), "label": [0, 1]}
    [note] = rl.candidate_lists(rl.with_impressions(log, pl.DataFrame(shown))).notes
    assert note == "1 lists shown are not read by protocol kar; protocol.kind impressions ranks them"


def test_lists_nobody_clicked_in_and_wrong_arguments_are_one_error():
    log = rl.Log.from_frames(pl.DataFrame(BOUGHT), impressions=pl.DataFrame(SHOWN))
    split = {"train": 0.5, "reward": 0, "valid": 0, "test": 0.5}
    with pytest.raises(DataError, match="got no positive label in any; check the labels"):
        rl.lists_from_impressions(log, pl.DataFrame(SHOWN).with_columns(label=pl.lit(0)), split=split)
    with pytest.raises(SettingError, match="groups must be one of user, time, got 'date'"):
        rl.lists_from_impressions(log, groups="date")
    lists = rl.lists_from_impressions(log, split=split)
    with pytest.raises(SettingError, match=r"must be an object, got the class AsShown"):
        rl.evaluate(AsShown, lists.test, metrics="ndcg@5", empty="drop")
    with pytest.raises(SettingError, match=r"pass one, e.g. lists.test"):
        rl.evaluate(AsShown(), lists, metrics="ndcg@5", empty="drop")
    assert rl.evaluate(AsShown(), lists.test, metrics="ndcg@5", empty="drop").metrics == ("ndcg@5",)
