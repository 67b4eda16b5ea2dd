"""Implicit ordered logs."""

import json

import pytest

from recloop.data.checks import BadRowPolicy
from recloop.data.implicit_log import ImplicitConfig, read_implicit
from recloop.data.lists import ProtocolConfig, build_lists
from recloop.errors import DataError
from recloop.records import Group

ITEMS = {
    "0": {"title": "Nail &amp; Screw", "brand": "Acme, Inc.", "categories": "Tools,Tapes, Glues & Co,Screws"},
    "1": {"title": "Saw", "brand": "", "categories": "Tools,Saws"},
    "2": {"title": "Glove", "brand": "Bo", "categories": ""},
}
LOG = {"a": [2, 0], "b": [1, 2, 0]}


def write(folder, log=LOG, items=ITEMS):
    (folder / "x.inter.json").write_text(json.dumps(log))
    (folder / "x.item.json").write_text(json.dumps(items))
    return folder


def test_order_is_kept_and_the_category_all_share_is_dropped(tmp_path):
    dataset = read_implicit(write(tmp_path))
    assert dataset.items.select("title", "category", "brand").rows() == [
        ("Nail & Screw", ["Tapes Glues & Co", "Screws"], ["Acme Inc"]),
        ("Saw", ["Saws"], []),
        ("Glove", [], ["Bo"]),
    ]
    assert dataset.interactions.select("user", "item", "time").rows() == [
        (0, 2, 0), (0, 0, 1), (1, 1, 0), (1, 2, 1), (1, 0, 2),
    ]  # fmt: skip
    assert dataset.interactions["rating"].null_count() == 5
    assert dataset.positive_from_rating is None


def test_years_at_the_end_of_titles_are_an_attribute_unless_they_are_kept(tmp_path):
    items = {item: {**one, "title": f"{one['title']} (1995)"} for item, one in ITEMS.items()}
    log = read_implicit(write(tmp_path, items=items))
    assert log.attributes == ("category", "brand", "year")
    assert log.items.select("title", "year").row(1) == ("Saw", ["1995"])
    kept = read_implicit(write(tmp_path, items=items), config=ImplicitConfig(year_from_title=False))
    assert (kept.attributes, kept.items["title"][1]) == (("category", "brand"), "Saw (1995)")


def test_a_top_category_not_shared_stays(tmp_path):
    items = {**ITEMS, "1": {"title": "Saw", "brand": "", "categories": "Garden,Saws"}}
    assert read_implicit(write(tmp_path, items=items)).items["category"][1].to_list() == ["Garden", "Saws"]


def test_a_path_of_categories_can_be_told_apart(tmp_path):
    dataset = read_implicit(write(tmp_path), config=ImplicitConfig(categories="apart"))
    assert dataset.attributes == ("category", "subcategory", "brand")
    assert dataset.items.select("category", "subcategory").rows() == [
        (["Tapes Glues & Co"], ["Screws"]),
        (["Saws"], []),
        ([], []),
    ]


@pytest.mark.parametrize(
    ("log", "complaint"),
    [
        ({**LOG, "c": [0, 9]}, "line 3: '9' is not an item of the item file"),
        ({**LOG, "c": [0, 1, 0]}, "line 3: 'c, 0' repeats the user and item"),
        ({**LOG, "c": []}, "line 3: 'c' has no items"),
        ({**LOG, "c": 4}, "every user must have a list of items, got another value for 'c'"),
        ({}, "must be one JSON object with entries"),
    ],
)
def test_bad_entries_are_named(tmp_path, log, complaint):
    with pytest.raises(DataError, match=complaint):
        read_implicit(write(tmp_path, log=log))


def test_bad_entries_can_be_set_aside(tmp_path):
    dataset = read_implicit(write(tmp_path, log={**LOG, "c": [0, 9, 0]}), BadRowPolicy(tmp_path / "bad.jsonl"))
    assert dataset.interactions.filter(user=2)["item"].to_list() == [0]
    assert len((tmp_path / "bad.jsonl").read_text().splitlines()) == 2


def test_a_folder_without_the_files_is_named(tmp_path):
    with pytest.raises(DataError, match=r"one \*\.inter\.json, got 0 in"):
        read_implicit(tmp_path)


@pytest.mark.slow
def test_amazon_scientific_has_its_counts(shared_data):
    dataset = read_implicit(shared_data / "amazon-scientific")
    assert (dataset.num_users, dataset.num_items, dataset.interactions.height) == (8317, 4344, 58_492)
    assert "Industrial & Scientific" not in set(dataset.items["category"].explode())
    made = build_lists(dataset, {Group.TEST: list(range(8317))}, ProtocolConfig(), 0)
    assert made.test.labels_BL.sum() == dataset.interactions.height - len(made.histories.items)


@pytest.mark.parametrize(
    ("value", "complaint"),
    [
        ('"\\ud83d"', "must be text in UTF-8, got .* with half of a surrogate pair"),
        ("1" * 5_000, "must be JSON in UTF-8, got .*4300 digits"),
        ("[" * 100_000, "must be JSON in UTF-8, got .* recursion"),
    ],
    ids=["half", "digits", "deep"],
)
def test_json_that_cannot_be_kept_is_one_clear_error(tmp_path, value, complaint):
    write(tmp_path)
    (tmp_path / "x.inter.json").write_text(f'{{"a": [{value}]}}')
    with pytest.raises(DataError, match=complaint):
        read_implicit(tmp_path)
