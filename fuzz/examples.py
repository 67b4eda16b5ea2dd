"""Small valid inputs of every reader of logs, by the name that picks it."""

from __future__ import annotations

import gzip
import io
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl

from recloop.data.checks import BadRowPolicy
from recloop.data.kar_knowledge import read_klg, with_item_texts, with_user_texts
from recloop.data.load import load_log
from recloop.data.recbench import read_recbench
from recloop.data.released_sessions import read_released, read_released_hints
from recloop.methods.re2llm.hint_base import read_hint_base
from recloop.progress import SILENT
from recloop.prompts.request_answer import are_tellable
from recloop.records import Log

Files = dict[str, bytes]
FORMS = (
    (".csv", ","), (".tsv", "\t"), (".dat", "::"), (".data", "\t"), (".item", "|"), (".user", "|"), (".json", "json"),
    (".jsonl", "json"), (".klg", "json"),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Example:
    """Files of a log and what reads them; a result that is a `Log` is checked further."""

    name: str
    files: Files
    read: Callable[[Path, bool], Any]
    forms: tuple[tuple[str, str], ...] = field(default=FORMS)


def examples() -> list[Example]:
    """One of each."""
    return [
        *_movielens(),
        *_amazon(),
        Example("mind", _mind(), _by_name("mind")),
        Example("implicit", _implicit(), _by_name("implicit")),
        *_tables(),
        *_recbench(),
        Example("released-movies", _released(with_movies=True), _read_released, (("dat", "\t"), *FORMS)),
        Example("released-games", _released(with_movies=False), _read_released),
        Example("hints", {"hints.json": b'{"hints": [{"text": "Go by genre first.", "origin": null}, "Mind the era."], '
                          b'"counts": {"kept": 2}}'}, _read_hints),
        Example("kar", _kar(), _read_kar),
    ]  # fmt: skip


def _lines(rows: list[str]) -> bytes:
    return ("\n".join(rows) + "\n").encode()


def _json_lines(rows: list[Any]) -> bytes:
    return _lines([json.dumps(row) for row in rows])


def _by_name(name: str, file: str = "", **settings: Any) -> Callable[[Path, bool], Log]:
    def read(folder: Path, sets_aside: bool) -> Log:
        paths = {key: folder / value for key, value in settings.items() if key == "metadata"}
        rows = {"on_bad_rows": "quarantine", "quarantine": folder / "bad.jsonl"} if sets_aside else {}
        return load_log(name, path=folder / file, progress=SILENT, **{**settings, **paths, **rows})

    return read


def _movielens() -> list[Example]:
    ratings = [(u, i, 1 + (u * i) % 5, 978_300_000 + 60 * u + i) for u in (1, 2, 3) for i in (1, 2, 3) if u != i]
    films = [
        (1, "Toy Story (1995)", "Animation|Comedy"),
        (2, "Matrix, The (1999)", "Action"),
        (3, "Heat (1995)", "Crime"),
    ]
    users = [(1, "F", 1, 10, "48067"), (2, "M", 56, 16, "70072"), (3, "M", 25, 15, "55117")]
    join = "::".join
    million = {
        "ratings.dat": _lines([join(map(str, row)) for row in ratings]),
        "movies.dat": _lines([join(map(str, row)) for row in films]),
        "users.dat": _lines([join(map(str, row)) for row in users]),
    }
    extra = [f"{i}::{t}::1995::PG::1 Jan::Drama::Ann Vale, Bo Lee::W::A One::plot::url" for i, t, _ in films]
    flags = "|".join(["0"] * 17 + ["1", "0"])
    hundred = {
        "u.data": _lines(["\t".join(map(str, row)) for row in ratings]),
        "u.item": _lines([f"{i}|{t}|01-Jan-1995||http://x|{flags}" for i, t, _ in films]),
        "u.user": _lines([f"{u}|24|{g}|writer|{z}" for u, g, _, _, z in users]),
    }
    comma = {
        "ratings.csv": _lines(["userId,movieId,rating,timestamp", *(",".join(map(str, row)) for row in ratings)]),
        "movies.csv": _lines(["movieId,title,genres", *(f'{i},"{t}",{g}' for i, t, g in films)]),
    }
    with_extra = million | {"extra.dat": _lines(extra), "about.json": b'{"1": "A film about toys.", "3": "A heist."}'}

    def read_extra(folder: Path, sets_aside: bool) -> Log:
        more = {"item_knowledge": folder / "about.json", "attributes": ("era", "genre", "director", "certificate")}
        return _by_name("ml-1m", metadata="extra.dat", **more)(folder, sets_aside)

    return [
        Example("ml-1m", million, _by_name("ml-1m")),
        Example("ml-1m-extra", with_extra, read_extra),
        Example("ml-100k", hundred, _by_name("movielens")),
        Example("ml-10m", {name: million[name] for name in ("ratings.dat", "movies.dat")}, _by_name("movielens")),
        Example("ml-csv", comma, _by_name("movielens")),
    ]


def _amazon() -> list[Example]:
    pairs = [(f"U{u}", f"B{i}", u, i) for u in range(3) for i in range(3)]
    old = [
        {"reviewerID": u, "asin": b, "overall": 5.0 - i, "unixReviewTime": 1_400_000_000 + i, "helpful": [0, 0]}
        for u, b, _, i in pairs
    ]
    items = [
        {"asin": f"B{i}", "title": f"Book {i}", "categories": [["Books", "War"]], "brand": "Ann"} for i in range(3)
    ]
    new = [
        {"user_id": u, "parent_asin": b, "asin": b, "rating": 5.0, "timestamp": 1_600_000_000_000 + n, "text": "x"}
        for u, b, n, _ in pairs
    ]
    parents = [
        {"parent_asin": f"B{i}", "title": f"Book {i}", "categories": ["Books", "War"], "author": {"name": "Ann Vale"}}
        for i in range(3)
    ]
    literals = _lines([repr(one) for one in items])
    packed = gzip.compress(_json_lines(new))
    core = {"amazon": {"min_per_user": 1, "min_per_item": 1}}
    read, read_gz = (
        _by_name("amazon", file, metadata="meta.jsonl", **core) for file in ("reviews.jsonl", "reviews.jsonl.gz")
    )
    return [
        Example("amazon-2018", {"reviews.jsonl": _json_lines(old), "meta.jsonl": _json_lines(items)}, read),
        Example("amazon-2014", {"reviews.jsonl": _json_lines(old), "meta.jsonl": literals}, read),
        Example("amazon-2023", {"reviews.jsonl.gz": packed, "meta.jsonl": _json_lines(parents)}, read_gz),
    ]  # fmt: skip


def _mind() -> Files:
    news = [f"N{n}\tnews\tworld\tTitle {n}\tabstract\thttp://x\t[]\t[]" for n in range(1, 5)]
    lists = [f"{n}\tU{n % 2}\t11/1{n}/2019 9:05:58 AM\tN1 N2\tN3-1 N4-0" for n in range(1, 4)]
    return {"news.tsv": _lines(news), "behaviors.tsv": _lines(lists)}


def _implicit() -> Files:
    items = {f"{n}": {"title": f"Thing {n}", "brand": "Acme", "categories": "Home,Kitchen"} for n in range(4)}
    return {
        "toys.inter.json": json.dumps({"u1": ["0", "1"], "u2": ["1", "2", "3"]}).encode(),
        "toys.item.json": json.dumps(items).encode(),
    }


INTERACTIONS = [
    ("u1", "i1", "4", "2024-01-01T10:00:00Z"), ("u1", "i2", "2.5", "2024-01-02T10:00:00Z"),
    ("u2", "i1", "5", "2024-01-03 11:30:00"), ("u2", "i3", "1", "1704456000"), ("u3", "i2", "3", "2024-02-29"),
]  # fmt: skip
ITEMS = [("i1", "Heat", "Crime|Drama", "1995"), ("i2", 'The "Best", one', "Comedy", "2001"), ("i3", "Äther: 3", "", "")]
USERS = [("u1", "25-34", "f"), ("u2", "", "m"), ("u3", "35-44", "d")]
SHOWN = [
    ("u1", "l1", "i1", "1", "1"),
    ("u1", "l1", "i2", "0", "2"),
    ("u2", "l2", "i3", "0", "1"),
    ("u2", "l2", "i1", "1", "2"),
]
HEADS = {
    "log": ("user", "item", "stars", "when"), "items": ("item", "title", "genre", "year"), "users": ("user", "age",
    "sex"),
    "shown": ("user", "list", "item", "label", "place"),
}  # fmt: skip
ROWS: Mapping[str, Any] = {"log": INTERACTIONS, "items": ITEMS, "users": USERS, "shown": SHOWN}
COLUMNS = {"rating": "stars", "time": "when", "attributes": ("genre", "year"), "rating_min": 0.5}


def separated(name: str, separator: str = ",") -> bytes:
    """One of the tables as separated cells."""

    def cell(text: str) -> str:
        return '"' + text.replace('"', '""') + '"' if '"' in text or separator in text else text

    return _lines([separator.join(map(cell, row)) for row in (HEADS[name], *ROWS[name])])


def frame(name: str) -> pl.DataFrame:
    """One of the tables as a frame of texts."""
    return pl.DataFrame(ROWS[name], schema=list(HEADS[name]), orient="row")


def parquet(name: str) -> bytes:
    """One of the tables as Parquet."""
    file = io.BytesIO()
    frame(name).write_parquet(file)
    return file.getvalue()


def json_lines(name: str) -> bytes:
    """One of the tables as an object a line."""
    return _json_lines([dict(zip(HEADS[name], row, strict=True)) for row in ROWS[name]])


def read_table_files(ending: str, *, with_lists: bool = True, **more: Any) -> Callable[[Path, bool], Log]:
    """What reads the four tables with this ending of their names."""

    def read(folder: Path, sets_aside: bool) -> Log:
        files: dict[str, Any] = {name: folder / f"{name}{ending}" for name in ("items", "users")}
        if with_lists:
            files |= {"impressions": folder / f"shown{ending}", "position": "place"}
        return _by_name("table", f"log{ending}", table=COLUMNS | files | more)(folder, sets_aside)

    return read


def _tables() -> list[Example]:
    makers: dict[str, Callable[[str], bytes]] = {
        ".csv": separated,
        ".tsv": lambda name: separated(name, "\t"),
        ".jsonl": json_lines,
        ".parquet": parquet,
        ".csv.gz": lambda name: gzip.compress(separated(name)),
    }
    tables = [
        Example(f"table{ending}", {f"{name}{ending}": make(name) for name in HEADS}, read_table_files(ending))
        for ending, make in makers.items()
    ]
    bare = {"log.csv": _lines([",".join(row[:2]) for row in INTERACTIONS])}
    headerless = {"header": False, "user": "1", "item": "2"}
    strange = {
        "user": "user",
        "item": "item",
        "encoding": "cp1251",
        "repeats": "last",
        "time": "when",
        "time_format": "%Y",
    }
    return [
        *tables,
        Example("table-bare", bare, _by_name("table", "log.csv", table=headerless)),
        Example(
            "table-baskets", bare, _by_name("table", "log.csv", table=headerless | {"baskets": True, "repeats": "all"})
        ),
        Example("table-cp1251", {"log.csv": separated("log")}, _by_name("table", "log.csv", table=strange)),
    ]


def _small_log() -> Log:
    interactions = pl.DataFrame({"user_id": ["a", "a", "b", "b"], "item_id": ["1", "2", "2", "3"]})
    items = pl.DataFrame({"item_id": ["1", "2", "3"], "title": ["Heat", "The Matrix", "Alien"]})
    return Log.from_frames(interactions, items, progress=SILENT)


def _recbench() -> list[Example]:
    row = {"query": "a film", "condition_num": 1, "history_sample": [1], "gt_items": [[1, "Heat"]]}
    names = ("movie_explicit.jsonl", "movie_implicit.jsonl", "movie_misinformed.jsonl")
    files = {name: _json_lines([row, row | {"gt_items": [[2, "Matrix"], [3, "Alien"]]}]) for name in names}
    log = _small_log()

    def read(folder: Path, sets_aside: bool) -> Any:  # noqa: ARG001
        return read_recbench(folder, log, 2, 0, are_tellable)

    return [Example("recbench", files, read)]


def _released(*, with_movies: bool) -> Files:
    session = [
        {"session": [1, 2], "target": 3, "candidates": [3, 1]},
        {"session": [2], "target": 1, "candidates": [1, 3]},
    ]
    files = {f"sessions_{part}.jsonl": _json_lines(session) for part in ("train", "test")}
    files["hints.json"] = b'["", "Mind the era &amp; genre."]'
    if with_movies:
        files["hetrec_movies.dat"] = _lines(["id\ttitle\tyear", "1\tHeat\t1995", "2\tAlien\t1979", "3\tUp\t2009"])
        files["hetrec_movie_genres.dat"] = _lines(["movieID\tgenre", "1\tCrime", "2\tHorror"])
        files["hetrec_movie_directors.dat"] = _lines(["movieID\tdirectorID\tdirectorName", "1\tx\tAnn Vale"])
    else:
        files["num_to_title.json"] = b'{"1": "Game &amp; Watch", "2": "Tetris", "3": "Pong"}'
    return files


def _read_released(folder: Path, sets_aside: bool) -> Any:  # noqa: ARG001
    return read_released(folder, None, None, 0)


def _read_hints(folder: Path, sets_aside: bool) -> Any:
    return (read_released_hints if sets_aside else read_hint_base)(folder / "hints.json")


def _kar() -> Files:
    prompt = 'Given a user who saw "Heat", 5.0 stars; think.'
    return {
        "user.klg": json.dumps({"a": {"prompt": prompt.replace("Heat", "Heat"), "ans": "likes war"}}).encode(),
        "item.klg": json.dumps({"1": {"prompt": "about", "ans": "a heist"}}).encode(),
        "begin_index.json": b'{"a": 1}',
    }


def _read_kar(folder: Path, sets_aside: bool) -> Log:
    log = _small_log()
    knowledge = read_klg(folder, BadRowPolicy(folder / "bad.jsonl" if sets_aside else None))
    return with_user_texts(with_item_texts(log, knowledge), knowledge)
