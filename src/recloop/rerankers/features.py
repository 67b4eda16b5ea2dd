"""What a reranker knows about items, and what is known of a user without a language model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from recloop.errors import DataError
from recloop.records import UserVectors

if TYPE_CHECKING:
    from jaxtyping import Float32, Int64

    from recloop.records import Histories, Log


@dataclass(frozen=True, slots=True)
class ItemFeatures:
    """Attribute values of all items as numbers, and an optional vector per item.

    attribute_values_IM: one array per attribute; row i holds the value numbers (from 1) of item i, then zeros.
    num_values: how many values each attribute has, so numbers run from 1 to that.
    """

    num_items: int
    attribute_values_IM: tuple[Int64[np.ndarray, "I M"], ...]
    num_values: tuple[int, ...]
    item_vectors_ID: Float32[np.ndarray, "I D"] | None


def item_features(dataset: Log, item_vectors_ID: Float32[np.ndarray, "I D"] | None = None) -> ItemFeatures:
    """Number the attribute values of a dataset's items.

    Args:
        item_vectors_ID: knowledge vectors, row i for item i; None when there are none.

    Raises:
        DataError: the vectors are not one finite row per item.
    """
    if item_vectors_ID is not None:
        is_right_shape = item_vectors_ID.ndim == 2 and len(item_vectors_ID) == dataset.num_items
        if not is_right_shape or not np.isfinite(item_vectors_ID).all():
            raise DataError(
                f"item vectors must be finite, one row for each of {dataset.num_items} items, got shape "
                f"{item_vectors_ID.shape}; encode the text of every item, an empty one included"
            )
        item_vectors_ID = item_vectors_ID.astype(np.float32)
    values = [dataset.items[attribute].to_list() for attribute in dataset.attributes]
    numbers = [value_numbers(values_I) for values_I in values]
    arrays = [numbered_values(values_I, number) for values_I, number in zip(values, numbers, strict=True)]
    return ItemFeatures(dataset.num_items, tuple(arrays), tuple(map(len, numbers)), item_vectors_ID)


def value_numbers(values_I: Sequence[Sequence[str] | None]) -> dict[str, int]:
    """Numbers from 1 in the alphabetical order of the values, so that they do not depend on the order of items."""
    names = sorted({value for values in values_I for value in values or ()})
    return {name: index + 1 for index, name in enumerate(names)}


def numbered_values(values_I: Sequence[Sequence[str] | None], number: Mapping[str, int]) -> Int64[np.ndarray, "I M"]:
    """The numbers of each item's values, then zeros; a value without a number is 0 too."""
    most = max((len(values or ()) for values in values_I), default=0)
    numbers_IM = np.zeros((len(values_I), max(most, 1)), dtype=np.int64)
    for item, values in enumerate(values_I):
        for place, value in enumerate(values or ()):
            numbers_IM[item, place] = number.get(value, 0)
    return numbers_IM


def item_texts(dataset: Log) -> list[str]:
    """What is known of each item in words: its knowledge text, or its title and attributes where absent."""
    attributes = dataset.items.select("title", *dataset.attributes).rows()
    texts = [". ".join([title, *(", ".join(values or []) for values in rest)]) for title, *rest in attributes]
    if dataset.item_knowledge is not None:
        for item, text in dataset.item_knowledge.select("item", "text").iter_rows():
            texts[item] = text or texts[item]
    return texts


def tfidf_vectors(texts: list[str], width: int, seed: int, others: Sequence[str] = ()) -> Float32[np.ndarray, "I D"]:
    """TF-IDF over words, then the leading `width` singular directions, unit length.

    Args:
        texts: one per item.
        width: number of components; fewer come back when the texts do not have as many.
        seed: of the randomised SVD.
        others: further texts, in the words and directions of the first; their rows follow.

    Raises:
        DataError: the texts hold no words.
    """
    from sklearn.decomposition import TruncatedSVD
    from sklearn.feature_extraction.text import TfidfVectorizer

    for least in (2, 1) if len(texts) > 100 else (1,):  # few items, or names of which each stands once: 1
        try:
            words = TfidfVectorizer(sublinear_tf=True, min_df=least, stop_words="english")
            counts_IV = words.fit_transform(texts)
            break
        except ValueError:  # no word is left
            continue
    else:
        raise DataError(
            f"item texts must hold words, got none in {len(texts)} items such as {texts[0]!r}; "
            f"give the items titles or attributes"
        )
    if counts_IV.shape[1] == 1:  # scikit-learn reduces nothing to one
        vectors_ID = words.transform([*texts, *others]).toarray()  # pyright: ignore[reportAttributeAccessIssue]
    else:
        num_components = max(1, min(width, min(counts_IV.shape) - 1))
        directions = TruncatedSVD(num_components, random_state=seed)
        vectors_ID = directions.fit_transform(counts_IV)
        if others:
            vectors_ID = np.concatenate([vectors_ID, directions.transform(words.transform(others))])
    norms_I1 = np.linalg.norm(vectors_ID, axis=1, keepdims=True)
    return (vectors_ID / np.maximum(norms_I1, 1e-9)).astype(np.float32)


def rating_weighted_means(
    histories: Histories, item_vectors_ID: Float32[np.ndarray, "I D"], user_U: Int64[np.ndarray, " U"]
) -> UserVectors:
    """One vector for each of these users, ascending: the mean over the user's window, items weighted by their rating.

    Weights are positive, so the mean tells first what a user watches, then what of it was liked: in lists with random
    negatives that is most of what can be known. On a scale that reaches 0 or below the lowest rating weighs 1. Without
    ratings all items weigh the same. A user without history gets the catalogue's mean.
    """
    user_n = np.repeat(np.arange(histories.num_users), np.diff(histories.offsets_U1))
    is_rated_n = ~np.isnan(histories.rating)
    lowest = float(histories.rating[is_rated_n].min()) if is_rated_n.any() else 1.0
    weight_n = np.where(is_rated_n, histories.rating + (1 - lowest if lowest <= 0 else 0.0), 1.0)
    sums_UD = np.zeros((histories.num_users, item_vectors_ID.shape[1]))
    np.add.at(sums_UD, user_n, weight_n[:, None] * item_vectors_ID[histories.items])
    norm_U1 = np.bincount(user_n, weights=weight_n, minlength=histories.num_users)[:, None]
    means_UD = np.tile(item_vectors_ID.mean(axis=0, dtype=np.float64), (histories.num_users, 1))
    np.divide(sums_UD, norm_U1, out=means_UD, where=norm_U1 > 0)
    return UserVectors(user_U, means_UD[user_U][:, None].astype(np.float32))
