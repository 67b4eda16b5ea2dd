"""What a reranker knows about items: attribute values and, where given, knowledge vectors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from recloop.errors import DataError

if TYPE_CHECKING:
    from jaxtyping import Float32, Int64

    from recloop.records import Log


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
        dataset: its `attributes` columns are read.
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
    attributes = [_number_values(dataset.items[attribute].to_list()) for attribute in dataset.attributes]
    return ItemFeatures(
        num_items=dataset.num_items,
        attribute_values_IM=tuple(values_IM for values_IM, _ in attributes),
        num_values=tuple(count for _, count in attributes),
        item_vectors_ID=None if item_vectors_ID is None else item_vectors_ID.astype(np.float32),
    )


def _number_values(values_I: list[list[str] | None]) -> tuple[Int64[np.ndarray, "I M"], int]:
    """Numbers in the alphabetical order of the values, so that they do not depend on the order of items."""
    names = sorted({value for values in values_I for value in values or []})
    number = {name: index + 1 for index, name in enumerate(names)}
    most = max((len(values or []) for values in values_I), default=0)
    numbers_IM = np.zeros((len(values_I), max(most, 1)), dtype=np.int64)
    for item, values in enumerate(values_I):
        for place, value in enumerate(values or []):
            numbers_IM[item, place] = number[value]
    return numbers_IM, len(names)
