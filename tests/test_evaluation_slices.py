"""Slices: bands of units by a number, and what two variants score in each."""

import numpy as np
import pytest

from made_up_report import made_up_table
from recloop.evaluation.labels import short
from recloop.evaluation.slices import bands, slices_section


@pytest.mark.parametrize(
    ("numbers", "expected"),
    [
        ([1, 2, 3, 4, 5, 6], [("1 to 2", [0, 1]), ("3 to 4", [2, 3]), ("5 to 6", [4, 5])]),
        ([7, 7, 7], [("7", [0, 1, 2])]),
        ([0, 0, 0, 0, 9], [("0", [0, 1, 2, 3]), ("1 to 9", [4])]),
    ],
)
def test_bands_hold_every_unit_once(numbers: list[int], expected: list[tuple[str, list[int]]]) -> None:
    found = bands(np.array(numbers))
    assert [(label, np.flatnonzero(mask).tolist()) for label, mask in found] == expected


def test_a_slice_has_the_means_of_its_units_and_the_interval_of_their_difference() -> None:
    table = made_up_table(3, num_users=40)
    is_low_U = np.arange(40) < 15
    groups = [("low", is_low_U), ("high", ~is_low_U)]
    section = slices_section(table, ("trained", "untuned"), [("By number", groups), ("By nothing", groups[:1])])
    _, shown = section.parts  # one group splits nothing
    assert shown.columns == ("Group", "Users", "Untuned (KAR)", "Trained", "Difference", "Interval")
    scores = {one.name: one.of("ndcg@5").mean(axis=0) for one in table.scores}
    for (label, mask), row in zip(groups, shown.rows, strict=True):
        before, after = scores["untuned"][mask], scores["trained"][mask]
        change = short((after - before).mean(), sign=True)
        assert row[:5] == (label, str(mask.sum()), short(before.mean()), short(after.mean()), change)
        low, high = (float(end.replace("−", "-")) for end in row[5].strip("[]").split(", "))
        spread = 1.96 * (after - before).std() / np.sqrt(mask.sum())
        assert (low, high) == pytest.approx(
            ((after - before).mean() - spread, (after - before).mean() + spread), abs=0.25 * spread + 0.001
        )


def test_without_a_feature_that_splits_there_is_no_section() -> None:
    table = made_up_table(1, num_users=10)
    assert slices_section(table, ("trained", "untuned"), [("By nothing", [("all", np.full(10, True))])]).parts == ()
