"""Run and qrels files as TREC tools read them, and the table's numbers recomputed from them.

One query per list, named ``USER.NUMBER`` (the user's number in the log; the list's place among that user's
lists, from 0); documents are item numbers of the log. Scores are strictly decreasing even as 32-bit floats,
because tools break ties each in their own way. Every candidate is in the qrels, also those with label 0, so
that lists without a positive are not lost (trec_eval leaves them out of its mean unless told otherwise).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from recloop.errors import ContractError, DataError
from recloop.evaluation.score import MetricsConfig, variant_from_lists
from recloop.records import Group, Lists
from recloop.rerankers.metrics import compute_metric

if TYPE_CHECKING:
    from jaxtyping import Float32, Int64

QRELS_COLUMNS = {"query": pl.String, "iteration": pl.String, "item": pl.Int64, "label": pl.Int64}
RUN_COLUMNS = {
    "query": pl.String,
    "iteration": pl.String,
    "item": pl.Int64,
    "rank": pl.Int64,
    "score": pl.Float32,
    "tag": pl.String,
}


def write_qrels(path: Path, lists: Lists) -> None:
    """The labels of all candidates: ``query 0 item label``.

    Raises:
        DataError: a list holds an item twice, which no TREC file can say.
    """
    _check_distinct(lists)
    row_n, place_n = np.nonzero(lists.is_item_BL)
    table = pl.DataFrame(
        {
            "query": _queries(lists, row_n),
            "iteration": np.zeros(len(row_n), np.int64),
            "item": lists.items_BL[row_n, place_n],
            "label": lists.labels_BL[row_n, place_n].astype(np.int64),
        }
    )
    table.write_csv(path, include_header=False, separator=" ")


def write_run(path: Path, scores_BL: Float32[np.ndarray, "B L"], lists: Lists, tag: str) -> None:
    """One ranking per list: ``query Q0 item rank score tag``, ranks from 1.

    Args:
        path: written over.
        scores_BL: higher is better; equal scores keep the input order.
        lists: the lists that were scored.
        tag: name of the system, without blanks.

    Raises:
        ContractError: scores have another shape than the lists or are not finite at an item.
        DataError: a list holds an item twice, or the tag a blank.
    """
    _check_distinct(lists)
    if not tag or any(character.isspace() for character in tag):
        raise DataError(f"the tag of a run must be one word, got {tag!r}; join its words with hyphens")
    if scores_BL.shape != lists.items_BL.shape or not np.isfinite(scores_BL[lists.is_item_BL]).all():
        raise ContractError(
            f"scores of a run must be finite and shaped as its lists, {list(lists.items_BL.shape)}, got "
            f"{list(scores_BL.shape)}; score one completion at a time"
        )
    order_BL = np.argsort(np.where(lists.is_item_BL, -scores_BL.astype(np.float64), np.inf), axis=1, kind="stable")
    is_item_BL = np.take_along_axis(lists.is_item_BL, order_BL, axis=1)
    score_BL = _strictly_decreasing(np.take_along_axis(scores_BL, order_BL, axis=1))
    row_n, rank_n = np.nonzero(is_item_BL)
    table = pl.DataFrame(
        {
            "query": _queries(lists, row_n),
            "iteration": pl.repeat("Q0", len(row_n), eager=True),
            "item": np.take_along_axis(lists.items_BL, order_BL, axis=1)[row_n, rank_n],
            "rank": rank_n + 1,
            "score": score_BL[row_n, rank_n],
            "tag": pl.repeat(tag, len(row_n), eager=True),
        }
    )
    table.write_csv(path, include_header=False, separator=" ")


def write_runs(
    folder: Path, variant: str, seed: int, scores_BNL: Float32[np.ndarray, "B N L"], lists: Lists
) -> list[Path]:
    """A run file per completion, ``VARIANT.seedS.completionN.trec``, as `recompute` reads them."""
    paths: list[Path] = []
    for completion in range(scores_BNL.shape[1]):
        stem = f"{variant}.seed{seed}.completion{completion}"
        paths.append(folder / f"{stem}.trec")
        write_run(paths[-1], scores_BNL[:, completion], lists, stem)
    return paths


def read_run(run_path: Path, qrels_path: Path, group: Group) -> tuple[Lists, Float32[np.ndarray, "B L"]]:
    """The lists of a qrels file with the scores a run gave them; ranks are ignored, as by trec_eval.

    Raises:
        DataError: the run misses a candidate, holds another, scores one twice, or ties two.
    """
    qrels = _read(qrels_path, QRELS_COLUMNS)
    run = _read(run_path, RUN_COLUMNS)
    joined = qrels.join(run.select("query", "item", "score"), on=["query", "item"], how="left")
    num_missing, num_found = joined["score"].null_count(), joined.height - joined["score"].null_count()
    if num_missing or num_found != run.height or joined.height != qrels.height:
        raise DataError(
            f"{run_path}: a run must score every candidate of {qrels_path.name} once, got {run.height} lines "
            f"for {qrels.height} candidates ({num_missing} of them missing); write both from the same lists"
        )
    if joined.select(pl.struct("query", "score").is_duplicated().any()).item():
        raise DataError(
            f"{run_path}: scores of one query must differ, got ties, which every tool breaks in its own way; "
            f"write the file with recloop.evaluation.trec.write_run"
        )
    return _as_lists(joined, qrels_path, group)


def recompute(run_paths: Sequence[Path], qrels_path: Path, metrics: MetricsConfig) -> dict[str, float]:
    """The table's number of each metric, from files alone.

    Args:
        run_paths: every seed and completion of one variant.
        qrels_path: the labels they share.
        metrics: metrics and conventions of the table.
    """
    values: dict[str, list[float]] = {metric: [] for metric in metrics.names}
    for path in run_paths:
        lists, scores_BL = read_run(path, qrels_path, Group.TEST)
        values_BM = np.stack([compute_metric(metric, scores_BL, lists) for metric in metrics.names], axis=1)
        variant = variant_from_lists(path.stem, {0: values_BM}, lists.user_B, metrics)
        for metric in metrics.names:
            values[metric].append(variant.average(metric))
    return {metric: float(np.mean(numbers)) for metric, numbers in values.items()}


def _queries(lists: Lists, row_n: Int64[np.ndarray, " n"]) -> pl.Series:
    """The query of each line, given the list it is from."""
    _, first_U, row_B = np.unique(lists.user_B, return_index=True, return_inverse=True)
    number_B = np.arange(len(lists)) - first_U[row_B]
    parts = pl.DataFrame({"user": lists.user_B[row_n], "number": number_B[row_n]})
    return parts.select(query=pl.concat_str("user", "number", separator=".")).to_series()


def _strictly_decreasing(scores_BL: np.ndarray) -> Float32[np.ndarray, "B L"]:
    """Scores in falling order, each at least one step of a 32-bit float below the one before."""
    falling_BL = scores_BL.astype(np.float32)
    for place in range(1, falling_BL.shape[1]):
        step_B = np.nextafter(falling_BL[:, place - 1], np.float32(-np.inf))
        falling_BL[:, place] = np.minimum(falling_BL[:, place], step_B)
    return falling_BL


def _check_distinct(lists: Lists) -> None:
    # Padding gets numbers of its own below 0, so that only real items can repeat.
    padding_L = np.arange(-lists.items_BL.shape[1], 0, dtype=np.int64)
    sorted_BL = np.sort(np.where(lists.is_item_BL, lists.items_BL, padding_L), axis=1)
    repeats_B = (sorted_BL[:, 1:] == sorted_BL[:, :-1]).any(axis=1)
    if repeats_B.any():
        row = int(np.flatnonzero(repeats_B)[0])
        raise DataError(
            f"an item may be in a list once, got {int(repeats_B.sum())} lists with a repeated item (first: "
            f"list {row}, user {lists.user_B[row]}, items {lists.items_BL[row].tolist()}); rebuild the lists"
        )


def _read(path: Path, columns: Mapping[str, type[pl.DataType]]) -> pl.DataFrame:
    try:
        return pl.read_csv(path, has_header=False, separator=" ", schema=columns)
    except pl.exceptions.PolarsError as error:
        raise DataError(
            f"{path}: expected lines of {' '.join(columns)}, separated by one blank, got {error}; "
            f"write the file with recloop.evaluation.trec"
        ) from error


def _as_lists(joined: pl.DataFrame, qrels_path: Path, group: Group) -> tuple[Lists, Float32[np.ndarray, "B L"]]:
    if not joined["query"].str.contains(r"^\d+\.\d+$").all():
        raise DataError(f"{qrels_path}: a query must be named USER.NUMBER, got another; see recloop's write_qrels")
    parts = joined["query"].str.split_exact(".", 1).struct
    joined = joined.with_columns(
        user=parts.field("field_0").cast(pl.Int64), number=parts.field("field_1").cast(pl.Int64)
    ).sort("user", "number", maintain_order=True)
    user_n, number_n = joined["user"].to_numpy(), joined["number"].to_numpy()
    starts_n = np.append(True, (np.diff(user_n) != 0) | (np.diff(number_n) != 0))
    first_B = np.flatnonzero(starts_n)
    row_n = np.cumsum(starts_n) - 1
    place_n = np.arange(len(row_n)) - first_B[row_n]
    shape = (len(first_B), int(place_n.max()) + 1)

    def spread(column: str, dtype: type[np.generic]) -> np.ndarray:
        values_BL = np.zeros(shape, dtype)
        values_BL[row_n, place_n] = joined[column].to_numpy()
        return values_BL

    is_item_BL = np.zeros(shape, np.bool_)
    is_item_BL[row_n, place_n] = True
    user_B: Int64[np.ndarray, " B"] = user_n[first_B]
    lists = Lists(group, user_B, spread("item", np.int64), spread("label", np.float32), is_item_BL)
    return lists, np.where(is_item_BL, spread("score", np.float32), np.float32(-np.inf))
