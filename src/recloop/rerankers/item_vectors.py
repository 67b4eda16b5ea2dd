"""Item vectors without a neural encoder: TF-IDF of what is written about an item, reduced by an SVD."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from recloop.errors import DataError

if TYPE_CHECKING:
    from jaxtyping import Float32

    from recloop.records import Log


def item_texts(dataset: Log) -> list[str]:
    """What is known of each item in words: its knowledge text, or its title and attributes where absent."""
    attributes = dataset.items.select("title", *dataset.attributes).rows()
    texts = [". ".join([title, *(", ".join(values or []) for values in rest)]) for title, *rest in attributes]
    if dataset.item_knowledge is not None:
        for item, text in dataset.item_knowledge.select("item", "text").iter_rows():
            texts[item] = text or texts[item]
    return texts


def tfidf_vectors(texts: list[str], width: int, seed: int) -> Float32[np.ndarray, "I D"]:
    """TF-IDF over words, then the leading `width` singular directions, unit length.

    Args:
        texts: one per item.
        width: number of components; fewer come back when the texts do not have as many.
        seed: of the randomised SVD.

    Raises:
        DataError: the texts hold no words.
    """
    from sklearn.decomposition import TruncatedSVD
    from sklearn.feature_extraction.text import TfidfVectorizer

    def counted(least: int) -> Any:
        try:
            return TfidfVectorizer(sublinear_tf=True, min_df=least, stop_words="english").fit_transform(texts)
        except ValueError:  # no word is left
            return None

    counts_IV = counted(2) if len(texts) > 100 else None
    if counts_IV is None:  # few items, or names of which each stands once
        counts_IV = counted(1)
    if counts_IV is None:
        raise DataError(
            f"item texts must hold words, got none in {len(texts)} items such as {texts[0]!r}; "
            f"give the items titles or attributes"
        )
    if counts_IV.shape[1] == 1:  # scikit-learn reduces nothing to one
        vectors_ID = counts_IV.toarray()
    else:
        num_components = max(1, min(width, min(counts_IV.shape) - 1))
        vectors_ID = TruncatedSVD(num_components, random_state=seed).fit_transform(counts_IV)
    norms_I1 = np.linalg.norm(vectors_ID, axis=1, keepdims=True)
    return (vectors_ID / np.maximum(norms_I1, 1e-9)).astype(np.float32)
