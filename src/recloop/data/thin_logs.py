"""Logs that nothing can be learnt from: what is missing, said before anything is sampled."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from recloop.errors import DataError
from recloop.records import CandidateLists, Group, Lists, Log


def require_teaching_lists(
    log: Log, groups: Mapping[Group, np.ndarray], lists: CandidateLists, *, needs_reward: bool = True
) -> None:
    """DataError where a group of users has no list with something liked and something else; with the cause."""
    needed = [group for group in Group if len(groups.get(group, ())) and (needs_reward or group is not Group.REWARD)]
    without = [group for group in needed if not _can_teach(lists.of(group))]
    if not without:
        return
    least, ratings = log.positive_from_rating, log.interactions["rating"]
    why, do = why_thin(log), "use a log with more interactions a user, or more users"
    if least is not None and not (ratings >= least).any():
        why = f": a liked item has a rating of {least:g} or more, and they are {ratings.min():g} to {ratings.max():g}"
        do = "lower positive_from_rating, or read no ratings (then all that a user met is liked)"
    counts = ", ".join(f"{group} (of {len(lists.of(group)):,} lists)" for group in without)
    raise DataError(f"every group of users needs a list with a liked item and others, got none for {counts}{why}; {do}")


def why_thin(log: Log) -> str:
    """What is missing in a log, as the middle of a sentence; empty where nothing is."""
    told: list[str] = []
    if log.num_items == 1:
        told.append("all interactions are with one item")
    if log.num_users == 1:
        told.append("there is one user")
    if np.bincount(log.interactions["user"].to_numpy()).max() == 1:
        told.append("no user has more than one interaction, and what is asked for comes after a history")
    return ": " + ", ".join(told) if told else ""


def _can_teach(lists: Lists) -> bool:
    """Whether a list holds a positive and a negative item."""
    is_positive_BL = (lists.labels_BL > 0) & lists.is_item_BL
    return bool((is_positive_BL.any(axis=1) & (~is_positive_BL & lists.is_item_BL).any(axis=1)).any())
