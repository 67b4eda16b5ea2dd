"""Amazon reviews and metadata, of every release."""

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


def review_2023(user, item, rating=5.0, seconds=0.0, variant="V"):
    when = int((START + seconds) * 1000)
    return {
        "rating": rating, "title": "Good", "text": "x", "images": [], "asin": variant, "parent_asin": item,
        "user_id": user, "timestamp": when, "helpful_vote": 0, "verified_purchase": True,
    }  # fmt: skip


# x reviewed two variants of A: 10 s is before 30 s, though it stands later
REVIEWS_2023 = [
    review_2023("x", "B", 4.0, 20.5),
    review_2023("x", "A", 2.0, 30, "V2"),
    review_2023("x", "A", 5.0, 10, "V1"),
    review_2023("y", "A", 1.0, 5),
    review_2023("y", "B", 5.0, 6),
]
META_2023 = [
    {
        "main_category": "Books", "title": "Ann&#39;s  Tale", "average_rating": 4.5, "rating_number": 2, "price": None,
        "store": "Jo Page (Author)", "categories": ["Books", "Fiction", "Crime, War"], "parent_asin": "A",
        "author": {"name": "Jo Page", "about": []}, "bought_together": None,
    },
    {"main_category": "All Beauty", "title": "B", "store": "Wex", "categories": [], "parent_asin": "B", "author": None},
]  # fmt: skip


def test_the_2023_release_has_parents_lists_stores_and_milliseconds(tmp_path):
    said: list[str] = []
    log = read_amazon(*write(tmp_path, REVIEWS_2023, META_2023), TWO_CORE, BadRowPolicy(say=said.append))
    assert log.items.rows() == [
        (0, "A", "Ann's Tale", ["Fiction", "Crime War"], ["Jo Page"]),
        (1, "B", "B", ["All Beauty"], ["Wex"]),
    ]
    expected = [(0, 0, 5.0, 10), (0, 1, 4.0, 20.5), (1, 0, 1.0, 5), (1, 1, 5.0, 6)]
    assert log.interactions.with_columns(pl.col("time") - START).rows() == expected
    assert said == [
        "read as the Amazon release of 2023 (keys user_id, parent_asin, rating, timestamp, times in ms)",
        "1 further reviews of an item by the same user are left out; the earliest counts",
    ]


def test_a_books_store_stands_in_for_its_author_without_the_role(tmp_path):
    metadata = [{**META_2023[0], "author": None}, META_2023[1]]
    log = read_amazon(*write(tmp_path, REVIEWS_2023, metadata), TWO_CORE)
    assert log.items["brand"].to_list() == [["Jo Page"], ["Wex"]]


@pytest.mark.parametrize(
    ("more", "metadata", "year"),
    [
        ({"helpful": [0, 0]}, META_2014, "2014"),
        ({"verified": True}, META_2018, "2018"),
        ({}, META_2018, "2018"),
        ({}, [{"asin": one["asin"], "title": one["title"]} for one in META_2018], "2014 or 2018"),
    ],
)
def test_the_release_is_told_by_its_keys(tmp_path, more, metadata, year):
    said: list[str] = []
    reviews = [json.loads(line) | more for line in REVIEWS]
    read_amazon(*write(tmp_path, reviews, metadata), TWO_CORE, BadRowPolicy(say=said.append))
    keys = "reviewerID, asin, overall, unixReviewTime"
    assert said == [f"read as the Amazon release of {year} (keys {keys}, times in s)"]


@pytest.mark.parametrize(
    ("reviews", "metadata", "complaint"),
    [
        (["user,item,rating", "x,A,5"], META_2018, "got lines that are no JSON objects in .*data.name table"),
        ([{"uid": "x", "sku": "A"}], META_2018, r"\(2014, 2018\) or user_id, .* \(2023\), got uid, sku in"),
        (META_2018, REVIEWS, "got asin, title, category, brand in"),
        (REVIEWS_2023, META_2018, "must have the keys parent_asin and title, .* of 2023, got asin, title"),
        (REVIEWS, META_2023, "must have the keys asin and title, .* of 2014 or 2018, got main_category, title"),
        (REVIEWS, REVIEWS, "got reviewerID, asin, overall, unixReviewTime, summary in"),
    ],
)
def test_files_of_no_release_or_of_two_are_one_error_that_names_the_keys(tmp_path, reviews, metadata, complaint):
    with pytest.raises(DataError, match=complaint):
        read_amazon(*write(tmp_path, reviews, metadata), TWO_CORE, BadRowPolicy(tmp_path / "bad.jsonl"))


BAD_2023 = [
    (review_2023("", "C"), "'' lacks user_id"),
    (review_2023("", "C") | {"user_id": None}, "lacks user_id"),
    (review_2023("x", "C") | {"parent_asin": None}, "lacks parent_asin"),
    (review_2023("x", "C", 0.0), "'0' is not a rating from 1 to 5 (rating)"),
    (review_2023("x", "C") | {"timestamp": START}, "is not a number of milliseconds since 1970 between 1990 and 2100"),
]


@pytest.mark.parametrize(("row", "complaint"), BAD_2023, ids=range(len(BAD_2023)))
def test_a_bad_review_of_2023_is_named_by_its_own_keys(tmp_path, row, complaint):
    with pytest.raises(DataError) as caught:
        read_amazon(*write(tmp_path, [*REVIEWS_2023, row], META_2023), TWO_CORE)
    assert f"reviews.jsonl line {len(REVIEWS_2023) + 1}: " in str(caught.value)
    assert complaint in str(caught.value)


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


def test_a_file_named_gz_that_is_not_is_read_as_it_is(tmp_path):
    reviews, metadata = write(tmp_path, REVIEWS, META_2018)
    dataset = read_amazon(reviews, metadata, TWO_CORE)
    reviews = reviews.rename(reviews.with_name("reviews.jsonl.gz"))
    assert read_amazon(reviews, metadata, TWO_CORE).interactions.equals(dataset.interactions)
