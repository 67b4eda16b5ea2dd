"""RecBench+ movie requests with an inferred ground truth, as requests over the items of MovieLens-1M.

The wording is real. The ground truth in these files is partly inferred and biased to requests that language
models answered well. So this is a test of transfer, never to be reported as RecBench+ scores. Conditions are not
known, so the wrong candidates are films drawn at random, which makes these requests easier than those of
`recloop.data.requests`.

Source: RecBench+ (arXiv 2503.09382).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np

from recloop.data.text_files import require_objects
from recloop.records import Log, Request, RequestKind

FILES = {
    "movie_explicit.jsonl": None,  # by the number of conditions
    "movie_implicit.jsonl": RequestKind.IMPLICIT,
    "movie_misinformed.jsonl": RequestKind.MISINFORMED,
}
EXPLICIT = {1: RequestKind.EXPLICIT_1, 2: RequestKind.EXPLICIT_2}
FORM = (
    "a text as query, a number as condition_num, a list or nothing as history_sample and pairs of id and title "
    "as gt_items"
)
NOBODY = -1


def read_recbench(
    folder: Path, log: Log, num_candidates: int, seed: int, can_tell: Callable[[Sequence[str]], bool]
) -> tuple[tuple[Request, ...], int]:
    """The requests, and how many are left out, since the log has no film of the ground truth or too few others.

    The right candidate is drawn from the ground truth, the others from all other films. DataError: a bad file.

    Args:
        log: MovieLens-1M, by whose item ids the ground truth is given.
        can_tell: whether titles can be told apart when each is written alone.
    """
    item_of = {item_id: item for item, item_id in enumerate(log.items["item_id"].to_list())}
    titles = log.items["title"].to_list()
    rng = np.random.default_rng([seed, 0x4B])
    requests: list[Request] = []
    num_unknown = 0
    for name, kind in FILES.items():
        for row in require_objects(folder / name, "RecBench+ requests", FORM, _is_request):
            right = [item_of[str(one)] for one, _ in row["gt_items"] if str(one) in item_of]
            history = tuple(titles.index(one) for one in row["history_sample"] or () if one in titles)
            chosen = _draw(right, history, titles, num_candidates, rng, can_tell)
            if chosen is None:
                num_unknown += 1
                continue
            made = kind or EXPLICIT.get(row["condition_num"], RequestKind.EXPLICIT_3)
            answer, candidates = chosen
            rating = (float("nan"),) * len(history)
            requests.append(
                Request(len(requests), made, NOBODY, row["query"], (), candidates, answer, (), history, rating)
            )
    return tuple(requests), num_unknown


def _draw(
    right: Sequence[int],
    history: Sequence[int],
    titles: Sequence[str],
    num: int,
    rng: np.random.Generator,
    can_tell: Callable[[Sequence[str]], bool],
) -> tuple[int, tuple[int, ...]] | None:
    """The right item and all candidates in random order; None where there are too few."""
    allowed = [item for item in right if item not in history]
    wrong = np.setdiff1d(np.arange(len(titles)), [*right, *history])
    if not allowed or len(wrong) < num - 1:
        return None
    answer = allowed[int(rng.integers(len(allowed)))]
    for _ in range(20):
        items = [answer, *rng.choice(wrong, num - 1, replace=False).tolist()]
        if can_tell([titles[item] for item in items]):
            return answer, tuple(rng.permutation(items).tolist())
    return None


def _is_request(row: Mapping[str, Any]) -> bool:
    if not {"query", "history_sample", "condition_num", "gt_items"} <= row.keys():
        return False
    history, right = row["history_sample"] or [], row["gt_items"]
    return (
        isinstance(row["query"], str)
        and isinstance(row["condition_num"], int)
        and isinstance(history, list)
        and isinstance(right, list)
        and all(isinstance(one, list) and len(cast("list[Any]", one)) == 2 for one in cast("list[Any]", right))
    )
