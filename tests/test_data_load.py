"""One setting, one Dataset."""

import numpy as np
import pytest
from pydantic import ValidationError

from recloop.data.load import DataConfig, load_dataset
from recloop.data.worlds import WorldConfig
from recloop.errors import SettingError
from recloop.progress import Progress
from recloop.records import Domain
from test_data_movielens import METADATA, RATINGS, write

SMALL = WorldConfig(num_users=40)


def test_the_default_is_a_simulated_world_by_the_seed():
    config = DataConfig(world=SMALL)
    one, same, other = (load_dataset(config, seed) for seed in (0, 0, 1))
    assert one.domain == Domain.MOVIES
    assert one.interactions.equals(same.interactions)
    assert not one.interactions.equals(other.interactions)


def test_some_users_are_kept_whole_and_renumbered():
    everything = load_dataset(DataConfig(world=SMALL), 0)
    some = load_dataset(DataConfig(world=SMALL, users=15), 0)
    assert some.num_users == 15
    assert some.users["user"].to_list() == list(range(15))
    assert some.num_items == some.interactions["item"].n_unique()

    def by_ids(dataset):
        log = dataset.interactions.join(dataset.users, on="user").join(dataset.items, on="item")
        return log.select("user_id", "time", "item_id", "title", "stars", "genre").sort("user_id", "time")

    kept = by_ids(everything).join(some.users, on="user_id", how="semi", maintain_order="left")
    assert by_ids(some).equals(kept)
    order = [int(user[1:]) for user in some.users["user_id"]]
    assert (np.diff(order) > 0).all()


def test_more_users_than_there_are_is_refused():
    with pytest.raises(SettingError, match="at most the 40 users of worlds, got 41"):
        load_dataset(DataConfig(world=SMALL, users=41), 0)


def test_movielens_finds_what_lies_beside_it(tmp_path):
    folder = tmp_path / "ml-1m"
    folder.mkdir()
    write(folder)
    (tmp_path / "ml-1m-metadata").mkdir()
    (tmp_path / "ml-1m-metadata" / "movies_extrainfos.dat").write_text("\n".join(METADATA))
    dataset = load_dataset(DataConfig(name="ml-1m", path=folder), 0)
    assert dataset.items["director"].to_list() == [[], ["Ann Vale", "Bo Crane"], []]
    assert dataset.item_knowledge is None


def test_quarantined_rows_are_counted_aloud(tmp_path, capsys):
    import sys

    write(tmp_path, ratings=[*RATINGS, "1::30::9::1"])
    quarantine = tmp_path / "bad.jsonl"
    config = DataConfig(name="ml-1m", path=tmp_path, on_bad_rows="quarantine", quarantine=quarantine)
    load_dataset(config, 0, Progress(sys.stdout))
    assert f"1 bad rows set aside in {quarantine}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"name": "ml-1m"}, "data.path says where ml-1m is, got none"),
        ({"name": "amazon", "path": "x"}, "data.metadata says where the items of amazon are"),
        (
            {"path": "x"},
            "data.path is read for ml-1m, amazon, implicit, table only, got it with data.name worlds",
        ),
        (
            {"name": "implicit", "path": "x", "min_item_ratings": 5},
            "data.min_item_ratings is read for ml-1m, table",
        ),
        ({"facets": ["genre"]}, "data.facets is read for ml-1m only"),
        ({"name": "ml-1m", "path": "x", "facets": ["genre", "genre"]}, "data.facets must differ"),
        ({"name": "ml-1m", "path": "x", "facets": []}, "data.facets must name one column at least"),
        ({"name": "ml-1m", "path": "x", "facets": ["plot"]}, "Input should be 'era', 'genre'"),
        ({"name": "netflix", "path": "x"}, "Input should be 'worlds'"),
    ],
)
def test_settings_nobody_reads_are_refused(settings, complaint):
    with pytest.raises(ValidationError, match=complaint):
        DataConfig(**settings)


def test_a_resolved_configuration_reads_back():
    config = DataConfig(name="ml-1m", path="x", users=3)
    assert DataConfig.model_validate_json(config.model_dump_json()) == config
