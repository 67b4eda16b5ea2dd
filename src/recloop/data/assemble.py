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
    """A `Log` before numbering: the same frames, with ``user_id`` and ``item_id`` (text) in place of numbers."""

    name: str
    domain: Domain
    users: pl.DataFrame
    items: pl.DataFrame
    attributes: tuple[str, ...]
    interactions: pl.DataFrame
    positive_from_rating: float | None
    item_knowledge: pl.DataFrame | None = None
    user_knowledge: pl.DataFrame | None = None


def number_log(raw: RawLog) -> Log:
    """The log with users and items numbered in the order of their frames, and interactions sorted; DataError if none.

    Users without interactions and items without any are left out: a candidate that is in nobody's history
    would be known as a negative by its number alone.
    """
    if raw.interactions.is_empty():
        raise DataError(f"{raw.name} must have interactions, got none; lower the filters or check the files")
    users = raw.users.join(raw.interactions, on="user_id", how="semi", maintain_order="left")
    items = raw.items.join(raw.interactions, on="item_id", how="semi", maintain_order="left")
    users = users.select(_running_number("user"), pl.all())
    items = items.select(_running_number("item"), "item_id", "title", *raw.attributes)
    interactions = (
        raw.interactions.join(users.select("user", "user_id"), on="user_id")
        .join(items.select("item", "item_id"), on="item_id")
        .select("user", "item", pl.col("rating").cast(pl.Float32), pl.col("time").cast(pl.Float64))
        .sort("user", "time", "item")
    )
    return Log(
        raw.name, raw.domain, users, items, raw.attributes, interactions, raw.positive_from_rating,
        None if raw.item_knowledge is None else numbered_texts(raw.item_knowledge, items, "item"),
        None if raw.user_knowledge is None else numbered_texts(raw.user_knowledge, users, "user"),
    )  # fmt: skip


def numbered_texts(texts: pl.DataFrame, known: pl.DataFrame, name: str) -> pl.DataFrame:
    """Texts by user or item (the `name`), with the numbers of the `known` ones in place of ids, in their order."""
    return known.select(name, f"{name}_id").join(texts, on=f"{name}_id").drop(f"{name}_id").sort(name)


def _running_number(name: str) -> pl.Expr:
    return pl.int_range(pl.len(), dtype=pl.Int64).alias(name)


def keep_rated_items(raw: RawLog, min_item_ratings: int) -> RawLog:
    """The log without the items that have fewer interactions, and without these interactions (one pass)."""
    if min_item_ratings <= 1:
        return raw
    kept = raw.interactions.filter(pl.len().over("item_id") >= min_item_ratings)
    return replace(raw, interactions=kept)


def keep_core(raw: RawLog, min_per_user: int, min_per_item: int) -> RawLog:
    """The core: users and items with fewer interactions dropped until all have enough (KAR: 60 and 40 on books)."""
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
            f"data.users must be at most the {log.num_users} users of {log.name}, got {num_users}; lower it"
        )
    drawn = np.random.default_rng([seed, 0x05E25]).choice(log.num_users, num_users, replace=False)
    users, items = log.users.select("user", "user_id"), log.items.select("item", "item_id")
    met = log.interactions.filter(pl.col("user").is_in(drawn.tolist()))
    item_texts, user_texts = log.item_knowledge, log.user_knowledge
    return number_log(
        RawLog(
            log.name, log.domain, log.users.drop("user"), log.items.drop("item"), log.attributes,
            met.join(users, on="user").join(items, on="item").drop("user", "item"), log.positive_from_rating,
            None if item_texts is None else item_texts.join(items, on="item").drop("item"),
            None if user_texts is None else user_texts.join(users, on="user").drop("user"),
        )
    )  # fmt: skip


def clean_text(column: str) -> pl.Expr:
    """One line of text without control characters or double spaces."""
    return pl.col(column).str.replace_all(r"[\p{Cc}\s]+", " ").str.strip_chars()


def attribute_labels(values: pl.Expr, unstated: Sequence[str] = ("",)) -> pl.Expr:
    """Lists of attribute values without commas, semicolons and line breaks, each once, those in `unstated` left out."""
    plain = pl.element().str.replace_all(r"[\p{Cc}\s,;]+", " ").str.strip_chars(" .")
    stated = values.list.eval(plain).list.eval(pl.element().filter(~pl.element().is_in(list(unstated))))
    return stated.list.unique(maintain_order=True)
