"""Amazon reviews and metadata, both releases."""

import gzip
import json

import polars as pl
import pytest

from recloop.data.amazon import AmazonConfig, read_amazon
from recloop.data.checks import BadRowPolicy
from recloop.errors import DataError
from recloop.records import Domain

TWO_CORE = AmazonConfig(min_per_user=2, min_per_item=2)
META_2018 = [
    {
        "asin": "A",
        "title": "Ann&#39;s  Tale",
        "category": ["Books", "Fiction", "Crime, War"],
        "brand": "Visit Amazon's Jo Page",
    },
    {"asin": "B", "title": "B", "category": [], "brand": ""},
    {"asin": "C", "title": "C", "category": ["Books"], "brand": "Unknown"},
]
META_2014 = [
    "{'asin': 'A', 'title': \"Ann's Tale\", 'brand': 'Jo', 'categories':[['','Fiction'], ['','Crime, War']]}",
    "{'asin': 'B', 'title': 'B', 'related': {'also_bought': ['C']}}",
    "{'asin': 'C', 'title': 'C'}",
]


START = 978300000


def review(user, item, rating=5.0, time: int | str = 0):
    when = START + time if isinstance(time, int) else time
    return json.dumps({"reviewerID": user, "asin": item, "overall": rating, "unixReviewTime": when, "summary": "x"})


# z reviewed once and C is then left with one review: the core is x, y with A, B
REVIEWS = [
    review("x", "B", 4.0, 20),
    review("x", "A", 5.0, 10),
    review("y", "A", 1.0, 5),
    review("y", "B", 5, 6),
    review("y", "C", 5.0, 7),
    review("z", "C", 5.0, 1),
]


def write(folder, reviews, metadata, packed=False):
    paths = folder / "reviews.jsonl", folder / "meta.jsonl"
    for path, lines in zip(paths, (reviews, metadata), strict=True):
        raw = "".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines).encode()
        if packed:
            path = path.with_name(path.name + ".gz")
            raw = gzip.compress(raw)
        path.write_bytes(raw)
    return tuple(path.with_name(path.name + (".gz" if packed else "")) for path in paths)


@pytest.mark.parametrize("metadata", [META_2018, META_2014], ids=["2018", "2014"])
@pytest.mark.parametrize("packed", [False, True])
def test_both_releases_are_read_alike(tmp_path, metadata, packed):
    dataset = read_amazon(*write(tmp_path, REVIEWS, metadata, packed), TWO_CORE)
    assert dataset.items.rows() == [
        (0, "A", "Ann's Tale", ["Fiction", "Crime War"], ["Jo"]),
        (1, "B", "B", [], []),
    ]
    assert dataset.users["user_id"].to_list() == ["x", "y"]
    expected = [(0, 0, 5.0, 10), (0, 1, 4.0, 20), (1, 0, 1.0, 5), (1, 1, 5.0, 6)]
    assert dataset.interactions.with_columns(pl.col("time") - START).rows() == expected
    assert dataset.positive_from_rating == 5
    assert dataset.domain == Domain.BOOKS


BAD = [
    ("not json", "is not a JSON object"),
    ("[1, 2]", "is not a JSON object"),
    ("__import__('os').getcwd()", "is not a JSON object"),
    (json.dumps({"asin": "A", "overall": 5, "unixReviewTime": 1}), "lacks reviewerID"),
    (review("x", "C", 6), "'6' is not a rating from 1 to 5"),
    (review("x", "C", "good"), "'good' is not a rating"),
    (review("x", "C", 5, "then"), "'then' is not a number of s"),
    (review("x", "A", 5, 11), "'x, A' repeats the user and item"),
]


@pytest.mark.parametrize(("row", "complaint"), BAD, ids=[complaint for _, complaint in BAD])
def test_a_bad_review_is_one_error_or_is_set_aside(tmp_path, row, complaint):
    paths = write(tmp_path, [*REVIEWS, row], META_2018)
    with pytest.raises(DataError) as caught:
        read_amazon(*paths, TWO_CORE)
    assert f"reviews.jsonl line {len(REVIEWS) + 1}: " in str(caught.value)
    assert complaint in str(caught.value)
    quarantine = tmp_path / "bad.jsonl"
    dataset = read_amazon(*paths, TWO_CORE, BadRowPolicy(quarantine))
    assert dataset.interactions.height == 4
    assert len(quarantine.read_text().splitlines()) == 1


def test_an_item_of_the_core_without_metadata_is_a_bad_row(tmp_path):
    paths = write(tmp_path, REVIEWS, META_2018[:1])
    with pytest.raises(DataError, match=r"2 rows are bad(?s:.*)line 1: 'B' is not an item of meta\.jsonl"):
        read_amazon(*paths, TWO_CORE)
    dataset = read_amazon(*paths, TWO_CORE, BadRowPolicy(tmp_path / "bad.jsonl"))
    assert dataset.items["item_id"].to_list() == ["A"]


def test_an_empty_core_says_so(tmp_path):
    with pytest.raises(DataError, match="amazon must have interactions, got none"):
        read_amazon(*write(tmp_path, REVIEWS, META_2018), AmazonConfig())


def test_a_file_named_gz_that_is_not(tmp_path):
    reviews, metadata = write(tmp_path, REVIEWS, META_2018)
    reviews.rename(reviews.with_name("reviews.jsonl.gz"))
    with pytest.raises(DataError, match="must be gzip as its name says"):
        read_amazon(reviews.with_name("reviews.jsonl.gz"), metadata, TWO_CORE)
