"""The item-attribute graph: the attribute values of every item, and the items of every value."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from recloop.errors import DataError
from recloop.records import Condition, Log

MAX_VALUES = 3  # of one attribute that prompts show and requests ask for: nothing is asked for that cannot be seen


@dataclass(frozen=True, slots=True)
class ItemGraph:
    """Items and conditions, a condition being one value of one attribute.

    of_item: conditions that every item meets, by item number, in the order of the log.
    items_with: items that meet each condition; conditions that no item meets are absent.
    """

    of_item: tuple[tuple[Condition, ...], ...]
    items_with: Mapping[Condition, frozenset[int]]

    @property
    def num_items(self) -> int:
        return len(self.of_item)

    def attributes(self, item: int) -> frozenset[Condition]:
        """All conditions that an item meets: R in the ReRec paper."""
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


def build_item_graph(log: Log) -> ItemGraph:
    """The graph of a log's catalogue; DataError when no item has any attribute."""
    columns = [(attribute, log.items[attribute].to_list()) for attribute in log.attributes]
    of_item: list[tuple[Condition, ...]] = []
    items_with: dict[Condition, set[int]] = {}
    for item in range(log.num_items):
        told = ((attribute, value) for attribute, values in columns for value in values[item][:MAX_VALUES])
        conditions = dict.fromkeys(Condition(attribute, value) for attribute, value in told if value.strip())
        of_item.append(tuple(conditions))
        for one in conditions:
            items_with.setdefault(one, set()).add(item)
    if not items_with:
        raise DataError(
            f"requests need items with attributes, got none in {log.name}; give a catalogue with "
            f"columns such as genre (ml-1m: --data.metadata; table: data.table)"
        )
    return ItemGraph(tuple(of_item), {condition: frozenset(items) for condition, items in items_with.items()})
