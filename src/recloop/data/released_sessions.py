"""Sessions, hints and catalogues in the form in which Re2LLM's examples were released.

A folder holds ``sessions_train.jsonl`` and ``sessions_test.jsonl`` (a JSON object a line: ``session``,
``target``, ``candidates``, by item number), ``hints.json`` (a list of texts, the empty one among them) and a
catalogue: HetRec 2011's movie tables, or ``num_to_title.json``. Nothing of it comes with recloop.

What is repaired is counted. Repeated candidates, and repeated items of a session, count at their first place. A
session whose answer was already shown is left out. An item without a title gets its number as one.
"""

from __future__ import annotations

import html
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import polars as pl

from recloop.data.sessions import Session, SessionTask
from recloop.data.text_files import numbered, open_bytes, read_json, require_objects, split_fields
from recloop.errors import DataError
from recloop.records import Domain

MOVIES, GENRES, DIRECTORS = "hetrec_movies.dat", "hetrec_movie_genres.dat", "hetrec_movie_directors.dat"
TITLES, HINTS = "num_to_title.json", "hints.json"
FORM = "session, target and candidates by item number"
LINE = "\x00 line"  # no column of a table


def read_released(folder: Path, num_train: int | None, num_test: int | None, seed: int) -> SessionTask:
    """The sessions of a folder, with its catalogue and its hints; DataError: a file is absent, or a line is no session.

    Args:
        num_train, num_test: sessions kept, drawn by the seed and in the file's order; None for all.
    """
    catalogue = _movies(folder) if (folder / MOVIES).is_file() else _games(folder)
    counts: Counter[str] = Counter()
    raw = {
        part: require_objects(folder / f"sessions_{part}.jsonl", f"Re2LLM's {part} sessions", FORM, _is_session)
        for part in ("train", "test")
    }
    mentioned = {
        n for rows in raw.values() for row in rows for n in (*row["session"], *row["candidates"], row["target"])
    }
    numbers = pl.DataFrame({"number": sorted(mentioned)}, schema={"number": pl.Int64})
    items = numbers.join(catalogue, on="number", how="left", maintain_order="left").with_row_index("item")
    item_of = dict(zip(items["number"].to_list(), items["item"].to_list(), strict=True))
    counts["items without a title"] = items["title"].null_count()
    attributes = tuple(catalogue.columns[2:])
    parts: dict[str, tuple[Session, ...]] = {}
    first_user = 0
    for part, wanted in (("train", num_train), ("test", num_test)):
        sessions = [s for row in raw[part] if (s := _session(row, item_of, counts, part)) is not None]
        sessions = [replace(s, user=first_user + n, time=n) for n, s in enumerate(sessions)]
        first_user += len(sessions)
        parts[part] = _sample(sessions, wanted, seed, folder, part)
    return SessionTask(
        f"re2llm {folder.name}",
        Domain.MOVIES if attributes else Domain.PRODUCTS,
        items.select(
            pl.col("item").cast(pl.Int64), item_id=pl.col("number").cast(pl.String),
            title=pl.col("title").fill_null(pl.format("item {}", "number")),
            **{f: pl.col(f).fill_null([]) for f in attributes},
        ),
        attributes,
        parts["train"],
        parts["test"],
        read_released_hints(folder / HINTS) if (folder / HINTS).is_file() else (),
        tuple(sorted((what, count) for what, count in counts.items() if count)),
    )  # fmt: skip


def read_released_hints(file: Path) -> tuple[str, ...]:
    """The hints of a released file, HTML entities resolved, without the empty one; DataError if it lists no texts."""
    told = read_json(file, file.name)
    if not isinstance(told, list) or not all(isinstance(hint, str) for hint in told):
        raise DataError(f"{file} must hold a list of texts, got {type(told).__name__}; check the file")
    return tuple(html.unescape(hint).strip() for hint in told if hint.strip())


def _session(row: dict[str, Any], item_of: dict[int, int], counts: Counter[str], part: str) -> Session | None:
    shown = tuple(dict.fromkeys(item_of[n] for n in row["session"]))
    candidates = tuple(dict.fromkeys(item_of[n] for n in row["candidates"]))
    counts[f"{part}: items repeated in a session"] += len(row["session"]) - len(shown)
    counts[f"{part}: candidates repeated"] += len(row["candidates"]) - len(candidates)
    answer = item_of[row["target"]]
    if answer in shown or answer not in candidates:
        counts[f"{part}: sessions left out, answer shown or no candidate"] += 1
        return None
    return Session(0, 0, shown, answer, candidates)


def _sample(sessions: list[Session], wanted: int | None, seed: int, folder: Path, part: str) -> tuple[Session, ...]:
    if wanted is None:
        return tuple(sessions)
    if wanted > len(sessions):
        raise DataError(f"{folder} must hold {wanted} {part} sessions, got {len(sessions)}; ask for that many, or all")
    chosen = np.random.default_rng([seed, len(part)]).choice(len(sessions), wanted, replace=False)
    return tuple(sessions[n] for n in sorted(chosen.tolist()))


def _movies(folder: Path) -> pl.DataFrame:
    """``number, title``, then a column per attribute, null where it is not known."""
    movies = _read_table(folder / MOVIES, "id", "title", "year")
    decade = pl.col("year").cast(pl.Int64, strict=False) // 10 * 10
    era = pl.when(decade.is_not_null()).then(pl.concat_list(decade.cast(pl.String) + "s"))
    return (
        movies.select("number", "title", era=era)
        .join(_grouped(folder / GENRES, "genre"), on="number", how="left")
        .join(_grouped(folder / DIRECTORS, "directorName"), on="number", how="left")
        .rename({"directorName": "director"})
        .unique("number", keep="first", maintain_order=True)
    )


def _grouped(file: Path, column: str) -> pl.DataFrame:
    table = _read_table(file, "movieID", column)
    return table.group_by("number", maintain_order=True).agg(pl.col(column).drop_nulls())


def _games(folder: Path) -> pl.DataFrame:
    file = folder / TITLES
    told = read_json(file, file.name)
    if not isinstance(told, dict):
        raise DataError(f"{file} must hold an object of titles, got {type(told).__name__}; check the file")
    titles = cast("dict[str, Any]", told)
    odd = [number for number in titles if not number.strip().isdecimal() or len(number) > 18]
    if odd:
        raise DataError(f"{file} must have item numbers for keys, got {odd[0][:60]!r}; correct it")
    rows = [(int(number), html.unescape(str(title))) for number, title in titles.items()]
    return pl.DataFrame(rows, schema={"number": pl.Int64, "title": pl.String}, orient="row")


def _read_table(file: Path, number: str, *columns: str) -> pl.DataFrame:
    """Columns of a tab-separated latin-1 table without quoting; `number` becomes ``number``, a whole one."""
    with open_bytes(file, file.name) as opened:
        lines = numbered(opened.read().decode("latin-1").split("\n"))
    header = str(lines["text"][0]) if lines.height else ""
    names = header.split("\t")
    odd = [name for name in (number, *columns, *names) if names.count(name) != 1 or name in lines.columns]
    if odd:
        name = odd[0] + " once" * (odd[0] in names)
        raise DataError(f"{file} must begin with a header that has {name}, got {header[:60]!r}; fetch it again")
    rows = split_fields(lines.filter(pl.col("text").str.strip_chars() != "")[1:].rename({"line": LINE}), "\t", names)
    numbers = rows[number].cast(pl.Int64, strict=False)
    if numbers.has_nulls():
        at = int(numbers.is_null().arg_max() or 0)
        raise DataError(
            f"{file}, line {rows[LINE][at]} must have a whole number as {number}, got {rows[number][at]!r}; "
            f"fetch the file again"
        )
    return rows.select(numbers.alias("number"), *columns)


def _is_session(row: Mapping[str, Any]) -> bool:
    lists = (row.get("session"), row.get("candidates"))
    return _is_number(row.get("target")) and all(
        isinstance(one, list) and bool(one) and all(map(_is_number, cast("list[Any]", one))) for one in lists
    )


def _is_number(value: Any) -> bool:
    """Whether it is an item's number: whole, and of 64 bits."""
    return isinstance(value, int) and not isinstance(value, bool) and value.bit_length() < 64
