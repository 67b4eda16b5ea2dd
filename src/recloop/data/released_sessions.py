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
from typing import Any

import numpy as np
import polars as pl

from recloop.data.sessions import Session, SessionTask
from recloop.errors import DataError
from recloop.records import Domain

MOVIES, GENRES, DIRECTORS = "hetrec_movies.dat", "hetrec_movie_genres.dat", "hetrec_movie_directors.dat"
TITLES, HINTS = "num_to_title.json", "hints.json"
MOVIE_FACETS = ("era", "genre", "director")


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
    facets = tuple(name for name in catalogue.columns if name not in ("number", "title"))
    blank = pl.DataFrame(
        {
            "number": untitled,
            "title": [f"item {n}" for n in untitled],
            **{f: [[]] * len(untitled) for f in facets},
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
        Domain.MOVIES if facets else Domain.PRODUCTS,
        items.select(
            pl.col("item").cast(pl.Int64), item_id=pl.col("number").cast(pl.String), title="title",
            **{f: pl.col(f) for f in facets},
        ),
        facets,
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


def _sample(
    sessions: list[Session], wanted: int | None, seed: int, folder: Path, part: str
) -> tuple[Session, ...]:
    if wanted is None:
        return tuple(sessions)
    if wanted > len(sessions):
        raise DataError(
            f"{folder} must hold {wanted} {part} sessions, got {len(sessions)}; ask for that many, or all"
        )
    chosen = np.random.default_rng([seed, len(part)]).choice(len(sessions), wanted, replace=False)
    return tuple(sessions[n] for n in sorted(chosen.tolist()))


def _movies(folder: Path) -> pl.DataFrame:
    movies = _read_table(folder / MOVIES).select(
        number=pl.col("id").cast(pl.Int64), title="title", year=pl.col("year").cast(pl.Int64, strict=False)
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
    table = _read_table(file).select(number=pl.col("movieID").cast(pl.Int64), **{column: pl.col(column)})
    return table.group_by("number", maintain_order=True).agg(pl.col(column).drop_nulls())


def _games(folder: Path) -> pl.DataFrame:
    told = _read_json(folder / TITLES)
    return pl.DataFrame(
        {"number": [int(n) for n in told], "title": [html.unescape(str(title)) for title in told.values()]},
        schema={"number": pl.Int64, "title": pl.String},
    )


def _read_table(file: Path) -> pl.DataFrame:
    """A tab-separated latin-1 table without quoting."""
    if not file.is_file():
        raise DataError(f"{file} is wanted and absent; put the released files into one folder")
    lines = file.read_text(encoding="latin-1").splitlines()
    names = lines[0].split("\t")
    rows = [line.split("\t") for line in lines[1:] if line]
    width = len(names)
    columns = {
        name: [row[c] if c < len(row) else None for row in rows] for c, name in enumerate(names[:width])
    }
    return pl.DataFrame(columns, schema=dict.fromkeys(names, pl.String))


def _read_json(file: Path) -> Any:
    if not file.is_file():
        raise DataError(f"{file} is wanted and absent; put the released files into one folder")
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DataError(f"{file} must be JSON, got {error}; fetch it again") from error


def _read_lines(file: Path) -> list[dict[str, Any]]:
    if not file.is_file():
        raise DataError(f"{file} is wanted and absent; put the released files into one folder")
    rows: list[dict[str, Any]] = []
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
        try:
            row = json.loads(line)
            is_session = bool(row["session"]) and bool(row["candidates"]) and isinstance(row["target"], int)
        except (ValueError, KeyError, TypeError):
            row, is_session = {}, False
        if not is_session:
            raise DataError(
                f"{file}, line {number} must be an object with session, target and candidates, got "
                f"{line[:60]!r}; fetch the file again"
            )
        rows.append(row)
    return rows
