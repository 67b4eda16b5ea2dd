"""Lists that users were shown, with what they clicked: a table of impressions, and candidate lists made of it.

Nothing is invented: the negatives are what was shown and not clicked. Of own candidates with a retriever's scores the
same holds. The order of items inside a list is drawn, so that no model reads the position; where each item was
shown stands beside it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal, get_args

import numpy as np
import polars as pl

from recloop.data.frames import as_polars
from recloop.data.splits import SplitConfig, user_groups
from recloop.data.times import FIRST_S
from recloop.errors import DataError, SettingError
from recloop.records import CandidateLists, Group, Histories, Lists, Log
from recloop.settings import validate

MIN_LIST = 2  # a list of one item cannot be ordered
NEEDED = ("user_id", "list_id", "item_id")
OPTIONAL = ("position", "score", "time")
WINDOW_MAX = 30
ListGroups = Literal["user", "time"]


def with_impressions(log: Log, shown: Any) -> Log:
    """The log with these impressions, numbered and sorted.

    Args:
        shown: a frame of polars, pandas or `datasets`, a row per item of a list: ``user_id``, ``item_id`` (as in the
            log), ``list_id``, ``label`` (0, or 1 or another positive grade), and where known ``position`` (from 1),
            ``score`` (of the first stage, higher is better) and ``time`` (seconds since 1970). Where an item stands
            twice in a list, its best label counts. Without labels, as for candidates of a retriever of your own, 1
            stands for what the user came to like at the list's time or later.

    Raises:
        DataError: `shown` is no frame, a column is missing, a user or item is not in the log, a label is negative or
            missing, another number is none, or a list has two users.
    """
    shown = as_polars(shown, "impressions")
    missing = [name for name in NEEDED if name not in shown.columns]
    if missing:
        raise DataError(
            f"impressions must have the columns {', '.join(NEEDED)}, got {', '.join(shown.columns)}; rename or add "
            f"{', '.join(missing)}"
        )
    has_labels = "label" in shown.columns
    if not has_labels and "time" not in shown.columns:
        raise DataError("impressions without labels must have times, to tell what was liked later; give one of the two")
    absent = [pl.lit(None, dtype=pl.Float64).alias(name) for name in OPTIONAL if name not in shown.columns]
    absent += [] if has_labels else [pl.lit(0.0).alias("label")]
    given = [*NEEDED, *(name for name in ("label", *OPTIONAL) if name in shown.columns)]
    frame = shown.select(given).with_columns(pl.col("user_id", "item_id", "list_id").cast(pl.String), *absent)
    numbers = frame.with_columns(pl.col("label", *OPTIONAL).cast(pl.Float64, strict=False).fill_nan(None))
    off = numbers["position"].drop_nulls()
    off = off.filter((off < 1) | (off % 1 != 0) | (off > 2**53))
    if len(off):
        raise DataError(f"the position of an impression must be a whole number from 1, got {off[0]:g}; count from 1")
    for name in OPTIONAL:
        odd = frame.filter(numbers[name].is_null() & frame[name].is_not_null())
        if odd.height and odd[name].dtype == pl.String:
            raise DataError(f"the {name} of an impression must be a number, got {odd[name][0]!r}; correct or drop it")
    frame = numbers.with_columns(pl.col("label").cast(pl.Float32))
    _check(frame, log)
    _require_one_clock(frame, log)
    users, items = log.users.select("user", "user_id"), log.items.select("item", "item_id")
    numbered = frame.join(users, on="user_id", maintain_order="left").join(items, on="item_id", maintain_order="left")
    lists = numbered.select(pl.col("list_id").unique(maintain_order=True)).with_row_index("list")
    one_each = (
        numbered.join(lists, on="list_id", maintain_order="left")
        .with_columns(pl.col("list").cast(pl.Int64), pl.col("time").min().over("list_id"))
        .group_by("user", "list", "list_id", "item", maintain_order=True)
        .agg(pl.col("label").max(), pl.col("position").min(), pl.col("score").max(), pl.col("time").first())
        .with_columns(pl.col("position").cast(pl.Int64))
        .sort("user", "time", "list", "position", maintain_order=True)
    )
    if has_labels:
        return replace(log, impressions=one_each)
    labelled = _labelled(one_each, log)
    told = f"lists without labels: {int(labelled['label'].sum()):,} of {labelled.height:,} items were liked later"
    return replace(log, impressions=labelled, reading=(*log.reading, told))


def _require_one_clock(shown: pl.DataFrame, log: Log) -> None:
    """DataError where one of lists and log has times and the other an order only: all would seem to lie before."""
    latest = shown["time"].drop_nulls()
    if latest.is_empty() or log.interactions.is_empty():
        return
    is_dated = [float(times.max() or 0) >= FIRST_S for times in (latest, log.interactions["time"])]  # pyright: ignore[reportArgumentType]
    if is_dated[0] != is_dated[1]:
        has, lacks = ("lists", "log") if is_dated[0] else ("log", "lists")
        raise DataError(
            f"a history is what came before a list, got times of the {has} and a mere order of the {lacks}; give both "
            f"times, or leave those of the lists out (shown_at)"
        )


def _labelled(shown: pl.DataFrame, log: Log) -> pl.DataFrame:
    """Lists with label 1 at what the user came to like at their time or later."""
    liked, least = log.interactions, log.positive_from_rating
    if least is not None:
        liked = liked.filter(pl.col("rating") >= least)
    last = liked.group_by("user", "item").agg(pl.col("time").max().alias("last"))
    found = shown.join(last, on=["user", "item"], how="left", maintain_order="left")
    is_liked = (pl.col("last") >= pl.col("time")).fill_null(False)
    return found.with_columns(label=is_liked.cast(pl.Float32)).drop("last")


def _check(frame: pl.DataFrame, log: Log) -> None:
    for name, known in (("user", log.users["user_id"]), ("item", log.items["item_id"])):
        strange = frame.filter(~pl.col(f"{name}_id").is_in(known.implode()).fill_null(False))
        if strange.height:
            raise DataError(
                f"impressions must be of {name}s of the log, got {strange[f'{name}_id'].n_unique()} that are not "
                f"(first: {strange[f'{name}_id'][0]!r}); items and users that nobody met are not in a log: read both "
                f"together, as in Log.from_frames(interactions, items, impressions=shown)"
            )
    bad = frame.filter(~(pl.col("label") >= 0).fill_null(False))
    if bad.height:
        row = bad.row(0, named=True)
        raise DataError(
            f"a label must be 0 or positive, got {row['label']} for item {row['item_id']!r} of list "
            f"{row['list_id']!r}; correct it"
        )
    owners = frame.group_by("list_id", maintain_order=True).agg(pl.col("user_id").n_unique())
    shared = owners.filter(pl.col("user_id") > 1)
    if shared.height:
        first = shared["list_id"][0]
        users = frame.filter(pl.col("list_id") == first)["user_id"].unique(maintain_order=True).to_list()[:2]
        raise DataError(
            f"a list must be one user's, got list {first!r} of {users[0]!r} and {users[1]!r}; number lists apart"
        )


def lists_from_impressions(
    log: Log,
    shown: Any = None,
    *,
    split: SplitConfig | Mapping[str, Any] | None = None,
    groups: ListGroups = "user",
    seed: int = 0,
    window_max: int = WINDOW_MAX,
) -> CandidateLists:
    """Candidate lists as users were shown them, of four disjoint groups of users, and the histories before them.

    Args:
        shown: impressions, see `with_impressions`; None for those the log has.
        split: fields of `SplitConfig`.
        groups: ``user``: drawn; ``time``: by when a user's first list was shown, train users first and test users last,
            without the lists of a group that were shown when a later group had begun.
        seed: of the groups and of the order inside a list.
        window_max: most interactions in a history, the latest before the user's first list.

    Returns:
        Lists keep their length; shorter ones are padded. Those of one item are left out.

    Raises:
        DataError: there are no impressions, or see `with_impressions`.
        SettingError: `window_max` is below 1.
    """
    if groups not in get_args(ListGroups):
        raise SettingError(f"groups must be one of {', '.join(get_args(ListGroups))}, got {groups!r}; choose one")
    if window_max < 1:
        raise SettingError(f"window_max must be at least 1, got {window_max}; 30 is the default")
    log = log if shown is None else with_impressions(log, shown)
    config = split if isinstance(split, SplitConfig) else validate(SplitConfig, split or {})
    drawn = user_groups(log, config, seed)
    return impression_lists(log, drawn, seed, window_max, by_time=groups == "time")


def impression_lists(
    log: Log, groups: Mapping[Group, np.ndarray], seed: int, window_max: int, *, by_time: bool = False
) -> CandidateLists:
    """`lists_from_impressions` of given groups of users, one left out has no lists; by time their sizes alone count."""
    frame = log.impressions
    if frame is None or frame.is_empty():
        raise DataError(f"{log.name} must have impressions for such lists, got none; give them, or make lists with kar")
    num_shown = frame["list"].n_unique()
    frame = frame.filter(pl.len().over("list") >= MIN_LIST)
    num_short = num_shown - frame["list"].n_unique()
    if frame.is_empty():
        raise DataError(f"a list must hold {MIN_LIST} items to be ranked, got none that does; check the ids of lists")
    if not (frame["label"] > 0).any():
        raise DataError("a list can teach by what was liked in it, got no positive label in any; check the labels")
    notes = [f"{num_short:,} of {num_shown:,} lists hold one item and are left out"] if num_short else []
    if by_time:
        num_lists = frame["list"].n_unique()
        frame, groups = _cut_by_time(frame, groups)
        num_late = num_lists - frame["list"].n_unique()
        notes += [f"{num_late:,} of {num_lists:,} lists were shown when a later group had begun and are left out"]
    histories = _histories_before(log, frame, window_max)
    first_n = np.append(True, np.diff(frame["list"].to_numpy()) != 0)
    row_n = np.cumsum(first_n) - 1
    place_n = np.arange(len(row_n)) - np.flatnonzero(first_n)[row_n]
    shape = int(row_n[-1]) + 1, int(place_n.max()) + 1
    order_BL = np.full(shape, np.inf)
    order_BL[row_n, place_n] = np.random.default_rng([seed, 0x5808]).random(len(row_n))
    order_BL = np.argsort(order_BL, axis=1)
    user_B = frame["user"].to_numpy()[first_n]

    def table(name: str, padding: float, dtype: type) -> np.ndarray:
        values_BL = np.full(shape, padding, dtype=dtype)
        values_BL[row_n, place_n] = frame[name].fill_null(np.nan).to_numpy() if padding != 0 else frame[name].to_numpy()
        return np.take_along_axis(values_BL, order_BL, axis=1)

    is_item_BL = np.zeros(shape, dtype=bool)
    is_item_BL[row_n, place_n] = True
    position_BL, score_BL = (
        None if frame[name].is_null().all() else table(name, np.nan, np.float32) for name in ("position", "score")
    )
    is_item_BL = np.take_along_axis(is_item_BL, order_BL, axis=1)
    items_BL, labels_BL = table("item", 0, np.int64), table("label", 0, np.float32)
    list_B = frame["list"].to_numpy()[first_n]
    lists = Lists(Group.TEST, user_B, items_BL, labels_BL, is_item_BL, position_BL, score_BL, list_B)
    of_group = {group: lists.take(np.isin(user_B, groups.get(group, []))) for group in Group}
    by_group: dict[str, Any] = {group.value: replace(taken, group=group) for group, taken in of_group.items()}
    return CandidateLists(histories, **by_group, notes=tuple(notes))


def _cut_by_time(
    frame: pl.DataFrame, groups: Mapping[Group, np.ndarray]
) -> tuple[pl.DataFrame, dict[Group, np.ndarray]]:
    """Users in the order of their first lists, in groups of these shares; the lists shown before the next group's."""
    if frame["time"].is_null().any():
        raise DataError("groups by time need the time of every list, got some without; give it (shown_at)")
    first = frame.group_by("user").agg(pl.col("time").min()).sort("time", "user")
    sizes_G = np.array([len(groups.get(group, ())) for group in Group], dtype=np.float64)
    ends_G = np.round(np.cumsum(sizes_G) / sizes_G.sum() * first.height).astype(np.int64)
    kept: list[pl.DataFrame] = []
    cut: dict[Group, np.ndarray] = {}
    for group, start, end in zip(Group, [0, *ends_G[:-1].tolist()], ends_G.tolist(), strict=True):
        users = first[start:end]
        cut[group] = np.sort(users["user"].to_numpy())
        own = frame.filter(pl.col("user").is_in(cut[group].tolist()))
        kept.append(own.filter(pl.col("time") < first["time"][end]) if end < first.height else own)
    return pl.concat(kept).sort("user", "time", "list", "position", maintain_order=True), cut


def _histories_before(log: Log, frame: pl.DataFrame, window_max: int) -> Histories:
    """The latest interactions of every user before the first list.

    Where lists have no time, those with items of none of the user's lists: the others may be what was clicked there.
    """
    first = frame.group_by("user").agg(pl.col("time").min().alias("first"))
    listed = frame.select("user", "item", is_listed=pl.lit(True)).unique()
    before = (
        log.interactions.join(first, on="user", how="left", maintain_order="left")
        .join(listed, on=["user", "item"], how="left", maintain_order="left")
        .filter((pl.col("time") < pl.col("first")).fill_null(pl.col("is_listed").is_null()))
        .group_by("user", maintain_order=True)
        .tail(window_max)
        .sort("user", maintain_order=True)
    )
    counts_U = np.bincount(before["user"].to_numpy(), minlength=log.num_users)
    return Histories(
        np.concatenate([[0], np.cumsum(counts_U)]).astype(np.int64),
        before["item"].to_numpy().astype(np.int64),
        before["rating"].fill_null(float("nan")).to_numpy().astype(np.float32),
    )
