"""From checked rows to a Log: which users and items stay, what number each gets, in which order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import polars as pl

from recloop.errors import DataError, SettingError
from recloop.records import Domain, Log


@dataclass(frozen=True, slots=True)
class RawLog:
    """A Log before numbering: the same frames, keyed by the ids of the source.

    users: ``user_id`` (text, unique), profile columns. items: ``item_id`` (text, unique), ``title``, attributes.
    interactions: ``user_id, item_id, rating`` (Float32 or null), ``time`` (Int64).
    item_knowledge: ``item_id, text`` or None.
    """

    name: str
    domain: Domain
    users: pl.DataFrame
    items: pl.DataFrame
    attributes: tuple[str, ...]
    interactions: pl.DataFrame
    positive_from_rating: float | None
    item_knowledge: pl.DataFrame | None = None


def number_log(raw: RawLog) -> Log:
    """The log with users and items numbered in the order of their frames, and interactions sorted.

    Users without interactions and items without any are left out: a candidate that is in nobody's history
    would be known as a negative by its number alone.

    Raises:
        DataError: no interaction is left.
    """
    if raw.interactions.is_empty():
        raise DataError(
            f"{raw.name} must have interactions, got none after reading and filtering; "
            f"lower the filters or check the files"
        )
    users = raw.users.join(raw.interactions, on="user_id", how="semi", maintain_order="left")
    items = raw.items.join(raw.interactions, on="item_id", how="semi", maintain_order="left")
    users = users.select(_running_number("user"), pl.all())
    items = items.select(_running_number("item"), "item_id", "title", *raw.attributes)
    interactions = (
        raw.interactions.join(users.select("user", "user_id"), on="user_id")
        .join(items.select("item", "item_id"), on="item_id")
        .select("user", "item", pl.col("rating").cast(pl.Float32), pl.col("time").cast(pl.Int64))
        .sort("user", "time", "item")
    )
    knowledge = raw.item_knowledge
    if knowledge is not None:
        knowledge = knowledge.join(items.select("item", "item_id"), on="item_id").select("item", "text").sort("item")
    return Log(raw.name, raw.domain, users, items, raw.attributes, interactions, raw.positive_from_rating, knowledge)


def _running_number(name: str) -> pl.Expr:
    return pl.int_range(pl.len(), dtype=pl.Int64).alias(name)


def keep_rated_items(raw: RawLog, min_item_ratings: int) -> RawLog:
    """The log without the items that have fewer interactions, and without these interactions (one pass)."""
    if min_item_ratings <= 1:
        return raw
    kept = raw.interactions.filter(pl.len().over("item_id") >= min_item_ratings)
    return replace(raw, interactions=kept)


def keep_core(raw: RawLog, min_per_user: int, min_per_item: int) -> RawLog:
    """The core: the log after users and items with fewer interactions were dropped until all have enough.

    Source: KAR keeps Amazon-Books users with 60 and items with 40 interactions or more.
    """
    kept = raw.interactions
    while True:
        smaller = kept.filter(pl.len().over("user_id") >= min_per_user)
        smaller = smaller.filter(pl.len().over("item_id") >= min_per_item)
        if smaller.height == kept.height:
            return replace(raw, interactions=kept)
        kept = smaller


def sample_users(log: Log, num_users: int, seed: int) -> Log:
    """The same log with `num_users` of its users, drawn by `seed`, renumbered; SettingError when it has fewer."""
    if num_users > log.num_users:
        raise SettingError(
            f"data.users must be at most the {log.num_users} users of {log.name}, got {num_users}; "
            f"leave it out for all users"
        )
    drawn = np.random.default_rng([seed, 0x05E25]).choice(log.num_users, num_users, replace=False)
    is_kept = np.zeros(log.num_users, dtype=bool)
    is_kept[drawn] = True
    interactions = log.interactions.filter(pl.Series(is_kept[log.interactions["user"].to_numpy()]))
    item_ids = log.items.select("item", "item_id")
    knowledge, texts = log.item_knowledge, log.user_knowledge
    sampled = number_log(
        RawLog(
            log.name,
            log.domain,
            log.users.drop("user"),
            log.items.drop("item"),
            log.attributes,
            interactions.join(log.users.select("user", "user_id"), on="user")
            .join(item_ids, on="item")
            .drop("user", "item"),
            log.positive_from_rating,
            None if knowledge is None else knowledge.join(item_ids, on="item").drop("item"),
        )
    )
    if texts is None:
        return sampled
    by_id = texts.join(log.users.select("user", "user_id"), on="user").drop("user")
    kept = sampled.users.select("user", "user_id").join(by_id, on="user_id").sort("user")
    return replace(sampled, user_knowledge=kept.select("user", "text", "num_shown"))


def clean_text(column: str) -> pl.Expr:
    """One line of text without control characters or double spaces."""
    return pl.col(column).str.replace_all(r"[\p{Cc}\s]+", " ").str.strip_chars()


def attribute_labels(values: pl.Expr, unstated: Sequence[str] = ("",)) -> pl.Expr:
    """Lists of attribute values that can stand in a comma-separated list, each once, those in `unstated` left out.

    They hold no commas, semicolons or line breaks.
    """
    plain = pl.element().str.replace_all(r"[\p{Cc}\s,;]+", " ").str.strip_chars(" .")
    stated = values.list.eval(plain).list.eval(pl.element().filter(~pl.element().is_in(list(unstated))))
    return stated.list.unique(maintain_order=True)
