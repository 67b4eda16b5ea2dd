"""Item features, vectors of item texts, and users as means of item vectors."""

import numpy as np
import polars as pl
import pytest

from recloop.errors import DataError
from recloop.records import Domain, Histories, Log
from recloop.rerankers.features import item_features, item_texts, rating_weighted_means, tfidf_vectors
from recloop.rerankers.history import history_tensors, rating_edges


def dataset_of_three(knowledge=None):
    items = pl.DataFrame(
        {
            "item": [0, 1, 2],
            "item_id": ["a", "b", "c"],
            "title": ["Heat", "Alien", "Untitled"],
            "genre": [["Drama", "Crime"], ["Horror"], []],
            "director": [["Mann"], ["Scott"], ["Mann"]],
        },
        schema_overrides={"genre": pl.List(pl.String)},
    )
    nothing = pl.DataFrame()
    return Log("three", Domain.MOVIES, nothing, items, ("genre", "director"), nothing, 4.0, knowledge)


def test_attribute_values_are_numbered_from_one_in_alphabetical_order():
    features = item_features(dataset_of_three())
    genre_IM, director_IM = features.attribute_values_IM
    assert genre_IM.tolist() == [[2, 1], [3, 0], [0, 0]]  # Crime 1, Drama 2, Horror 3
    assert director_IM.tolist() == [[1], [2], [1]]
    assert features.num_values == (3, 2)


@pytest.mark.parametrize("vectors", [np.zeros((2, 4)), np.zeros(3), np.full((3, 4), np.nan)])
def test_item_vectors_must_be_one_finite_row_per_item(vectors):
    with pytest.raises(DataError, match="one row for each of 3 items"):
        item_features(dataset_of_three(), vectors)


def test_an_item_is_described_by_its_knowledge_or_else_by_title_and_attributes():
    knowledge = pl.DataFrame({"item": [1, 2], "text": ["A crew meets a monster.", ""]})
    assert item_texts(dataset_of_three(knowledge)) == [
        "Heat. Drama, Crime. Mann",
        "A crew meets a monster.",
        "Untitled. . Mann",
    ]


@pytest.mark.slow
def test_texts_on_one_subject_have_closer_vectors():
    texts = ["red wine from old vines", "old vines give red wine", "fast cars on race tracks", "race cars"]
    vectors = tfidf_vectors(texts, 3, seed=0)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-5)
    near = vectors @ vectors.T
    assert near[0, 1] > 0.8
    assert abs(near[0, 2]) < 0.2
    np.testing.assert_array_equal(vectors, tfidf_vectors(texts, 3, seed=0))


def test_no_more_components_than_texts_allow():
    assert tfidf_vectors(["red wine", "wine cellar", "cellar door"], 50, seed=0).shape == (3, 2)


def test_texts_that_share_no_word_have_vectors_too():
    """A log without titles has its items' ids for them, each of which stands once."""
    assert tfidf_vectors([f"sku{number}" for number in range(200)], 16, seed=0).shape == (200, 16)
    assert tfidf_vectors(["film"] * 4, 16, seed=0).shape == (4, 1)
    with pytest.raises(DataError, match="got none in 3 items such as 'a b'"):
        tfidf_vectors(["a b"] * 3, 16, seed=0)


def test_weights_of_rating_are_positive_on_any_scale():
    """From -10 to 10 the lowest rating that was given weighs 1: 5 weighs 11 where -5 is the lowest."""
    histories = Histories(np.array([0, 2]), np.array([0, 1]), np.array([5, -5], dtype=np.float32))
    vectors = rating_weighted_means(histories, np.eye(2, dtype=np.float32), np.array([0]))
    np.testing.assert_allclose(vectors.vectors_UND[0, 0], [11 / 12, 1 / 12], atol=1e-6)


def test_rating_weighted_means_by_hand():
    # User 0 gave item 0 five stars and item 1 one: (5 e0 + e1) / 6. User 1 has no history: the mean of all.
    histories = Histories(np.array([0, 2, 2, 3]), np.array([0, 1, 2]), np.array([5, 1, 3], dtype=np.float32))
    vectors = rating_weighted_means(histories, np.eye(3, dtype=np.float32), np.array([0, 1, 2]))
    expected = [[[5 / 6, 1 / 6, 0.0]], [[1 / 3] * 3], [[0.0, 0.0, 1.0]]]
    np.testing.assert_allclose(vectors.vectors_UND, expected, atol=1e-6)
    assert vectors.user_U.tolist() == [0, 1, 2]


def test_without_ratings_every_item_weighs_the_same():
    histories = Histories(np.array([0, 2]), np.array([0, 1]), np.full(2, np.nan, dtype=np.float32))
    vectors = rating_weighted_means(histories, np.eye(3, dtype=np.float32), np.array([0]))
    np.testing.assert_allclose(vectors.vectors_UND[0, 0], [1 / 2, 1 / 2, 0], atol=1e-6)


def test_windows_are_padded_at_the_end_and_ratings_bucketed():
    histories = Histories(
        np.array([0, 2, 2, 5]),
        np.array([7, 8, 1, 2, 3]),
        np.array([1.0, 5.0, 3.0, np.nan, 1.0], dtype=np.float32),
    )
    edges = rating_edges(histories)
    assert edges == (2.0, 4.0)
    table = history_tensors(histories, np.array([0, 1, 2]), edges)
    assert table.items_UH.tolist() == [[7, 8, 0], [0, 0, 0], [1, 2, 3]]
    assert table.rating_UH.tolist() == [[1, 3, 0], [0, 0, 0], [2, 0, 1]]
    assert table.is_real_UH.tolist() == [[True, True, False], [False] * 3, [True] * 3]


def test_many_distinct_ratings_share_ten_buckets():
    rating = np.linspace(0, 100, 501, dtype=np.float32)
    histories = Histories(np.array([0, 501]), np.zeros(501, dtype=np.int64), rating)
    edges = rating_edges(histories)
    assert len(edges) == 9
    counts = np.bincount(history_tensors(histories, np.array([0]), edges).rating_UH[0].numpy())[1:]
    assert counts.min() >= 50
