"""Next week: a run goes on with new interactions, as a run of its own."""

import json
from pathlib import Path

import polars as pl
import pytest

import recloop as rl
from recloop.data.splits import SplitConfig, user_groups
from recloop.errors import DataError, RunError, SettingError
from recloop.files import sha256_of_folder
from recloop.methods.use_files import rows_of_test_lists
from recloop.progress import SILENT
from recloop.records import Group
from recloop.testing import FakeEncoder, FakeLM

SETTINGS = {
    "split": {"train": 0.4, "reward": 0.2, "valid": 0.1, "test": 0.3},
    "reranker": {"max_epochs": 2, "min_epoch_steps": 4},
    "statistics": {"num_flips": 200, "num_resamples": 100},
}
TABLE = {
    "user": "who", "item": "what", "rating": "stars", "time": "at", "items": "items.csv", "title": "name",
    "attributes": ["genre", "director"],
}  # fmt: skip
OBJECTS = {"lm": FakeLM(), "encoder": FakeEncoder()}


class Counting(FakeLM):
    """Counts what it is asked."""

    asked = 0

    def generate(self, prompts, sampling):
        self.asked += len(prompts)
        return super().generate(prompts, sampling)


def run_on(folder: Path, out: str, log: str = "log.csv", **settings) -> rl.Results:
    data = {"name": "table", "path": str(folder / log), "table": TABLE | {"items": str(folder / "items.csv")}}
    return rl.run(
        "dpo4rec", data=data, out=folder / out, rounds=0, variants="trained", progress=SILENT, **OBJECTS,
        **(SETTINGS | settings),
    )  # fmt: skip


@pytest.fixture(scope="module")
def weeks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A log in two weeks: in the second a third of the users did something, two users and an item are new."""
    folder = tmp_path_factory.mktemp("weeks")
    log = rl.load_log("simulated", simulated={"num_users": 60, "num_items": 120, "num_interactions": 20})
    rows = log.interactions.join(log.users, on="user").join(log.items.select("item", "item_id"), on="item")
    table = rows.sort("user", "time").select(who="user_id", what="item_id", stars="rating", at="time")
    place, count = pl.int_range(pl.len()).over("who"), pl.len().over("who")
    is_active = pl.col("who").str.slice(1).cast(pl.Int64) % 3 == 0
    is_new = pl.col("who").is_in(["u7", "u8"])
    is_late = (is_active & (place >= count - 4)) | is_new
    table.filter(~is_late).write_csv(folder / "log.csv")
    late = table.filter(is_late).with_columns(what=pl.when(place == 0).then(pl.lit("late")).otherwise("what"))
    late.write_csv(folder / "week2.csv")
    items = log.items.select(
        what="item_id", name="title", genre=pl.col("genre").list.join("|"), director=pl.col("director").list.join("|")
    )
    items.write_csv(folder / "items.csv")
    more = pl.DataFrame({"what": ["late"], "name": ["The Latecomer"], "genre": ["War"], "director": ["Nobody Else"]})
    more.write_csv(folder / "more.csv")
    pl.concat([table.filter(~is_late), late]).write_csv(folder / "all.csv")
    run_on(folder, "week1")
    return folder


def update_of(weeks: Path, out: str, **options) -> rl.Update:
    given = {"items": weeks / "more.csv", "progress": SILENT} | OBJECTS | options
    return rl.update(weeks / "week1", weeks / "week2.csv", weeks / out, **given)


@pytest.mark.slow
def test_only_users_whose_history_changed_are_written_about_and_groups_stay(weeks: Path) -> None:
    before = sha256_of_folder(weeks / "week1")
    lm = Counting()
    found = update_of(weeks, "week2", lm=lm)
    assert sha256_of_folder(weeks / "week1") == before
    old, new = (rl.load(weeks / name, **OBJECTS) for name in ("week1", "week2"))
    texts = {user: (old.texts(user), new.texts(user)) for user in old.user_ids}
    is_same = {user: same[0] == same[1] for user, same in texts.items()}
    changed = {user for user in is_same if int(user[1:]) % 3 == 0}
    assert changed
    assert all(is_same[user] for user in is_same if user not in changed)
    assert 0 < lm.asked <= len(changed) + 2
    groups = [
        {new_or_old.log.users["user_id"][user]: group for group in Group for user in lists.of(group).user_B.tolist()}
        for new_or_old, lists in ((old, old.lists), (new, new.lists))
    ]
    assert {user: groups[1][user] for user in groups[0]} == groups[0]
    assert set(new.log.users["user_id"]) - set(old.log.users["user_id"]) == {"u7", "u8"}
    assert new.log.items.filter(pl.col("item_id") == "late").row(0, named=True)["genre"] == ["War"]
    config = json.loads((weeks / "week2" / "config.json").read_text())
    assert {name: config["split"][name] for name in SETTINGS["split"]} == SETTINGS["split"]  # for users who come later
    assert "2 users and 1 items are new" in str(found)
    assert f"{found.comparison['same_text']} of them keep their text" in str(found)
    assert json.loads((weeks / "week2" / "update.json").read_text()) == found.comparison
    tested = set(rows_of_test_lists(new)["user_id"]) & set(old.user_ids)
    assert found.comparison["num_users"] <= len(tested)
    assert found.comparison["difference"]["value"] == pytest.approx(
        found.comparison["after"] - found.comparison["before"]
    )


@pytest.mark.slow
def test_a_user_added_by_an_update_and_by_a_fresh_run_gets_the_same_text(weeks: Path) -> None:
    update_of(weeks, "week2")
    pl.concat([pl.read_csv(weeks / "items.csv"), pl.read_csv(weeks / "more.csv")]).write_csv(weeks / "both.csv")
    table = TABLE | {"items": str(weeks / "both.csv")}
    data = {"name": "table", "path": str(weeks / "all.csv"), "table": table}
    split = {"groups": str(weeks / "week2.data" / "groups.parquet")}
    if not (weeks / "fresh").exists():
        rl.run(
            "dpo4rec", data=data, out=weeks / "fresh", rounds=0, variants="trained", progress=SILENT, **OBJECTS,
            **(SETTINGS | {"split": split}),
        )  # fmt: skip
    new, fresh = (rl.load(weeks / name, **OBJECTS) for name in ("week2", "fresh"))
    for user in ("u7", "u8", "u0", "u1"):
        assert new.profile(user) == fresh.profile(user)


@pytest.mark.slow
def test_what_an_update_cannot_be_made_from_is_said(weeks: Path) -> None:
    with pytest.raises(DataError, match="1 new items are in no table of items, such as 'late'"):
        update_of(weeks, "no-items", items=None)
    with pytest.raises(DataError, match=r"holds nothing new: the run has all of its [\d,]+ rows"):
        rl.update(weeks / "week1", weeks / "log.csv", weeks / "nothing", progress=SILENT, **OBJECTS)
    (weeks / "made.data").mkdir()
    of_another = pl.DataFrame({"user_id": ["u0"], "group": ["test"]})
    of_another.write_parquet(weeks / "made.data" / "groups.parquet")
    with pytest.raises(RunError, match="made from other data; choose another --out"):
        update_of(weeks, "made")
    assert [path.name for path in (weeks / "made.data").iterdir()] == ["groups.parquet"]
    assert pl.read_parquet(weeks / "made.data" / "groups.parquet").equals(of_another)
    simulated = weeks / "simulated"
    rl.run(
        "dpo4rec", data={"simulated": {"num_users": 60, "num_items": 120, "num_interactions": 20}}, out=simulated,
        rounds=0, variants="trained", progress=SILENT, **OBJECTS, **SETTINGS,
    )  # fmt: skip
    with pytest.raises(SettingError, match=r"an update needs a run on a whole table.*got data.name simulated"):
        rl.update(simulated, weeks / "week2.csv", weeks / "x", progress=SILENT, **OBJECTS)


def test_groups_of_ones_own_take_the_place_of_shares(tmp_path: Path) -> None:
    log = rl.load_log("simulated", users=12)
    ids = log.users["user_id"].to_list()
    names = ["train"] * 6 + ["reward", "reward", "valid", "test", "test"]
    pl.DataFrame({"user_id": ids[:11], "group": names}).write_csv(tmp_path / "groups.csv")
    config = SplitConfig(groups=tmp_path / "groups.csv")
    found = user_groups(log, config, 0)
    assert {group.value: users.tolist() for group, users in found.items()} == {
        "train": [0, 1, 2, 3, 4, 5], "reward": [6, 7], "valid": [8], "test": [9, 10],
    }  # fmt: skip
    lists = rl.candidate_lists(log, split={"groups": str(tmp_path / "groups.csv")})
    assert set(lists.test.user_B.tolist()) <= {9, 10}
    for rows, message in (
        ([("u0", "tests")], "a group is one of train, reward, valid, test, got 'tests'"),
        ([("u0", "train"), ("u0", "test")], "a user is in one group, got 'u0'"),
        ([(ids[0], "train"), ("stranger", "test")], "names no test user"),
    ):
        pl.DataFrame(rows, schema=["user_id", "group"], orient="row").write_parquet(tmp_path / "bad.parquet")
        with pytest.raises(DataError, match=message):
            user_groups(log, SplitConfig(groups=tmp_path / "bad.parquet"), 0)
    (tmp_path / "none.csv").write_text("a,b\n1,2\n")
    with pytest.raises(DataError, match="is a table of user_id and group"):
        user_groups(log, SplitConfig(groups=tmp_path / "none.csv"), 0)
    with pytest.raises(SettingError, match="folds are cut from shares"):
        rl.candidate_lists(log, split={"groups": str(tmp_path / "groups.csv"), "fold": 1})
