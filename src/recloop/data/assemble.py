"""From checked rows to a Log: which users and items stay, what number each gets, in which order."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import polars as pl

from recloop.data.impressions import with_impressions
from recloop.errors import DataError, SettingError
from recloop.records import Domain, Log

STRUCTURE = re.compile(r'[|",;:<>\[\]{}]')  # what the lines of a prompt are built with
MAX_NAME_CHARS = 40


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
    impressions: pl.DataFrame | None = None


def number_log(raw: RawLog) -> Log:
    """The log with users and items numbered in the order of their frames, and interactions sorted; DataError if none.

    Users without interactions and items without any are left out: a candidate that is in nobody's history
    would be known as a negative by its number alone. Users and items of impressions are kept.
    """
    if raw.interactions.is_empty():
        raise DataError(f"{raw.name} must have interactions, got none; lower the filters or check the files")
    met = [raw.interactions] if raw.impressions is None else [raw.interactions, raw.impressions]
    met_users, met_items = (
        pl.concat([one.select(pl.col(name).unique(maintain_order=True).cast(pl.String)) for one in met])
        for name in ("user_id", "item_id")
    )
    users = raw.users.join(met_users, on="user_id", how="semi", maintain_order="left")
    items = raw.items.join(met_items, on="item_id", how="semi", maintain_order="left")
    own = [name for name in users.columns if name != "user_id"]
    called = dict(zip(own, plain_names(own, ("user", "user_id")), strict=True))
    users = users.select(_running_number("user"), pl.all()).rename(called)
    attributes = plain_names(raw.attributes, ("item", "item_id", "title"))
    pairs = zip(raw.attributes, attributes, strict=True)
    values = [pl.col(name).list.eval(one_line(pl.element())).alias(shown) for name, shown in pairs]
    items = items.select(_running_number("item"), "item_id", clean_text("title"), *values)
    interactions = raw.interactions.select(
        _numbers(raw.interactions["user_id"], users, "user"),
        _numbers(raw.interactions["item_id"], items, "item"),
        pl.col("rating").cast(pl.Float32),
        pl.col("time").cast(pl.Float64),
    ).drop_nulls(["user", "item"])
    interactions = interactions.sort(_order(interactions), maintain_order=True)
    log = Log(
        raw.name, raw.domain, users, items, attributes, interactions, raw.positive_from_rating,
        None if raw.item_knowledge is None else numbered_texts(raw.item_knowledge, items, "item"),
        None if raw.user_knowledge is None else numbered_texts(raw.user_knowledge, users, "user"),
    )  # fmt: skip
    return log if raw.impressions is None else with_impressions(log, raw.impressions)


def _numbers(ids: pl.Series, known: pl.DataFrame, name: str) -> pl.Series:
    """The number of the user or item (the `name`) that each id is; null for none."""
    # Joined as categories: a join of texts takes several times as long.
    number = known.select(name, id=pl.col(f"{name}_id").cast(pl.Categorical))
    found = ids.cast(pl.Categorical).alias("id").to_frame()
    return found.join(number, on="id", how="left", maintain_order="left")[name]


def _order(interactions: pl.DataFrame) -> list[pl.Expr]:
    """User, time and item, to sort by: as one number where that holds them all, since it takes a third of the time."""
    user, time, item = pl.col("user"), pl.col("time"), pl.col("item")
    is_whole, first, last, num_users, num_items = interactions.select(
        (time % 1 == 0).all(), time.min().alias("first"), time.max().alias("last"), user.max() + 1, item.max() + 1
    ).row(0)
    if first is None or not is_whole or num_users * num_items * (int(last - first) + 1) >= 2**63:
        return [user, time, item]
    return [(user * int(last - first + 1) + (time - first).cast(pl.Int64)) * num_items + item]


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
            None if log.impressions is None else _own_ids(log.impressions, log, drawn),
        )
    )  # fmt: skip


def counts_of(log: Log) -> str:
    """How much there is of a log, in words."""
    told = f"{log.interactions.height:,} interactions of {log.num_users:,} users with {log.num_items:,} items"
    if log.impressions is not None:
        told += f", {log.impressions['list'].n_unique():,} lists shown"
    return told


def _own_ids(impressions: pl.DataFrame, log: Log, users: np.ndarray) -> pl.DataFrame:
    """The impressions of some users under their ids."""
    return (
        impressions.filter(pl.col("user").is_in(users.tolist()))
        .join(log.users.select("user", "user_id"), on="user")
        .join(log.items.select("item", "item_id"), on="item")
        .drop("user", "item", "list")
    )


def clean_text(column: str) -> pl.Expr:
    """One line of text without control characters or double spaces."""
    return one_line(pl.col(column))


def plain_names(names: Sequence[str], taken: Sequence[str]) -> tuple[str, ...]:
    """Names of columns as prompts may show them: one line without marks that structure it, each another.

    Args:
        taken: other columns of the same table.

    Example:
        >>> plain_names(["genre", "role<|im_end|>\\n", "role|im_end"], ["title"])
        ('genre', 'role im_end', 'role im_end 2')
    """
    found = [*taken]
    for name in names:
        line = "".join(" " if unicodedata.category(c)[0] in "CZ" else c for c in name)
        plain = re.sub(r"\s+", " ", STRUCTURE.sub(" ", line)).strip()[:MAX_NAME_CHARS].strip() or "column"
        number = 2
        unique = plain
        while unique in found:
            unique, number = f"{plain} {number}", number + 1
        found.append(unique)
    return tuple(found[len(taken) :])


def one_line(text: pl.Expr) -> pl.Expr:
    """`clean_text` of an expression."""
    return text.str.replace_all(r"[\p{Cc}\s]+", " ").str.strip_chars()


def attribute_labels(values: pl.Expr, unstated: Sequence[str] = ("",)) -> pl.Expr:
    """Lists of attribute values without commas, semicolons and line breaks, each once, those in `unstated` left out."""
    plain = pl.element().str.replace_all(r"[\p{Cc}\s,;]+", " ").str.strip_chars(" .")
    stated = values.list.eval(plain).list.eval(pl.element().filter(~pl.element().is_in(list(unstated))))
    return stated.list.unique(maintain_order=True)
