"""Run and qrels files as TREC tools read them, for tables to be recomputed from.

One query per list, named ``USER.NUMBER`` (the user's number in the log; the list's place among that user's
lists, from 0); documents are item numbers of the log. Scores are strictly decreasing even as 32-bit floats,
because tools break ties each in their own way. Every candidate is in the qrels, also those with label 0, so
that lists without a positive are not lost (trec_eval leaves them out of its mean unless told otherwise).
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from recloop.errors import ContractError, DataError

if TYPE_CHECKING:
    from jaxtyping import Float32, Int64

    from recloop.records import Lists


def write_qrels(path: Path, lists: Lists) -> None:
    """The labels of all candidates: ``query 0 item label``.

    Raises:
        DataError: a list holds an item twice, which no TREC file can say.
    """
    _check_distinct(lists)
    row_n, place_n = np.nonzero(lists.is_item_BL)
    columns = {"query": _queries(lists, row_n), "iteration": np.zeros(len(row_n), np.int64)}
    columns |= {"item": lists.items_BL[row_n, place_n], "label": lists.labels_BL[row_n, place_n].astype(np.int64)}
    pl.DataFrame(columns).write_csv(path, include_header=False, separator=" ")


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
    """A run file per completion, ``VARIANT.seedS.completionN.trec``."""
    tags = [f"{variant}.seed{seed}.completion{completion}" for completion in range(scores_BNL.shape[1])]
    paths = [folder / f"{tag}.trec" for tag in tags]
    for completion, (tag, path) in enumerate(zip(tags, paths, strict=True)):
        write_run(path, scores_BNL[:, completion], lists, tag)
    return paths


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
