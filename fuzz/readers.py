"""Readers of logs: damaged files and frames, and files that say the same in another form."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl

from fuzz import frames, values
from fuzz.bombs import bomb
from fuzz.examples import Example, examples
from fuzz.mutate import mutated_file, odd_text
from fuzz.target import Case, Kind, require
from recloop.data.load import load_log
from recloop.errors import shown
from recloop.progress import SILENT
from recloop.records import Log

SHARE_OF_VALUES, SHARE_OF_FRAMES, SHARE_OF_PATHS, SHARE_OF_BOMBS = 0.15, 0.1, 0.03, 0.001


def _make(work: Path) -> Case:  # noqa: ARG001
    known = examples()

    def case(rng: random.Random, folder: Path) -> Callable[[], None]:
        drawn = rng.random()
        if drawn < SHARE_OF_BOMBS:
            return bomb(rng, folder)
        if drawn < SHARE_OF_VALUES:
            return values.case(rng, folder)
        if drawn < SHARE_OF_VALUES + SHARE_OF_FRAMES:
            return frames.case(rng)
        if drawn > 1 - SHARE_OF_PATHS:
            return _odd_path(rng, folder)
        return _damaged(rng.choice(known), rng, folder)

    return case


def _odd_path(rng: random.Random, folder: Path) -> Callable[[], None]:
    """A path that is none: a link to itself, a file in place of a folder, a name of thousands of characters."""
    (folder / "file").write_text("user,item\nu1,i1\n")
    (folder / "loop").symlink_to(folder / "loop")
    path = folder / rng.choice(("loop", "file", "file/x", "loop/x", "", "..", odd_text(rng)))
    name = rng.choice(("movielens", "ml-1m", "mind", "amazon", "implicit", "table"))
    settings: dict[str, Any] = {"metadata": path} if name == "amazon" else {}
    if rng.random() < 0.5:
        settings |= {
            "on_bad_rows": "quarantine",
            "quarantine": folder / rng.choice(("file", "file/x", "loop", "", "q")),
        }
    return lambda: check_log(load_log(name, path=path, progress=SILENT, **settings))


def _damaged(example: Example, rng: random.Random, folder: Path) -> Callable[[], None]:
    files = mutated_file(example.files, example.forms, rng)
    for name, raw in files.items():
        (folder / name).write_bytes(raw)
    if rng.random() < 0.01 and files:  # a folder, or a link to nowhere, where a file should be
        odd = folder / rng.choice(sorted(files))
        odd.unlink()
        odd.mkdir() if rng.random() < 0.5 else odd.symlink_to(folder / "nowhere")
    sets_aside = rng.random() < 0.5

    def read() -> None:
        got = example.read(folder, sets_aside)
        if isinstance(got, Log):
            check_log(got)

    return read


def check_log(log: Log) -> None:
    """`Wrong` unless the log is what `Log` promises."""
    met = log.interactions
    require(log.num_users > 0 and log.num_items > 0 and met.height > 0, "a log without users, items or interactions")
    for frame, name in ((log.users, "user"), (log.items, "item")):
        require(frame[name].to_list() == list(range(frame.height)), f"{name}s are not numbered in order")
        require(frame[f"{name}_id"].n_unique() == frame.height, f"ids of {name}s repeat")
        require(met[name].null_count() == 0 and met[name].max() < frame.height, f"an interaction of no {name}")  # pyright: ignore
        for column in frame.columns[2:]:  # ids stay as the source writes them
            require(_is_clean(frame[column]), f"odd characters in {column}: {frame[column].to_list()}")
    require(log.items["title"].null_count() == 0, "an item without a title")
    require(all(title.strip() for title in log.items["title"].to_list()), "a blank title")
    require(met["time"].is_finite().all() and met["time"].null_count() == 0, "a time that is no number")
    rated = met["rating"].drop_nulls()
    require(rated.is_empty() or (len(rated) == met.height and rated.is_finite().all()), "a rating that is no number")
    require(met.equals(met.sort("user", "time", "item")), "interactions are not in order")
    for text in log.reading:
        require(text == shown(text), f"odd characters in what is said: {text!r}")
    if log.impressions is not None:
        _check_impressions(log)


def _check_impressions(log: Log) -> None:
    shown = log.impressions
    assert shown is not None
    require(shown.select(pl.col("user", "item", "label").null_count()).row(0) == (0, 0, 0), "a list with nulls")
    require(all(math.isfinite(label) and label >= 0 for label in shown["label"].to_list()), "a label that is none")


def _is_clean(column: pl.Series) -> bool:
    """Whether a column of texts, or of lists of them, has neither control characters nor surrounding space."""
    flat: Any = column.explode(empty_as_null=True) if isinstance(column.dtype, pl.List) else column
    texts = [text for text in flat.drop_nulls().to_list() if isinstance(text, str)]
    return not any(ord(char) < 32 or 127 <= ord(char) < 160 for text in texts for char in text)


KIND = Kind("readers", 50_000, _make)
