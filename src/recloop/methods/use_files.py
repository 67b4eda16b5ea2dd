"""Whole files through a finished run: scores of lists, texts about users, and what others need of it in one folder."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from recloop.errors import DataError, RunError
from recloop.methods.predict import FinishedRun, require_columns
from recloop.records import Group
from recloop.training.export import export_model

if TYPE_CHECKING:
    from recloop.progress import Progress

ROWS_AT_ONCE = 400_000  # of lists that are in memory together
USERS_AT_ONCE = 256  # about whom is written together
READERS = {".parquet": pl.scan_parquet, ".csv": pl.scan_csv, ".jsonl": pl.scan_ndjson}


def score_file(run: FinishedRun, lists: Path, out: Path, texts: Path | None, progress: Progress) -> str:
    """Write the lists of a file with their scores; memory does not grow with the file. What was done, in a line.

    Args:
        lists: Parquet, CSV or JSON lines, with the columns of `FinishedRun.score`.
        out: a Parquet file; it appears when it is whole.
        texts: a file with ``user_id`` and ``text``, in place of the run's texts.

    Raises:
        DataError: a file that cannot be read, a missing column, unknown ids, a user without a text.
        RunError: `out` is there.
    """
    _require_new(out)
    table = _scan(lists, ("user_id", "item_id"))
    told = None if texts is None else read_texts(texts)
    num_rows, num_lists = int(table.select(pl.len()).collect().item()), 0
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as beside:
        with progress.stage("score", num_rows, "rows") as advance:
            for number, whole in enumerate(_whole_lists(table)):
                scored = run.score(whole, told)
                scored.write_parquet(Path(beside) / f"{number:06d}.parquet")
                num_lists += _list_numbers(scored).n_unique()
                advance(len(scored))
        if not num_rows:
            run.score(table.collect(), told).write_parquet(Path(beside) / "000000.parquet")
        pl.scan_parquet(Path(beside) / "*.parquet").sink_parquet(made := Path(beside) / "whole")
        made.replace(out)
    return f"{num_lists:,} lists, {num_rows:,} rows in {out}"


def profile_file(run: FinishedRun, users: Path, out: Path, seed: int, progress: Progress, tries: int = 1) -> str:
    """Write a text about every user of a file; what was done, in a line. Stopped, the same command goes on.

    Args:
        users: ``user_id`` alone, for users of the log; with ``item_id``, and ``rating`` where known, for others: a row
            for each item of a history, oldest first.
        out: a Parquet file of ``user_id`` and ``text``; it appears when it is whole.
        tries: as for `FinishedRun.profile`.

    Raises:
        DataError: a file that cannot be read, or unknown ids.
        RunError: `out` is there.
    """
    _require_new(out)
    frame = _scan(users, ("user_id",)).collect().with_columns(pl.col("user_id").cast(pl.String))
    ids = frame["user_id"].unique(maintain_order=True).to_list()
    whom = ids
    if "item_id" in frame.columns:
        rating = pl.col("rating") if "rating" in frame.columns else pl.lit(None)
        told = frame.select("user_id", pl.col("item_id").cast(pl.String), rating=rating.cast(pl.Float64))
        by_user = told.with_columns(pl.col("rating").fill_null(np.nan)).group_by("user_id", maintain_order=True)
        whom = [list(rows.select("item_id", "rating").iter_rows()) for _, rows in by_user]
    cache = out.with_name(f".{out.name}.sqlite")
    found: list[str] = []
    with progress.stage("profile", len(ids), "users") as advance:
        for first in range(0, len(whom), USERS_AT_ONCE):
            some = whom[first : first + USERS_AT_ONCE]
            found += run.profiles(some, seed=seed, tries=tries, cache=cache)
            advance(len(some))
    made = cache.with_suffix(".tmp")
    pl.DataFrame({"user_id": ids, "text": found}).write_parquet(made)
    made.replace(out)
    for file in cache.parent.glob(f"{cache.name}*"):
        file.unlink()
    return f"{len(ids):,} texts in {out}"


def export_run(run: FinishedRun, out: Path, *, merge: bool) -> str:
    """A folder that others can use and `hf upload` can publish: language model, reranker, vectors, scores and a card.

    Args:
        out: a new or empty folder.
        merge: add an adapter to its base.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise RunError(f"an export needs a new or empty folder, got {out}; choose another")
    out.mkdir(parents=True, exist_ok=True)
    trained = run.run.path / "lm" / f"{run.variant}.s{run.run.config['seeds'][0]}"
    parts = ["reranker/: the evaluator, for recloop.FittedReranker.load", "scores.parquet: of the test lists"]
    if trained.is_dir():
        export_model(trained, out / "lm", merge=merge)
        parts.insert(0, "lm/: the language model, with a card of its own")
    run.reranker.save(out / "reranker")
    run.score(rows_of_test_lists(run)).write_parquet(out / "scores.parquet")
    vectors = pl.scan_parquet(run.run.path / "vectors.parquet").filter(pl.col("variant") == run.variant)
    vectors.sink_parquet(out / "vectors.parquet")
    parts.append("vectors.parquet: of the texts about users")
    about = "\n".join(f"- `{part.replace(':', '`:', 1)}" for part in parts)
    rows = [
        f"| {one['label']} | {one['metric']} | {one['value']:.4f} | {one['low']:.4f} to {one['high']:.4f} |"
        for one in run.results.table().iter_rows(named=True)
    ]
    head = "| variant | metric | test users' mean | 95% interval |\n|---|---|---|---|"
    card = f"# {run.run.path.name}: a run of recloop\n\n{about}\n\n" + "\n".join([head, *rows]) + "\n"
    (out / "README.md").write_text(card, encoding="utf-8")
    return f"{out}\n" + "\n".join(f"  {part}" for part in parts) + f"\n  publish it: hf upload ORG/NAME {out}"


def rows_of_test_lists(run: FinishedRun) -> pl.DataFrame:
    """The test lists of a run as rows: ``list_id, user_id, item_id``, and ``first_stage`` where there are scores."""
    lists, log = run.lists.of(Group.TEST), run.log
    row_n, place_n = np.nonzero(lists.is_item_BL)
    columns = {
        "list_id": row_n,
        "user_id": log.users["user_id"].gather(lists.user_B[row_n]),
        "item_id": log.items["item_id"].gather(lists.items_BL[row_n, place_n]),
    }
    scores = {} if lists.score_BL is None else {"first_stage": lists.score_BL[row_n, place_n]}
    return pl.DataFrame(columns | scores)


def read_texts(path: Path) -> dict[str, str]:
    """The texts of a file with ``user_id`` and ``text``, by id; DataError where one is missing or there are two."""
    frame = _scan(path, ("user_id", "text")).select(pl.col("user_id", "text").cast(pl.String)).collect()
    for is_bad, what in (
        (frame["user_id"].is_null() | frame["text"].is_null(), "a row without an id or a text"),
        (frame["user_id"].is_duplicated(), "two texts about one user"),
    ):
        if is_bad.any():
            user = frame["user_id"].filter(is_bad)[0]
            raise DataError(f"{path} must hold a text about each user it names, got {what} ({user}); leave the row out")
    return dict(frame.iter_rows())


def _scan(path: Path, columns: tuple[str, ...]) -> pl.LazyFrame:
    if path.suffix not in READERS:
        raise DataError(f"a table is {', '.join(READERS)}, got {path.name}; convert it")
    try:
        table = READERS[path.suffix](path)
        names = table.collect_schema().names()
    except (OSError, pl.exceptions.PolarsError) as error:
        raise DataError(f"{path} cannot be read ({str(error).splitlines()[0]}); check it") from error
    require_columns(names, columns, str(path))
    return table


def _whole_lists(table: pl.LazyFrame) -> Iterator[pl.DataFrame]:
    """The table in parts that end with a list."""
    left = None
    for part in table.collect_batches(chunk_size=ROWS_AT_ONCE, maintain_order=True):
        both = part if left is None else pl.concat([left, part])
        number = _list_numbers(both)
        is_last = number == number[-1]
        left = both.filter(is_last)
        if not is_last.all():
            yield both.filter(~is_last)
    if left is not None and len(left):
        yield left


def _list_numbers(frame: pl.DataFrame) -> pl.Series:
    keys = [name for name in ("list_id", "user_id") if name in frame.columns]
    return frame.select(pl.struct(keys).rle_id()).to_series()


def _require_new(out: Path) -> None:
    if out.suffix != ".parquet":
        raise RunError(f"what is written is Parquet, got {out}; name it {out.with_suffix('.parquet').name}")
    if out.exists():
        raise RunError(f"{out} is there already; choose another name, or remove it")
    if not out.parent.is_dir():
        raise RunError(f"there is no folder {out.parent} for {out.name}; make it first")
