"""What a table says is what is read: in any form that says the same, and after a change of one cell."""

from __future__ import annotations

import csv
import gzip
import io
import json
import random
import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from fuzz.examples import HEADS, ROWS, read_table_files
from fuzz.mutate import odd_text
from fuzz.target import require
from recloop.records import Log

Rows = list[tuple[str, ...]]
PLACES = {"log": {"stars": "rating", "when": "time"}, "items": {"title": "title"}, "users": {"age": "age"}}


def case(rng: random.Random, folder: Path) -> Callable[[], None]:
    """A log in another form that says the same, or one with another cell."""
    tables = {name: [tuple(row) for row in ROWS[name]] for name in HEADS if name != "shown"}
    if rng.random() < 0.5:
        wanted = canonical_rows(tables)
        read = _write(tables, rng, folder)
        return lambda: _compare(read(folder, False), wanted)
    table = rng.choice(sorted(PLACES))
    column = rng.choice(sorted(PLACES[table]))
    place, row = HEADS[table].index(column), rng.randrange(len(tables[table]))
    text = odd_text(rng)
    old = tables[table][row]
    tables[table][row] = (*old[:place], text, *old[place + 1 :])
    _plain(tables, folder)
    return lambda: _changed_cell(folder, table, column, row, text)


def canonical_rows(tables: dict[str, Rows]) -> set[tuple[Any, ...]]:
    """Each interaction with all that is known of its user and item, by plain Python."""
    items, users = ({row[0]: row for row in tables[name]} for name in ("items", "users"))
    return {
        (
            *users[user], item, items[item][1], tuple(filter(None, items[item][2].split("|"))),
            tuple(filter(None, [items[item][3]])), float(stars), _seconds(when),
        )
        for user, item, stars, when in tables["log"]
    }  # fmt: skip


def _seconds(text: str) -> float:
    if text.isdecimal():
        return float(text)
    moment = datetime.fromisoformat(text)
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def rows_of(log: Log) -> set[tuple[Any, ...]]:
    """The same of a log that was read."""
    joined = log.interactions.join(log.users, on="user").join(log.items, on="item")
    return {
        (r["user_id"], r["age"] or "", r["sex"] or "", r["item_id"], r["title"], tuple(r["genre"]), tuple(r["year"]),
         r["rating"], r["time"])
        for r in joined.iter_rows(named=True)
    }  # fmt: skip


def _compare(log: Log, wanted: set[tuple[Any, ...]]) -> None:
    got = rows_of(log)
    require(got == wanted, f"read otherwise: {sorted(got - wanted)} for {sorted(wanted - got)}")


def _write(tables: dict[str, Rows], rng: random.Random, folder: Path) -> Callable[[Path, bool], Log]:
    """Write the tables in a form drawn by the generator; what reads them."""
    ending = rng.choice((".csv", ".tsv", ".txt", ".jsonl", ".parquet", ".csv.gz", ".CSV"))
    for name, rows in tables.items():
        columns = rng.sample(range(len(HEADS[name])), len(HEADS[name]))
        shuffled = rng.sample(rows, len(rows))
        head = [HEADS[name][place] for place in columns]
        cells = [[row[place] for place in columns] for row in shuffled]
        (folder / f"{name}{ending}").write_bytes(_bytes(head, cells, ending, rng))
    return read_table_files(ending, with_lists=False)


def _bytes(head: list[str], cells: list[list[str]], ending: str, rng: random.Random) -> bytes:
    if ending == ".parquet":
        file = io.BytesIO()
        pl.DataFrame(cells, schema=head, orient="row").write_parquet(file, compression=rng.choice(("zstd", "snappy")))
        return file.getvalue()
    if ending == ".jsonl":
        is_ascii = rng.random() < 0.5
        lines = [json.dumps(dict(zip(head, row, strict=True)), ensure_ascii=is_ascii) for row in cells]
        return ("\n".join(lines) + "\n" * rng.randrange(3)).encode()
    return _separated(head, cells, ending, rng)


def _separated(head: list[str], cells: list[list[str]], ending: str, rng: random.Random) -> bytes:
    text = io.StringIO()
    separator = {".tsv": "\t"}.get(ending) or rng.choice(",;\t" if ending == ".txt" else ",,,;\t")
    end = rng.choice(("\n", "\n", "\r\n", "\r"))
    quoting = rng.choice((csv.QUOTE_MINIMAL, csv.QUOTE_ALL, csv.QUOTE_NONNUMERIC))
    writer = csv.writer(text, delimiter=separator, quoting=quoting, lineterminator=end)
    writer.writerows([head, *cells])
    told = text.getvalue()
    told = told.removesuffix(end) if rng.random() < 0.3 else told + end * rng.randrange(3)
    raw = told.encode("utf-8-sig" if rng.random() < 0.3 else "utf-8")
    if rng.random() < 0.2 and end == "\n":
        raw = raw.replace(b"\n", b"\n\n")
    return gzip.compress(raw) if ending.endswith(".gz") or rng.random() < 0.1 else raw


def _plain(tables: dict[str, Rows], folder: Path) -> None:
    for name, rows in tables.items():
        with (folder / f"{name}.csv").open("w", newline="", encoding="utf-8", errors="surrogatepass") as file:
            csv.writer(file, quoting=csv.QUOTE_ALL, lineterminator="\n").writerows([HEADS[name], *rows])


def _changed_cell(folder: Path, table: str, column: str, row: int, text: str) -> None:
    """Read; every cell but one is as before, and that one is what its text says."""
    got = rows_of(read_table_files(".csv", with_lists=False)(folder, False))
    wanted = canonical_rows({name: [tuple(one) for one in ROWS[name]] for name in HEADS})
    owner = ROWS[table][row][0 if table != "log" else slice(0, 2)]
    place = {"stars": 7, "when": 8, "title": 4, "age": 1}[column]

    def is_touched(found: Sequence[Any]) -> bool:
        return owner == {"log": (found[0], found[3]), "items": found[3], "users": found[0]}[table]

    untouched = [{one for one in rows if not is_touched(one)} for rows in (got, wanted)]
    require(untouched[0] == untouched[1], f"{column} {text!r} changed other rows: {untouched[0] ^ untouched[1]}")
    for found in filter(is_touched, got):
        others = [one for one in wanted if is_touched(one) and _without(one, place) == _without(found, place)]
        require(bool(others), f"{column} {text!r} changed other cells: {found}")
        require(_says(column, text, found[place]), f"{column} {text!r} is read as {found[place]!r}")


def _without(row: tuple[Any, ...], place: int) -> tuple[Any, ...]:
    return (*row[:place], *row[place + 1 :])


def _says(column: str, text: str, value: Any) -> bool:
    """Whether a cell's text says this value."""
    if column == "stars":
        return value is not None and float(np.float32(float(text.strip()))) == value
    if column == "when":
        digits = text.strip()
        if re.fullmatch(r"[+-]?\d+(\.\d*)?([eE][+-]?\d+)?", digits) and not re.fullmatch(r"(19|20|21)\d{6}", digits):
            return any(abs(float(digits) / unit - value) < 1e-3 for unit in (1, 1e3, 1e6, 1e9))
        return abs(_seconds(digits) - value) < 1e-3
    return _folded(text) == (value or "")


def _folded(text: str) -> str:
    return re.sub(r"[\x00-\x1f\x7f-\x9f\s]+", " ", text).strip()
