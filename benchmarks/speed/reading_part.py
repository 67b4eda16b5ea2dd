"""Reads MovieLens-1M from its files into candidate lists, against pandas."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from benchmarks.speed.bench import Bench
from benchmarks.speed.figures import Check, Figure, Findings, Target
from benchmarks.speed.measuring import python_profile, race
from benchmarks.speed.pandas_alternative import PandasLists, prepare_with_pandas
from recloop.data.lists import ProtocolConfig, build_lists
from recloop.data.load import DataConfig, read_log
from recloop.records import CandidateLists, Group

NUM_USERS, NUM_MOVIES, MEAN_RATINGS = 6_000, 3_700, 166  # of the stand-in, as MovieLens-1M
WANTED_S = 4.0


def measure(bench: Bench) -> Findings:
    """Time reading, checking, numbering, sorting, windows and lists with negatives; the files are cached."""
    folder = bench.config.data_path
    if folder is None:
        folder = write_stand_in(bench.scratch / "ml-1m", bench.amount(NUM_USERS, 30))
    num_rows = (folder / "ratings.dat").read_bytes().count(b"\n")
    with bench.progress.stage("reading", bench.repetitions, "repetitions") as step:
        found = race(
            ("read_log and build_lists", num_rows, lambda: prepare(folder)),
            ("pandas", num_rows, lambda: prepare_with_pandas(folder, seed=0)),
            bench.repetitions,
            step,
        )
    wall_s = float(np.median(found.ours.wall_s))
    name = "MovieLens-1M" if bench.config.data_path is not None else "a stand-in for MovieLens-1M"
    return Findings(
        figures=(
            Figure(
                name=f"read and prepare {name}",
                unit="ratings",
                ours=found.ours,
                against=found.against,
                checks=(
                    Check(
                        what="windows, real items or labels that differ",
                        value=differences(found.our_result, found.their_result),
                        most=0,
                    ),
                ),
                targets=(Target(what="time", wanted="at most", limit=WANTED_S, value=wall_s, unit="s"),),
                notes=(f"{num_rows:,} ratings; metadata and item texts are not read by either",),
            ),
        ),
        profiles=(python_profile("reading and preparing", lambda: prepare(folder)),),
        bound=(
            "polars splits and checks the lines; the lists are made for all users at once. The largest single costs "
            "are splitting a million lines of text and searching for the items that a user has interacted with."
        ),
    )


def prepare(folder: Path) -> CandidateLists:
    """Lists of all users, in one group."""
    dataset = read_log(DataConfig(name="ml-1m", path=folder, metadata=None), seed=0)
    return build_lists(dataset, {Group.TRAIN: np.arange(dataset.num_users)}, ProtocolConfig(), seed=0)


def differences(ours: CandidateLists, theirs: PandasLists) -> float:
    """Number of entries of windows and lists that differ; negatives are random and not compared."""
    if ours.train.items_BL.shape != theirs.items_BL.shape:
        return float("inf")
    different = float((ours.histories.items != theirs.window_items).sum())
    different += float((ours.train.user_B != theirs.user_B).sum())
    items_BL, is_liked_BL = ours.train.items_BL, ours.train.labels_BL > 0
    liked_BL = np.sort(np.where(is_liked_BL, items_BL, -1), axis=1)[:, -theirs.real_BC.shape[1] :]
    their_liked_BC = np.sort(np.where(theirs.is_positive_BC, theirs.real_BC, -1), axis=1)
    different += float((liked_BL != their_liked_BC).sum())
    is_here_BC = (items_BL[:, None] == theirs.real_BC[:, :, None]).any(axis=2) | (theirs.real_BC < 0)
    return different + float((~is_here_BC).sum())


def write_stand_in(folder: Path, num_users: int) -> Path:
    """A folder with three files in MovieLens' format and invented content."""
    rng = np.random.default_rng(0)
    folder.mkdir(parents=True)
    movies = [f"{m}::Film Number {m} ({1950 + m % 50})::Drama|War" for m in range(1, NUM_MOVIES + 1)]
    users = [f"{u}::M::25::12::00000" for u in range(1, num_users + 1)]
    counts_U = np.clip(rng.lognormal(np.log(MEAN_RATINGS) - 0.5, 1.0, num_users), 20, 1_500).astype(int)
    ratings_lines: list[str] = []
    for user, count in enumerate(counts_U, start=1):
        items = rng.choice(NUM_MOVIES, count, replace=False) + 1
        rating = rng.integers(1, 6, count)
        times = 950_000_000 + np.sort(rng.integers(0, 10_000_000, count))
        ratings_lines += [
            f"{user}::{item}::{value}::{time}" for item, value, time in zip(items, rating, times, strict=True)
        ]
    for name, lines in (("movies", movies), ("users", users), ("ratings", ratings_lines)):
        (folder / f"{name}.dat").write_text("\n".join(lines) + "\n", encoding="latin-1")
    return folder
