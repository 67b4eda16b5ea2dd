"""Where a difference is large: the units of a table in groups, each with two variants and what lies between them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from recloop.evaluation.labels import interval, metric_title, short
from recloop.evaluation.report_sections import Note, Part, PlainTable, Section
from recloop.evaluation.significance import Estimate, bootstrap_interval

if TYPE_CHECKING:
    from jaxtyping import Bool, Int64

    from recloop.evaluation.tables import VariantTable

NUM_BANDS = 3
Group = tuple[str, "Bool[np.ndarray, ' U']"]
"""Its label, and which units of the table belong to it."""


def bands(number_U: Int64[np.ndarray, " U"]) -> list[Group]:
    """Units in up to `NUM_BANDS` groups of about the same size, by a whole number of each.

    Example:
        >>> [(label, int(mask.sum())) for label, mask in bands(np.array([1, 1, 2, 5, 9, 9]))]
        [('1', 2), ('2 to 5', 2), ('6 to 9', 2)]
    """
    edges = np.unique(np.quantile(number_U, np.linspace(0, 1, NUM_BANDS + 1)[1:], method="inverted_cdf"))
    found: list[Group] = []
    low = int(number_U.min())
    for edge in edges.astype(int).tolist():
        found.append((str(low) if low == edge else f"{low} to {edge}", (number_U >= low) & (number_U <= edge)))
        low = edge + 1
    return [(label, is_in_U) for label, is_in_U in found if is_in_U.any()]


def slices_section(table: VariantTable, pair: tuple[str, str], by: Sequence[tuple[str, Sequence[Group]]]) -> Section:
    """Where one variant differs from another, by features of the units; empty where none of these splits them.

    Args:
        pair: the variant, and the one that is taken from it.
        by: what a feature is called, and the groups it makes.
    """
    tables = tuple(_slices(table, pair, caption, groups) for caption, groups in by if len(groups) > 1)
    told = Note(
        f"{table.title}: means of {metric_title(table.main.metric)}. Intervals are not corrected for the number of "
        f"groups: read them as questions, not as claims."
    )
    parts: tuple[Part, ...] = (told, *tables) if tables else ()
    return Section("where", "Where it helps", parts, is_open=True)


def _slices(table: VariantTable, pair: tuple[str, str], caption: str, groups: Sequence[Group]) -> PlainTable:
    by_name = {one.name: one for one in table.scores}
    new, old = (by_name[name] for name in pair)
    unit = table.units.name
    before_after = (table.labels[name].label for name in reversed(pair))
    columns = ("Group", f"{unit}s".capitalize(), *before_after, "Difference", "Interval")
    rows: list[tuple[str, ...]] = []
    for label, is_in_U in groups:
        new_SU, old_SU = new.of(table.main.metric)[:, is_in_U], old.of(table.main.metric)[:, is_in_U]
        weights_U = new.weights_U[is_in_U]
        values_U3 = np.stack([old_SU.mean(axis=0), new_SU.mean(axis=0), (new_SU - old_SU).mean(axis=0)], axis=1)
        before, after, change = (weights_U @ values_U3 / weights_U.sum()).tolist()
        low_3, high_3 = bootstrap_interval(values_U3, weights_U, table.main.config, np.random.default_rng(0))
        told = interval(Estimate(change, float(low_3[2]), float(high_3[2]), ()))
        rows.append((label, f"{is_in_U.sum():,}", short(before), short(after), short(change, sign=True), told))
    return PlainTable(caption, columns, tuple(rows))
