"""Candidate lists: the interactions after a user's knowledge window, mixed with items the user never met.

There are four protocols. `kar`: chunks of real interactions and uniform negatives. `retrieved`: the same
chunks, with negatives from a first stage. `catalogue`: the first stage's best items of the whole catalogue, one
list a user. `impressions`: the lists that users were shown (`recloop.data.impressions`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from pydantic import BaseModel, model_validator

from recloop.data.first_stage import propose_items
from recloop.data.impressions import ListGroups, impression_lists
from recloop.data.splits import SplitConfig, user_groups
from recloop.errors import DataError, LeakageError, SettingError
from recloop.records import CandidateLists, Group, Histories, Lists, Log
from recloop.settings import setting, shown_first, validate

DRAWS_BEFORE_SEARCH = 64
ProtocolName = Literal["kar", "retrieved", "catalogue", "impressions"]


class ProtocolConfig(BaseModel, frozen=True, extra="forbid"):
    """How candidate lists are made."""

    kind: ProtocolName = shown_first(
        "kar", "Negatives uniform (kar) or from the first stage, the first stage's top items, or lists as shown."
    )
    test: Literal["same", "impressions"] = setting(
        "same",
        "impressions: test users have the lists that came with the log, such as a retriever's, all others as above.",
    )
    groups: ListGroups = setting(
        "user", "impressions: groups of users are drawn, or by when their first list was shown, test users last."
    )
    list_len: int = setting(10, "Items in a list of kar and retrieved.", ge=2)
    chunk: int = setting(4, "Most real interactions in a list of kar and retrieved.", ge=1)
    window_max: int = setting(30, "Most interactions in the knowledge window.", ge=1)
    catalogue_top: int = setting(100, "Items the first stage proposes: catalogue's list, retrieved's pool.", ge=2)

    @model_validator(mode="after")
    def _fits_together(self) -> ProtocolConfig:
        if self.kind == "impressions" and self.test != "same":
            raise SettingError("with kind impressions all groups have lists that were shown; leave test out")
        if self.kind != "impressions" and self.groups != "user":
            raise SettingError(f"groups by time are of kind impressions, got kind {self.kind}; leave groups out")
        if self.chunk >= self.list_len:
            raise SettingError(
                f"chunk must be below list_len so that lists hold negatives, got chunk={self.chunk} and "
                f"list_len={self.list_len}; lower chunk"
            )
        return self

    @property
    def has_shown_tests(self) -> bool:
        """Whether test users have lists that came with the log."""
        return "impressions" in (self.kind, self.test)


def window_lens(num_interactions_U: np.ndarray, window_max: int) -> np.ndarray:
    """Every user's knowledge window: the older half, at most `window_max`. Source: KAR's ``min((n + 1) // 2, max)``."""
    return np.minimum((num_interactions_U + 1) // 2, window_max)


def candidate_lists(
    log: Log,
    protocol: str = "kar",
    *,
    split: SplitConfig | Mapping[str, Any] | None = None,
    seed: int = 0,
    **settings: Any,
) -> CandidateLists:
    """The candidate lists of four disjoint groups of users, and the histories they follow.

    Args:
        protocol: ``kar`` (the next items and uniform negatives), ``retrieved`` (negatives from a first stage),
            ``catalogue`` (the first stage's best items) or ``impressions`` (the lists that the log says were shown).
        split: fields of `SplitConfig`, e.g. ``{"train": 0.6, "reward": 0.2, "valid": 0, "test": 0.2}``.
        seed: of the groups, the negatives and the order inside a list.
        settings: further fields of `ProtocolConfig`, e.g. ``list_len``, ``window_max``.

    Raises:
        SettingError: an unknown protocol or setting, or values that do not fit the log.

    Example:
        >>> from recloop.data.load import load_log
        >>> len(candidate_lists(load_log(users=40)).test) > 0
        True
    """
    if protocol not in get_args(ProtocolName):
        names = ", ".join(get_args(ProtocolName))
        raise SettingError(f"a protocol must be one of {names}, got {protocol!r}; choose one of them")
    config = validate(ProtocolConfig, {"kind": protocol, **settings})
    shares = split if isinstance(split, SplitConfig) else validate(SplitConfig, split or {})
    return build_lists(log, user_groups(log, shares, seed), config, seed)


def build_lists(log: Log, groups: dict[Group, np.ndarray], protocol: ProtocolConfig, seed: int) -> CandidateLists:
    """Histories of all users and the candidate lists of every group; with a first stage also its recall.

    A user's window is what the text in `log.user_knowledge` has seen; without one it is the older half, at most
    ``protocol.window_max``. A user with nothing after the window has a history and no list. The recall is the share
    of the test users' positives after the window that are among the items proposed.

    Args:
        groups: disjoint users of each group; a group left out has no lists.
        seed: of the negatives and of the order inside a list.

    Raises:
        LeakageError: two groups share a user.
        SettingError: the catalogue is too small to fill a list with items the user never met.
    """
    _require_disjoint(groups)
    if protocol.kind == "impressions":
        by_time = protocol.groups == "time"
        return impression_lists(log, groups, seed, protocol.window_max, by_time=by_time)
    later = _split_log(log, protocol)
    rng = np.random.default_rng([seed, 0x11575])
    recall = None
    if protocol.kind == "kar":
        made = _chunk_lists(later, protocol, None, rng)
    else:
        train = groups.get(Group.TRAIN, np.empty(0, np.int64))
        proposed = propose_items(log, later.histories, train, protocol.catalogue_top)
        proposed_keys = later.keys(np.arange(log.num_users)[:, None], proposed)[proposed >= 0]
        is_proposed = _contains(np.sort(proposed_keys), later.keys(later.user_n, later.item_n))
        is_positive = (later.label_n > 0) & np.isin(later.user_n, groups.get(Group.TEST, []))
        recall = float(is_proposed[is_positive].mean()) if is_positive.any() else float("nan")
        if protocol.kind == "retrieved":
            made = _chunk_lists(later, protocol, proposed, rng)
        else:
            made = _catalogue_lists(later, proposed, rng)
    by_group: dict[str, Any] = {
        group.value: Lists(group, *made).take(np.isin(made[0], groups.get(group, []))) for group in Group
    }
    if protocol.test == "impressions":
        shown = impression_lists(log, {Group.TEST: groups[Group.TEST]}, seed, protocol.window_max)
        histories = _histories_of(later.histories, shown.histories, groups[Group.TEST])
        by_group["test"], by_group["notes"] = shown.test, shown.notes
        return CandidateLists(histories, **by_group, first_stage_recall=recall)
    if log.impressions is not None:
        num_shown = log.impressions["list"].n_unique()
        by_group["notes"] = (
            f"{num_shown:,} lists shown are not read by protocol {protocol.kind}; protocol.kind impressions ranks them",
        )
    return CandidateLists(later.histories, **by_group, first_stage_recall=recall)


def _histories_of(made: Histories, shown: Histories, users: np.ndarray) -> Histories:
    """Those of `users` as `shown` has them, all others as `made`."""
    is_shown_U = np.isin(np.arange(made.num_users), users)
    parts = [(made, ~is_shown_U), (shown, is_shown_U)]
    user_n = np.concatenate([np.repeat(np.arange(one.num_users), np.diff(one.offsets_U1)) for one, _ in parts])
    is_kept_n = np.concatenate([np.repeat(mask_U, np.diff(one.offsets_U1)) for one, mask_U in parts])
    order = np.argsort(user_n[is_kept_n], kind="stable")
    items, rating = (
        np.concatenate([getattr(one, name) for one, _ in parts])[is_kept_n] for name in ("items", "rating")
    )
    counts_U = np.bincount(user_n[is_kept_n], minlength=made.num_users)
    offsets = np.concatenate([[0], np.cumsum(counts_U)]).astype(np.int64)
    return Histories(offsets, items[order], rating[order])


_Made = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]  # `Lists` of all users, without their group


@dataclass(frozen=True, slots=True)
class _SplitLog:
    """Histories, and the interactions after the windows in the order of users and time."""

    histories: Histories
    num_items: int
    user_n: np.ndarray
    item_n: np.ndarray
    label_n: np.ndarray
    position_n: np.ndarray  # 0 for a user's first interaction after the window
    own_keys: np.ndarray  # of every interaction, ascending

    def keys(self, users: np.ndarray, items: np.ndarray) -> np.ndarray:
        """One number for each user and item."""
        return users * self.num_items + items

    def is_own(self, users: np.ndarray, items: np.ndarray) -> np.ndarray:
        """Whether each user has an interaction with the item, in the window or after it."""
        return _contains(self.own_keys, self.keys(users, items))


def _split_log(log: Log, protocol: ProtocolConfig) -> _SplitLog:
    user_n = log.interactions["user"].to_numpy()
    item_n = log.interactions["item"].to_numpy()
    rating_n = log.interactions["rating"].fill_null(float("nan")).to_numpy()
    count_U = np.bincount(user_n, minlength=log.num_users)
    window_U = window_lens(count_U, protocol.window_max)
    if log.user_knowledge is not None:
        window_U[log.user_knowledge["user"].to_numpy()] = log.user_knowledge["num_shown"].to_numpy()
    if (window_U > count_U).any():
        user = int(np.argmax(window_U > count_U))
        raise DataError(
            f"a text can have seen no more than a user's interactions, got {window_U[user]} of "
            f"{count_U[user]} for user {user}; use the log the texts were written from"
        )
    offsets_U1 = np.concatenate([[0], np.cumsum(count_U)])
    position_n = np.arange(len(user_n)) - offsets_U1[user_n] - window_U[user_n]
    is_window = position_n < 0
    label_n = np.ones(len(user_n), np.float32)
    if log.positive_from_rating is not None:
        label_n = (rating_n >= log.positive_from_rating).astype(np.float32)
    own_keys = np.sort(user_n * log.num_items + item_n)
    histories = Histories(
        np.concatenate([[0], np.cumsum(window_U)]).astype(np.int64),
        item_n[is_window].astype(np.int64),
        rating_n[is_window].astype(np.float32),
    )
    user_n, item_n, label_n, position_n = (part_n[~is_window] for part_n in (user_n, item_n, label_n, position_n))
    return _SplitLog(histories, log.num_items, user_n, item_n, label_n, position_n, own_keys)


def _chunk_lists(
    log: _SplitLog, protocol: ProtocolConfig, proposed: np.ndarray | None, rng: np.random.Generator
) -> _Made:
    """Up to ``chunk`` real interactions a list, the rest negatives; shuffled."""
    user_B, items_BL, labels_BL = _real_items(log, protocol)
    if proposed is None:
        _fill_uniform(items_BL, user_B, log, rng)
    else:
        _fill_from_pool(items_BL, user_B, log, proposed, rng)
    return _shuffle(user_B, items_BL, labels_BL, np.ones(items_BL.shape, dtype=bool), rng)


def _real_items(log: _SplitLog, protocol: ProtocolConfig) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Users, items (-1 where a negative is to come) and labels of lists of up to ``chunk`` interactions each."""
    slot_n = log.position_n % protocol.chunk
    row_n = np.cumsum(slot_n == 0) - 1
    user_B = log.user_n[slot_n == 0]
    items_BL = np.full((len(user_B), protocol.list_len), -1, dtype=np.int64)
    labels_BL = np.zeros(items_BL.shape, dtype=np.float32)
    # An item that comes again in its list keeps its first slot, and counts as liked if it ever was.
    _, first_n, same_n = np.unique(row_n * log.num_items + log.item_n, return_index=True, return_inverse=True)
    items_BL[row_n[first_n], slot_n[first_n]] = log.item_n[first_n]
    first_n = first_n[same_n]
    np.maximum.at(labels_BL, (row_n[first_n], slot_n[first_n]), log.label_n)
    return user_B, items_BL, labels_BL


def _fill_uniform(items_BL: np.ndarray, user_B: np.ndarray, log: _SplitLog, rng: np.random.Generator) -> None:
    """Replace every -1 by an item that is not the user's own and not yet in the list, uniformly."""
    is_another_n = np.append(True, log.own_keys[1:] != log.own_keys[:-1])
    own_keys = log.own_keys[is_another_n[: len(log.own_keys)]]
    num_own_B = np.bincount(own_keys // log.num_items, minlength=log.histories.num_users)[user_B]
    num_open_B = (items_BL < 0).sum(axis=1)
    short = np.flatnonzero(log.num_items - num_own_B < num_open_B)
    if len(short):
        row = short[0]
        if log.num_items == 1:
            raise DataError("a list needs items that its user never met, got a log of one item; use a whole log")
        raise SettingError(
            f"a list of {items_BL.shape[1]} needs {num_open_B[row]} items its user never met, got "
            f"{log.num_items - num_own_B[row]} for user {user_B[row]}; lower list_len"
        )
    for column in range(items_BL.shape[1]):
        rows = np.flatnonzero(items_BL[:, column] < 0)
        for _ in range(DRAWS_BEFORE_SEARCH):
            if not len(rows):
                break
            drawn = rng.integers(log.num_items, size=len(rows))
            is_taken = log.is_own(user_B[rows], drawn) | (items_BL[rows] == drawn[:, None]).any(axis=1)
            items_BL[rows[~is_taken], column] = drawn[~is_taken]
            rows = rows[is_taken]
        for row in rows:
            everything = np.arange(log.num_items)
            is_taken = log.is_own(user_B[row], everything) | np.isin(everything, items_BL[row])
            items_BL[row, column] = rng.choice(everything[~is_taken])


def _fill_from_pool(
    items_BL: np.ndarray, user_B: np.ndarray, log: _SplitLog, proposed: np.ndarray, rng: np.random.Generator
) -> None:
    """Replace every -1 by an item proposed to the user who never met it; once there are none, by a uniform one."""
    user_U1 = np.arange(len(proposed))[:, None]
    is_usable = (proposed >= 0) & ~log.is_own(user_U1, np.maximum(proposed, 0))
    order_BP = rng.random((len(user_B), proposed.shape[1]))
    order_BP[~is_usable[user_B]] = np.inf
    num_usable_B = is_usable.sum(axis=1)[user_B]
    order_BP = np.argsort(order_BP, axis=1)
    is_open_BL = items_BL < 0
    rank_BL = np.cumsum(is_open_BL, axis=1) - 1
    rows, columns = np.nonzero(is_open_BL & (rank_BL < num_usable_B[:, None]))
    picks = order_BP[rows, rank_BL[rows, columns]]
    items_BL[rows, columns] = proposed[user_B[rows], picks]
    _fill_uniform(items_BL, user_B, log, rng)


def _catalogue_lists(log: _SplitLog, proposed: np.ndarray, rng: np.random.Generator) -> _Made:
    """The proposed items of every user who has interactions after the window; shuffled."""
    user_B = np.unique(log.user_n)
    items_BL = proposed[user_B]
    is_item_BL = items_BL >= 0
    positive_keys = np.sort(log.keys(log.user_n, log.item_n)[log.label_n > 0])
    labels_BL = (_contains(positive_keys, log.keys(user_B[:, None], items_BL)) & is_item_BL).astype(np.float32)
    return _shuffle(user_B, np.maximum(items_BL, 0), labels_BL, is_item_BL, rng)


def _shuffle(
    user_B: np.ndarray, items_BL: np.ndarray, labels_BL: np.ndarray, is_item_BL: np.ndarray, rng: np.random.Generator
) -> _Made:
    """The items of every list in random order, padding last."""
    order_BL = np.argsort(rng.random(items_BL.shape) + ~is_item_BL, axis=1)
    items_BL, labels_BL, is_item_BL = (
        np.take_along_axis(part_BL, order_BL, axis=1) for part_BL in (items_BL, labels_BL, is_item_BL)
    )
    return user_B, items_BL, labels_BL, is_item_BL


def _contains(sorted_keys: np.ndarray, keys: np.ndarray) -> np.ndarray:
    if not len(sorted_keys):
        return np.zeros(keys.shape, dtype=bool)
    found = np.minimum(np.searchsorted(sorted_keys, keys), len(sorted_keys) - 1)
    return sorted_keys[found] == keys


def _require_disjoint(groups: dict[Group, np.ndarray]) -> None:
    users = np.concatenate([np.empty(0, dtype=np.int64), *groups.values()])
    unique, count = np.unique(users, return_counts=True)
    if (count > 1).any():
        raise LeakageError(
            f"user groups must be disjoint, got user {unique[count > 1][0]} twice; draw them with user_groups"
        )
