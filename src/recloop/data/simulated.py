"""Simulated logs: invented items, users with known tastes, and a dial from no signal to full signal.

Every item has one value in each of three attributes. Every user likes some values of each, dislikes as many, and is
neutral to the rest. The history up to the knowledge window shows *all* these tastes. Its ratings rise and fall with
the tastes in the three attributes together. Every liked and every disliked value is there at least twice, with a mean
rating on the right side of the user's mean wherever possible. So a true text about any attribute can be written.

What happens after the window is decided by the *useful* attributes alone. With probability `signal` taste drives an
interaction: with probability `POSITIVE_SHARE` it is an item the user likes in these attributes, rated 4 or 5,
otherwise one the user does not like there, rated 1 to 3. Chance drives the others: an item the user has not met,
rated 4 or 5 with probability `POSITIVE_SHARE`. So at 0 labels are independent of every taste, and at 1 they follow
from the useful tastes.

Every value belongs to equally many items and is liked by equally many users (up to rounding), attributes are drawn
independently, and items uniformly given what drives them: popularity tells nothing. Even at 1 a perfect scorer stays
below 1, because negatives drawn by a protocol can carry liked values.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import polars as pl
from pydantic import BaseModel, model_validator

from recloop.data.assemble import RawLog, number_log
from recloop.data.lists import window_lens
from recloop.data.vocabulary import VOCABULARIES, attribute_values, deal_values, item_titles
from recloop.errors import SettingError
from recloop.records import Domain, Log
from recloop.settings import setting

POSITIVE_FROM_RATING = 4.0
# By attribute, in the order of the prompt: how many values it has, and how many of them a user likes; as many are
# disliked. A catalogue of hundreds of items then has enough items of each value, and a history can show each taste.
VALUES, LIKED = (6, 8, 15), (2, 2, 3)
POSITIVE_SHARE = 0.6  # of the later interactions; about that of MovieLens-1M
WINDOWS_TRIED = 8
USERS_AT_ONCE = 256
START_TIME_S = 1_000_000_000


class SimulatedConfig(BaseModel, frozen=True, extra="forbid"):
    """What is simulated."""

    domain: Domain = setting(Domain.MOVIES, "Kind of the invented items: movies, books, products.")
    num_users: int = setting(400, "Users.", ge=1)
    num_items: int = setting(300, "Items.", ge=1)
    num_interactions: int = setting(40, "Mean interactions per user; each has within a tenth.", ge=4)
    useful_attributes: tuple[str, ...] = setting(
        ("genre",), "Attributes whose tastes decide what happens after the window.", min_length=1
    )
    signal: float = setting(1.0, "Share of the later interactions that taste decides; the rest is chance.", ge=0, le=1)

    @model_validator(mode="after")
    def _is_possible(self) -> SimulatedConfig:
        if self.domain not in VOCABULARIES:
            raise SettingError(
                f"a simulated log is of {', '.join(VOCABULARIES)}, got {self.domain}; choose one of them"
            )
        attributes = VOCABULARIES[self.domain].attributes
        unknown = [attribute for attribute in self.useful_attributes if attribute not in attributes]
        if unknown or len(set(self.useful_attributes)) < len(self.useful_attributes):
            raise SettingError(
                f"useful_attributes must be different ones of {', '.join(attributes)}, got "
                f"{', '.join(self.useful_attributes)}; choose from these"
            )
        most = self.num_interactions + self.num_interactions // 10
        fewest = max(3 * most, 2 * max(VALUES))
        if self.num_items < fewest:
            raise SettingError(
                f"a simulated log needs three items per interaction of a user and two per value, got "
                f"{self.num_items} items; use {fewest} or more"
            )
        return self


@dataclass(frozen=True, slots=True)
class SimulatedTruth:
    """The truth behind a simulated log: `F` attributes in the order of `Log.attributes`, each with `V` named values.

    value_IF: number of each item's value in each attribute.
    taste_UV: for each attribute, 1 liked, -1 disliked, 0 neutral, for each user and value.
    """

    attributes: tuple[str, ...]
    values: tuple[tuple[str, ...], ...]
    value_IF: np.ndarray
    taste_UV: tuple[np.ndarray, ...]
    useful_attributes: tuple[str, ...]

    def score(self, attribute: str, user_B: np.ndarray, items_BL: np.ndarray) -> np.ndarray:
        """Each user's true taste in one attribute for the items of a list: what a perfect text would say."""
        column = self.attributes.index(attribute)
        return self.taste_UV[column][np.asarray(user_B)[:, None], self.value_IF[items_BL, column]].astype(np.float64)


def simulate_log(config: SimulatedConfig, seed: int) -> tuple[Log, SimulatedTruth]:
    """A simulated log, as any reader would give it, and the truth behind it; `seed` is of everything drawn."""
    rng = np.random.default_rng([seed, 0x30714D])
    attributes = VOCABULARIES[config.domain].attributes
    values = tuple(attribute_values(config.domain, column, num, rng) for column, num in enumerate(VALUES))
    value_IF = np.stack([deal_values(num, config.num_items, rng) for num in VALUES], axis=1)
    taste_UV = tuple(_draw_tastes(config.num_users, num, liked, rng) for num, liked in zip(VALUES, LIKED, strict=True))
    truth = SimulatedTruth(attributes, values, value_IF, taste_UV, config.useful_attributes)
    log = _simulate_log(truth, config, rng)
    ids = [f"i{item}" for item in range(config.num_items)]
    columns = {name: [[values[f][value]] for value in value_IF[:, f]] for f, name in enumerate(attributes)}
    items = pl.DataFrame({"item_id": ids, "title": item_titles(config.domain, config.num_items, rng), **columns})
    users = pl.DataFrame({"user_id": [f"u{user}" for user in range(config.num_users)]})
    simulated = number_log(RawLog("simulated", config.domain, users, items, attributes, log, POSITIVE_FROM_RATING))
    met_I = simulated.items["item_id"].str.strip_prefix("i").cast(pl.Int64).to_numpy()
    return simulated, replace(truth, value_IF=value_IF[met_I])


def _simulate_log(truth: SimulatedTruth, config: SimulatedConfig, rng: np.random.Generator) -> pl.DataFrame:
    """``user_id, item_id, rating, time`` of all users."""
    spread = config.num_interactions // 10
    count_U = config.num_interactions + rng.integers(-spread, spread + 1, size=config.num_users)
    window_U = window_lens(count_U, window_max=int(count_U.max()))
    shown_UN, shown_rating_UN = _draw_windows(window_U, truth, rng)
    columns = [truth.attributes.index(attribute) for attribute in config.useful_attributes]
    items: list[np.ndarray] = []
    rating: list[np.ndarray] = []
    for user, (count, window) in enumerate(zip(count_U, window_U, strict=True)):
        useful_I = np.zeros(config.num_items, dtype=np.int64)
        for column in columns:
            useful_I += truth.taste_UV[column][user][truth.value_IF[:, column]]
        shown = shown_UN[user, :window]
        later, later_rating = _draw_later(count - window, shown, useful_I, config, rng)
        items += [shown, later]
        rating += [shown_rating_UN[user, :window], later_rating]
    user_n = np.repeat(np.arange(config.num_users), count_U)
    clock_n = np.cumsum(rng.integers(60, 86_400, size=len(user_n)))
    first_n = np.repeat(np.cumsum(count_U) - count_U, count_U)
    return pl.DataFrame(
        {
            "user_id": pl.Series(user_n).cast(pl.String),
            "item_id": pl.Series(np.concatenate(items)).cast(pl.String),
            "rating": np.concatenate(rating).astype(np.float32),
            "time": START_TIME_S + clock_n - clock_n[first_n],
        }
    ).with_columns(user_id="u" + pl.col("user_id"), item_id="i" + pl.col("item_id"))


def _draw_tastes(num_users: int, num_values: int, liked: int, rng: np.random.Generator) -> np.ndarray:
    """Int8 [U, V]: 1 for `liked` values of a user, -1 for as many; V users in turn like every value equally often."""
    taste_UV = np.zeros((num_users, num_values), dtype=np.int8)
    steps = np.arange(liked)
    for first in range(0, num_users, num_values):
        ring = rng.permutation(num_values)
        for place, user in enumerate(range(first, min(first + num_values, num_users))):
            taste_UV[user, ring[(place + steps) % num_values]] = 1
            taste_UV[user, ring[(place + liked + steps) % num_values]] = -1
    return taste_UV[rng.permutation(num_users)]


def _draw_windows(
    window_U: np.ndarray, truth: SimulatedTruth, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Items and ratings [U, n] of the windows, ``window_U[u]`` of each row in use; of several tries the most truthful.

    An item is taken for the liked and disliked values it carries, most of all for those not yet met twice.
    """
    num_users, longest = len(window_U), int(window_U.max())
    items_UN = np.empty((num_users, longest), dtype=np.int64)
    rating_UN = np.empty((num_users, longest))
    for first in range(0, num_users, USERS_AT_ONCE):
        users = np.arange(first, min(first + USERS_AT_ONCE, num_users))
        user_R = np.repeat(users, WINDOWS_TRIED)
        items_RN = _pick_items(user_R, longest, truth, rng)
        taste_RN = np.zeros(items_RN.shape)
        for column, taste in enumerate(truth.taste_UV):
            taste_RN += taste[user_R[:, None], truth.value_IF[items_RN, column]]
        rating_RN = np.clip(np.rint(3 + 0.85 * taste_RN + rng.normal(0, 0.35, taste_RN.shape)), 1, 5)
        is_used_RN = np.arange(longest) < window_U[user_R][:, None]
        faults_R = _count_faults(user_R, items_RN, rating_RN, is_used_RN, truth)
        best_U = faults_R.reshape(len(users), WINDOWS_TRIED).argmin(axis=1)
        rows = np.arange(len(users)) * WINDOWS_TRIED + best_U
        order_UN = np.argsort(rng.random((len(users), longest)) + ~is_used_RN[rows], axis=1)
        items_UN[users] = np.take_along_axis(items_RN[rows], order_UN, axis=1)
        rating_UN[users] = np.take_along_axis(rating_RN[rows], order_UN, axis=1)
    return items_UN, rating_UN


def _pick_items(user_R: np.ndarray, num: int, truth: SimulatedTruth, rng: np.random.Generator) -> np.ndarray:
    """Different items [R, num] for each row, rich in tastes, values not yet met twice first."""
    rows = np.arange(len(user_R))
    tastes = [np.abs(taste[user_R]).astype(np.float64) for taste in truth.taste_UV]
    needs = [2.0 * taste for taste in tastes]
    columns = truth.value_IF.T
    appeal_RI = 0.5 * rng.gumbel(size=(len(rows), len(truth.value_IF)))
    for taste, values in zip(tastes, columns, strict=True):
        appeal_RI += 0.75 * taste[:, values]
    items_RN = np.empty((len(rows), num), dtype=np.int64)
    for place in range(num):
        gain_RI = appeal_RI.copy()
        for need, values in zip(needs, columns, strict=True):
            gain_RI += need[:, values]
        items_RN[:, place] = gain_RI.argmax(axis=1)
        appeal_RI[rows, items_RN[:, place]] = -np.inf
        for need, values in zip(needs, columns, strict=True):
            met = values[items_RN[:, place]]
            need[rows, met] = np.maximum(need[rows, met] - 1, 0)
    return items_RN


def _count_faults(
    user_R: np.ndarray, items_RN: np.ndarray, rating_RN: np.ndarray, is_used_RN: np.ndarray, truth: SimulatedTruth
) -> np.ndarray:
    """How far each window is from showing the tastes: values not there twice, ratings on the wrong side."""
    num_rows = len(user_R)
    mean_R = (rating_RN * is_used_RN).sum(axis=1) / is_used_RN.sum(axis=1)
    excess_RN = (rating_RN - mean_R[:, None]) * is_used_RN
    faults_R = np.zeros(num_rows)
    for column, taste_UV in enumerate(truth.taste_UV):
        num_values = taste_UV.shape[1]
        cell_RN = np.arange(num_rows)[:, None] * num_values + truth.value_IF[items_RN, column]
        excess_RV = np.bincount(cell_RN.ravel(), excess_RN.ravel(), num_rows * num_values)
        met_RV = np.bincount(cell_RN.ravel(), is_used_RN.ravel(), num_rows * num_values)
        excess_RV, met_RV = excess_RV.reshape(num_rows, -1), met_RV.reshape(num_rows, -1)
        taste_RV = taste_UV[user_R]
        wrong_RV = 4 * np.maximum(2 - met_RV, 0) + np.clip(1 - taste_RV * excess_RV, 0, 4)
        faults_R += np.where(taste_RV != 0, wrong_RV, 0.1 * np.abs(excess_RV)).sum(axis=1)
    return faults_R


def _draw_later(
    count: int, shown: np.ndarray, useful_I: np.ndarray, config: SimulatedConfig, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """What follows the window: items that are new to the user, with ratings, in random order."""
    is_positive = rng.random(count) < POSITIVE_SHARE
    by_taste = rng.random(count) < config.signal
    is_new_I = np.ones(len(useful_I), dtype=bool)
    is_new_I[shown] = False
    items = np.empty(count, dtype=np.int64)
    driven = (
        (by_taste & is_positive, useful_I > 0),
        (by_taste & ~is_positive, useful_I <= 0),
        (~by_taste, np.ones(len(useful_I), dtype=bool)),
    )
    for wanted, is_fitting_I in driven:
        pool = np.flatnonzero(is_new_I & is_fitting_I)
        num = int(wanted.sum())
        if num > len(pool):
            raise SettingError(
                f"a user needs {num} new items driven by one taste, got {len(pool)} in the catalogue; "
                f"use more items or fewer interactions"
            )
        items[wanted] = rng.choice(pool, num, replace=False)
        is_new_I[items[wanted]] = False
    rating = np.where(is_positive, rng.integers(4, 6, size=count), rng.integers(1, 4, size=count))
    return items, rating
