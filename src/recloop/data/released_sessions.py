"""Sessions, hints and catalogues in the form in which Re2LLM's examples were released.

A folder holds ``sessions_train.jsonl`` and ``sessions_test.jsonl`` (a JSON object a line: ``session``,
``target``, ``candidates``, by item number), ``hints.json`` (a list of texts, the empty one among them) and a
catalogue: HetRec 2011's movie tables, or ``num_to_title.json``. Nothing of it comes with recloop.

Repaired and counted: a candidate that stands twice counts once, at its first place; an item met again in a
session counts once; a session whose answer was already shown is left out; an item without a title gets
its number for one.
"""

from __future__ import annotations

import html
import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeGuard, cast

import numpy as np
import polars as pl

from recloop.data.sessions import Session, SessionTask
from recloop.errors import DataError
from recloop.records import Domain

MOVIES, GENRES, DIRECTORS = "hetrec_movies.dat", "hetrec_movie_genres.dat", "hetrec_movie_directors.dat"
TITLES, HINTS = "num_to_title.json", "hints.json"
MOVIE_ATTRIBUTES = ("era", "genre", "director")


def read_released(folder: Path, num_train: int | None, num_test: int | None, seed: int) -> SessionTask:
    """The sessions of a folder, with its catalogue and its hints.

    Args:
        num_train, num_test: sessions kept, drawn by the seed and in the file's order; None for all.

    Raises:
        DataError: a file is absent, or a line is no session.
    """
    catalogue = _movies(folder) if (folder / MOVIES).is_file() else _games(folder)
    counts: Counter[str] = Counter()
    raw = {part: _read_lines(folder / f"sessions_{part}.jsonl") for part in ("train", "test")}
    mentioned = {n for rows in raw.values() for row in rows for n in (*row["session"], *row["candidates"])}
    mentioned |= {row["target"] for rows in raw.values() for row in rows}
    known = catalogue.filter(pl.col("number").is_in(sorted(mentioned)))
    untitled = sorted(mentioned - set(known["number"].to_list()))
    counts["items without a title"] = len(untitled)
    attributes = tuple(name for name in catalogue.columns if name not in ("number", "title"))
    blank = pl.DataFrame(
        {
            "number": untitled,
            "title": [f"item {n}" for n in untitled],
            **{f: [[]] * len(untitled) for f in attributes},
        },
        schema=known.schema,
    )
    items = pl.concat([known, blank]).sort("number").with_row_index("item")
    item_of = dict(zip(items["number"].to_list(), items["item"].to_list(), strict=True))
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
            pl.col("item").cast(pl.Int64), item_id=pl.col("number").cast(pl.String), title="title",
            **{f: pl.col(f) for f in attributes},
        ),
        attributes,
        parts["train"],
        parts["test"],
        read_released_hints(folder / HINTS) if (folder / HINTS).is_file() else (),
        tuple(sorted((what, count) for what, count in counts.items() if count)),
    )  # fmt: skip


def read_released_hints(file: Path) -> tuple[str, ...]:
    """The hints of a released file, HTML entities resolved, without the empty one.

    Raises:
        DataError: it is no list of texts.
    """
    told = _read_json(file)
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
    movies = _read_table(folder / MOVIES, "id", "title", "year").select(
        "number", "title", year=pl.col("year").cast(pl.Int64, strict=False)
    )
    genres = _grouped(folder / GENRES, "genre")
    directors = _grouped(folder / DIRECTORS, "directorName")
    decade = (pl.col("year") // 10 * 10).cast(pl.String) + "s"
    era = pl.when(pl.col("year").is_null()).then(pl.lit([], dtype=pl.List(pl.String)))
    return (
        movies.join(genres, on="number", how="left")
        .join(directors, on="number", how="left")
        .select(
            "number",
            "title",
            era=era.otherwise(pl.concat_list(decade)),
            genre=pl.col("genre").fill_null([]),
            director=pl.col("directorName").fill_null([]),
        )
        .unique("number", keep="first", maintain_order=True)
    )


def _grouped(file: Path, column: str) -> pl.DataFrame:
    table = _read_table(file, "movieID", column)
    return table.group_by("number", maintain_order=True).agg(pl.col(column).drop_nulls())


def _games(folder: Path) -> pl.DataFrame:
    file = folder / TITLES
    told = _read_json(file)
    if not isinstance(told, dict):
        raise DataError(f"{file} must hold an object of titles, got {type(told).__name__}; check the file")
    titles = cast("dict[str, Any]", told)
    odd = [number for number in titles if not number.strip().isdecimal() or len(number) > 18]
    if odd:
        raise DataError(f"{file} must have item numbers for keys, got {odd[0][:60]!r}; correct it")
    return pl.DataFrame(
        {
            "number": [int(number) for number in titles],
            "title": [html.unescape(str(title)) for title in titles.values()],
        },
        schema={"number": pl.Int64, "title": pl.String},
    )


def _read_table(file: Path, number: str, *columns: str) -> pl.DataFrame:
    """Columns of a tab-separated latin-1 table without quoting; `number` becomes ``number``, a whole one."""
    lines = _read_text(file, "latin-1").split("\n")
    names = lines[0].split("\t")
    missing = [name for name in (number, *columns) if name not in names]
    if missing:
        raise DataError(f"{file} must begin with a header that has {missing[0]}, got {lines[0][:60]!r}; fetch it again")
    rows = [(place, line.split("\t")) for place, line in enumerate(lines[1:], 2) if line.strip()]
    texts = {
        name: [row[place] if place < len(row) else None for _, row in rows]
        for place, name in enumerate(names)
        if name in (number, *columns)
    }
    table = pl.DataFrame(texts, schema=dict.fromkeys(texts, pl.String))
    numbers = table[number].cast(pl.Int64, strict=False)
    if numbers.has_nulls():
        at = int(numbers.is_null().arg_max() or 0)
        raise DataError(
            f"{file}, line {rows[at][0]} must have a whole number as {number}, got {texts[number][at]!r}; "
            f"fetch the file again"
        )
    return table.select(numbers.alias("number"), *columns)


def _read_text(file: Path, encoding: str) -> str:
    if not file.is_file():
        raise DataError(f"{file} is wanted and absent; put the released files into one folder")
    try:
        return file.read_text(encoding=encoding)
    except UnicodeDecodeError as error:
        raise DataError(f"{file} must be UTF-8, got {error}; fetch the file again") from error


def _read_json(file: Path) -> Any:
    try:
        return json.loads(_read_text(file, "utf-8"))
    except (json.JSONDecodeError, RecursionError) as error:
        raise DataError(f"{file} must be JSON, got {error}; fetch it again") from error


def _read_lines(file: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    # Not splitlines: a title may hold U+2028, which JSON leaves as it is.
    for number, line in enumerate(_read_text(file, "utf-8").split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            row = None
        if not _is_session(row):
            raise DataError(
                f"{file}, line {number} must be an object with session, target and candidates by item "
                f"number, got {line[:60]!r}; fetch the file again"
            )
        rows.append(row)
    return rows


def _is_session(row: Any) -> TypeGuard[dict[str, Any]]:
    if not isinstance(row, dict):
        return False
    found = cast("dict[str, Any]", row)
    lists = (found.get("session"), found.get("candidates"))
    return _is_number(found.get("target")) and all(
        isinstance(one, list) and bool(one) and all(map(_is_number, cast("list[Any]", one))) for one in lists
    )


def _is_number(value: Any) -> bool:
    """Whether it is an item's number: whole, and of 64 bits."""
    return isinstance(value, int) and not isinstance(value, bool) and value.bit_length() < 64
