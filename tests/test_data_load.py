"""One setting, one Log."""

import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

from recloop.data.load import DataConfig, load_log, read_log
from recloop.data.simulated import SimulatedConfig
from recloop.errors import DataError, SettingError
from recloop.progress import SILENT, Progress
from recloop.records import Domain
from test_data_movielens import METADATA, RATINGS, write

SMALL = SimulatedConfig(num_users=40)


def test_the_default_is_a_simulated_log_by_the_seed():
    config = DataConfig(simulated=SMALL)
    one, same, other = (read_log(config, seed) for seed in (0, 0, 1))
    assert one.domain == Domain.MOVIES
    assert one.interactions.equals(same.interactions)
    assert not one.interactions.equals(other.interactions)


def test_some_users_are_kept_whole_and_renumbered():
    everything = read_log(DataConfig(simulated=SMALL), 0)
    some = read_log(DataConfig(simulated=SMALL, users=15), 0)
    assert some.num_users == 15
    assert some.users["user"].to_list() == list(range(15))
    assert some.num_items == some.interactions["item"].n_unique()

    def by_ids(dataset):
        log = dataset.interactions.join(dataset.users, on="user").join(dataset.items, on="item")
        return log.select("user_id", "time", "item_id", "title", "rating", "genre").sort("user_id", "time")

    kept = by_ids(everything).join(some.users, on="user_id", how="semi", maintain_order="left")
    assert by_ids(some).equals(kept)
    order = [int(user[1:]) for user in some.users["user_id"]]
    assert (np.diff(order) > 0).all()


def test_more_users_than_there_are_is_refused():
    with pytest.raises(SettingError, match="at most the 40 users of simulated, got 41"):
        read_log(DataConfig(simulated=SMALL, users=41), 0)


def test_movielens_finds_what_lies_beside_it(tmp_path):
    folder = tmp_path / "ml-1m"
    folder.mkdir()
    write(folder)
    (tmp_path / "ml-1m-metadata").mkdir()
    (tmp_path / "ml-1m-metadata" / "movies_extrainfos.dat").write_text("\n".join(METADATA))
    dataset = read_log(DataConfig(name="ml-1m", path=folder), 0)
    assert dataset.items["director"].to_list() == [[], ["Ann Vale", "Bo Crane"], []]
    assert dataset.item_knowledge is None


def test_quarantined_rows_are_counted_aloud(tmp_path, capsys):
    write(tmp_path, ratings=[*RATINGS, "1::30::9::978300001"])
    quarantine = tmp_path / "bad.jsonl"
    config = DataConfig(name="ml-1m", path=tmp_path, on_bad_rows="quarantine", quarantine=quarantine)
    read_log(config, 0, Progress(sys.stdout))
    assert f"1 bad rows set aside in {quarantine}" in capsys.readouterr().out


def write_log(folder):
    (folder / "my-log.csv").write_text(
        "user_id,movie_id,rating,timestamp\na,1,5,2024-01-02\na,2,3,2024-01-01\nb,1,4,1704067200\n"
    )
    (folder / "my-items.csv").write_text("movie_id,name,genre,year\n1,Heat,Action|Drama,1995\n2,Alien,,1979\n")
    return folder


def test_the_readmes_settings_for_a_log_of_ones_own_read_it(tmp_path, monkeypatch, capsys):
    readme = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
    settings = tomllib.loads(readme.partition("## On your own log")[2].split("```")[1].removeprefix("toml"))
    monkeypatch.chdir(write_log(tmp_path))
    dataset = read_log(DataConfig(**settings["data"]), 0, Progress(sys.stdout))
    assert dataset.items.rows() == [
        (0, "1", "Heat", ["Action", "Drama"], ["1995"]),
        (1, "2", "Alien", [], ["1979"]),
    ]
    day, after = 1704067200, 1704067200 + 86_400
    assert dataset.interactions.rows() == [(0, 1, 3.0, day), (0, 0, 5.0, after), (1, 0, 4.0, day)]
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("on_bad_rows", ["error", "quarantine"])
def test_columns_that_nothing_reads_are_named_aloud(tmp_path, capsys, on_bad_rows):
    path = write_log(tmp_path) / "my-log.csv"
    columns = {"user": "user_id", "item": "movie_id"}
    settings = {
        "name": "table",
        "path": path,
        "on_bad_rows": on_bad_rows,
        "quarantine": tmp_path / "bad.jsonl",
    }
    read_log(DataConfig(**settings, table=columns), 0, Progress(sys.stdout))
    assert capsys.readouterr().out == (
        f"nothing reads the columns rating, timestamp of {path}; without table.rating every interaction is "
        f"positive; without table.time rows are taken to be in time order\n"
    )
    read_log(DataConfig(**settings, table=columns | {"time": "timestamp"}), 0, Progress(sys.stdout))
    said = capsys.readouterr().out
    assert "the columns rating of" in said
    assert "table.time" not in said


def test_a_log_without_an_ending_a_folder_and_nothing_are_told_apart(tmp_path):
    (tmp_path / "my-log").write_text("user,item\n")
    for name, complaint in (
        ("my-log", "must hold rows, got .*my-log with a header only"),
        ("", "which is a folder; give the file in it"),
        ("other.csv", "which is not there; check the path"),
    ):
        with pytest.raises(DataError, match=complaint):
            read_log(DataConfig(name="table", path=tmp_path / name), 0)


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"name": "ml-1m"}, "data.path says where ml-1m is, got none"),
        ({"name": "amazon", "path": "x"}, "data.metadata says where the items of amazon are"),
        (
            {"path": "x"},
            "data.path is read for movielens, ml-1m, mind, amazon, implicit, table only, got it with data.name",
        ),
        (
            {"name": "implicit", "path": "x", "min_item_ratings": 5},
            "data.min_item_ratings is read for movielens, ml-1m, table",
        ),
        ({"attributes": ["genre"]}, "data.attributes is read for movielens, ml-1m only"),
        ({"name": "ml-1m", "path": "x", "attributes": ["genre", "genre"]}, "data.attributes must differ"),
        ({"name": "ml-1m", "path": "x", "attributes": []}, "data.attributes must name one column at least"),
        ({"name": "ml-1m", "path": "x", "attributes": ["plot"]}, "Input should be 'era', 'genre'"),
        ({"name": "netflix", "path": "x"}, "Input should be 'simulated'"),
    ],
)
def test_settings_nobody_reads_are_refused(settings, complaint):
    with pytest.raises(ValidationError, match=complaint):
        DataConfig(**settings)


def test_a_resolved_configuration_reads_back():
    config = DataConfig(name="ml-1m", path="x", users=3)
    assert DataConfig.model_validate_json(config.model_dump_json()) == config


@pytest.mark.parametrize("name", ["movielens", "ml-1m", "mind", "amazon", "implicit", "table"])
@pytest.mark.parametrize("odd", ["loop", "loop/x", "file/x", ".", "x" * 3000, "\x00", "nowhere"])
def test_a_path_that_is_none_is_one_clear_error(name, odd, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("loop").symlink_to("loop")
    Path("file").write_text("user,item\nu1,i1\n")
    settings = {"metadata": odd} if name == "amazon" else {}
    with pytest.raises(DataError):
        load_log(name, path=odd, progress=SILENT, **settings)


def test_a_quarantine_that_cannot_be_written_is_one_clear_error(tmp_path):
    (tmp_path / "log.csv").write_text("user,item\nu1,i1\nu2\n")
    settings = {"on_bad_rows": "quarantine", "quarantine": tmp_path / "log.csv" / "bad.jsonl"}
    with pytest.raises(DataError, match=r"bad rows cannot be set aside .*name another file as data.quarantine"):
        load_log("table", path=tmp_path / "log.csv", progress=SILENT, **settings)
