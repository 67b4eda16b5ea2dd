"""The item-attribute graph: which item has which value of which attribute, both ways round."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from recloop.errors import DataError
from recloop.records import Condition, Log


@dataclass(frozen=True, slots=True)
class ItemGraph:
    """Items and attributes, joined where an item has the attribute.

    of_item: attributes of every item, by item number, in the order of the dataset.
    items_with: items of every attribute that any item has.
    """

    of_item: tuple[tuple[Condition, ...], ...]
    items_with: Mapping[Condition, frozenset[int]]

    @property
    def num_items(self) -> int:
        return len(self.of_item)

    def attributes(self, item: int) -> frozenset[Condition]:
        """R of an item: all its attributes."""
        return frozenset(self.of_item[item])

    def values(self, item: int, attribute: str) -> tuple[str, ...]:
        """An item's values of one attribute."""
        return tuple(one.value for one in self.of_item[item] if one.attribute == attribute)

    def meeting(self, conditions: Iterable[Condition]) -> frozenset[int]:
        """Items that meet every condition; every item when there is none."""
        found = frozenset(range(self.num_items))
        for condition in conditions:
            found &= self.items_with.get(condition, frozenset())
        return found


def build_item_graph(dataset: Log, max_values: int) -> ItemGraph:
    """The graph of a catalogue.

    Args:
        max_values: values of one attribute that count, the first ones: as many as a prompt shows, so that nothing
            is asked for that cannot be seen.

    Raises:
        DataError: no item has any attribute.
    """
    columns = [(attribute, dataset.items[attribute].to_list()) for attribute in dataset.attributes]
    of_item = tuple(
        tuple(
            dict.fromkeys(
                Condition(attribute, value)
                for attribute, values in columns
                for value in values[item][:max_values]
                if value.strip()
            )
        )
        for item in range(dataset.num_items)
    )
    items_with: dict[Condition, set[int]] = {}
    for item, attributes in enumerate(of_item):
        for condition in attributes:
            items_with.setdefault(condition, set()).add(item)
    if not items_with:
        raise DataError(
            f"requests need items with attributes, got none in {dataset.name}; give a catalogue with "
            f"columns such as genre (ml-1m: --data.metadata; table: data.table)"
        )
    frozen = {condition: frozenset(items) for condition, items in items_with.items()}
    return ItemGraph(of_item, MappingProxyType(frozen))
