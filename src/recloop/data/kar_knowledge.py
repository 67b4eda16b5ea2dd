"""The texts KAR published: what an LLM wrote about users and items, and how much of each history it saw.

A folder with ``user.klg`` and ``item.klg`` (JSON: id in the source to ``{"prompt": ..., "ans": ...}``) and an
index, ``begin_index.json`` or ``end_index.json`` (id to the number of oldest interactions in the prompt).

KAR orders interactions by day and place in the file, a Log by second. So the index alone does not say which
interactions a prompt holds, and a text could know labels. The titles quoted in the prompt do say it.
"""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import polars as pl

from recloop.data import checks
from recloop.data.assemble import numbered_texts
from recloop.data.checks import STRICT, BadRowPolicy, Check, Rows
from recloop.data.movielens import spoken_title
from recloop.data.text_files import read_json_object
from recloop.errors import DataError
from recloop.records import Log

INDEX_NAMES = ("begin_index.json", "end_index.json")
_SHOWN = re.compile(r'"(.*?)", \d+(?:\.\d+)? stars;')


@dataclass(frozen=True, slots=True)
class KarKnowledge:
    """KAR's texts by ids of the source: users ``user_id, text, prompt, num_shown``, items ``item_id, text``."""

    users: pl.DataFrame
    items: pl.DataFrame


def read_klg(folder: Path, bad_rows: BadRowPolicy = STRICT) -> KarKnowledge:
    """KAR's texts of a folder; a bad row's ``line`` is the number of its entry. DataError: a bad file or row."""
    index_path = next((folder / name for name in INDEX_NAMES if (folder / name).is_file()), None)
    if index_path is None:
        raise DataError(f"KAR's knowledge needs its index, got no {' or '.join(INDEX_NAMES)} in {folder}; fetch it too")
    users, items = _read_texts(folder / "user.klg", "user_id"), _read_texts(folder / "item.klg", "item_id")
    index = read_json_object(index_path, "KAR's index")
    known = pl.Series(list(index), dtype=pl.String)
    users = users.check(checks.known("user_id", known, f"is not in {index_path.name}", "add its number"))
    rows = [
        (line, user, n if type(n) is int and 1 <= n < 2**31 else None, f"{user}: {n}")
        for line, (user, n) in enumerate(index.items(), start=1)
    ]
    schema = {"line": pl.Int64, "user_id": pl.String, "num_shown": pl.Int64, "entry": pl.String}
    numbers = Rows(index_path, pl.DataFrame(rows, schema=schema, orient="row")).check(
        Check(pl.col("num_shown").is_null(), pl.col("entry"), "is not a number of interactions", "correct it")
    )
    checks.settle([users, items, numbers], bad_rows)
    texts = users.good.join(numbers.good.select("user_id", "num_shown"), on="user_id", maintain_order="left")
    return KarKnowledge(texts.select("user_id", "text", "prompt", "num_shown"), items.good.select("item_id", "text"))


def _read_texts(path: Path, key: str) -> Rows:
    rows: list[tuple[int, str, str | None, str | None]] = []
    for line, (name, value) in enumerate(read_json_object(path, path.name).items(), start=1):
        entry = cast("dict[str, Any]", value) if isinstance(value, dict) else {}
        text, prompt = (told if isinstance(told := entry.get(part), str) else None for part in ("ans", "prompt"))
        rows.append((line, name, text and text.strip(), prompt))
    schema = {"line": pl.Int64, key: pl.String, "text": pl.String, "prompt": pl.String}
    is_bad = (pl.col("text").str.len_bytes() == 0) | pl.col("prompt").is_null()
    return Rows(path, pl.DataFrame(rows, schema=schema, orient="row")).check(
        Check(is_bad, pl.col(key), "has no prompt and ans with text", "remove the entry")
    )


def with_item_texts(log: Log, knowledge: KarKnowledge) -> Log:
    """The log with KAR's item texts as its item knowledge."""
    return replace(log, item_knowledge=numbered_texts(knowledge.items, log.items, "item"))


def with_user_texts(log: Log, knowledge: KarKnowledge) -> Log:
    """The log with KAR's user texts, and with the interactions that each text saw first in its user's history.

    They are the knowledge window of such a user, so no list holds an item whose rating a text has seen. DataError: a
    prompt shows another number of titles than the index says, or one the user never met.
    """
    texts = numbered_texts(knowledge.users, log.users, "user")
    known = texts.join(log.users.select("user", "user_id"), on="user", maintain_order="left")
    if known.is_empty():
        raise DataError(
            f"KAR's texts must be of users of {log.name}, got none of its {log.num_users}; use the log they are about"
        )
    own = _items_by_title(log, known["user"])
    places: list[tuple[int, int, int]] = []
    for user, user_id, prompt, num_shown in known.select("user", "user_id", "prompt", "num_shown").iter_rows():
        titles = _SHOWN.findall(prompt)
        if len(titles) != num_shown:
            raise DataError(
                f"the prompt of user {user_id} must show {num_shown} interactions as its index says, got "
                f"{len(titles)}; use the klg and index files of one release"
            )
        for place, title in enumerate(titles):
            candidates = own[user].get(spoken_title(title), [])
            if not candidates:
                raise DataError(
                    f"the prompt of user {user_id} must show items the user met, got {title!r}; "
                    f"use the log the texts are about"
                )
            places.append((user, candidates.pop(0), place))
    shown = pl.DataFrame(places, schema={"user": pl.Int64, "item": pl.Int64, "place": pl.Int64}, orient="row")
    moved_log = log.interactions.join(shown, on=["user", "item"], how="left", maintain_order="left")
    # Shown interactions precede all others of their user: their place, counted up to the log's first second.
    first = int(log.interactions["time"].to_numpy().min()) - int(known["num_shown"].to_numpy().max())
    moved = pl.when(pl.col("place").is_null()).then(pl.col("time")).otherwise(first + pl.col("place"))
    moved_log = moved_log.with_columns(time=moved).drop("place").sort("user", "time", "item")
    return replace(log, interactions=moved_log, user_knowledge=known.select("user", "text", "num_shown"))


def _items_by_title(log: Log, users: pl.Series) -> dict[int, dict[str, list[int]]]:
    """For each user, the items of every title in time order: two films may share one."""
    met = log.interactions.filter(pl.col("user").is_in(users.implode()))
    met = met.join(log.items.select("item", "title"), on="item", maintain_order="left")
    found: dict[int, dict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
    for user, item, title in met.select("user", "item", "title").iter_rows():
        found[user][title].append(item)
    return found
