"""Run and qrels files as TREC tools read them, for tables to be recomputed from.

Users and items have the ids of the log's own files. One query per list: the id of a list that was shown, else
``USER.NUMBER``, the list's place among that user's lists, from 0. A blank or ``%`` in an id is written as in a URL,
since TREC separates by blanks. Scores are strictly decreasing even as 32-bit floats, because tools break ties each in
their own way. Every candidate is in the qrels, also those with label 0, so that lists without a positive are not lost
(trec_eval leaves them out of its mean unless told otherwise).
"""

from __future__ import annotations

import string
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

import numpy as np
import polars as pl

from recloop.errors import ContractError, DataError

if TYPE_CHECKING:
    from jaxtyping import Float32

    from recloop.records import Lists, Log


@dataclass(frozen=True, slots=True)
class TrecIds:
    """What queries and documents are called: `query_B` by list, `item_I` by item number of the log."""

    query_B: pl.Series
    item_I: pl.Series


def trec_ids(log: Log, lists: Lists) -> TrecIds:
    """Queries and documents under the ids of a log's own files."""
    _, first_U, row_B = np.unique(lists.user_B, return_index=True, return_inverse=True)
    number_B = np.arange(len(lists)) - first_U[row_B]
    users = log.users["user_id"].gather(lists.user_B)
    queries = pl.DataFrame({"user": users, "number": number_B}).select(pl.concat_str("user", "number", separator="."))
    query_B = queries.to_series()
    if lists.list_B is not None and log.impressions is not None:
        ids = log.impressions.select("list", "list_id").unique("list").sort("list")
        query_B = ids["list_id"].gather(ids["list"].search_sorted(lists.list_B))
    return TrecIds(one_word(query_B), one_word(log.items["item_id"]))


def one_word(ids: pl.Series) -> pl.Series:
    """Ids without blanks, as TREC wants them; others stay as they are."""
    is_odd = ids.str.contains(r"[\s%]")
    if not is_odd.any():
        return ids
    kept = string.punctuation.replace("%", "")
    written = [quote(one, safe=kept) if odd else one for one, odd in zip(ids, is_odd, strict=True)]
    return pl.Series(ids.name, written, dtype=pl.String)


def write_qrels(path: Path, lists: Lists, ids: TrecIds) -> None:
    """The labels of all candidates: ``query 0 item label``.

    Raises:
        DataError: a list holds an item twice, which no TREC file can say.
    """
    _check_distinct(lists)
    row_n, place_n = np.nonzero(lists.is_item_BL)
    columns = {"query": ids.query_B.gather(row_n), "iteration": np.zeros(len(row_n), np.int64)}
    columns |= {"item": ids.item_I.gather(lists.items_BL[row_n, place_n])}
    columns |= {"label": lists.labels_BL[row_n, place_n].astype(np.int64)}
    pl.DataFrame(columns).write_csv(path, include_header=False, separator=" ")


def write_run(path: Path, scores_BL: Float32[np.ndarray, "B L"], lists: Lists, ids: TrecIds, tag: str) -> None:
    """One ranking per list: ``query Q0 item rank score tag``, ranks from 1.

    Args:
        path: written over.
        scores_BL: higher is better; equal scores keep the input order.
        lists: the lists that were scored.
        ids: of these lists (`trec_ids`).
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
            "query": ids.query_B.gather(row_n),
            "iteration": pl.repeat("Q0", len(row_n), eager=True),
            "item": ids.item_I.gather(np.take_along_axis(lists.items_BL, order_BL, axis=1)[row_n, rank_n]),
            "rank": rank_n + 1,
            "score": score_BL[row_n, rank_n],
            "tag": pl.repeat(tag, len(row_n), eager=True),
        }
    )
    table.write_csv(path, include_header=False, separator=" ")


def write_runs(
    folder: Path, variant: str, seed: int, scores_BNL: Float32[np.ndarray, "B N L"], lists: Lists, ids: TrecIds
) -> list[Path]:
    """A run file per completion, ``VARIANT.seedS.completionN.trec``."""
    tags = [f"{variant}.seed{seed}.completion{completion}" for completion in range(scores_BNL.shape[1])]
    paths = [folder / f"{tag}.trec" for tag in tags]
    for completion, (tag, path) in enumerate(zip(tags, paths, strict=True)):
        write_run(path, scores_BNL[:, completion], lists, ids, tag)
    return paths


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
