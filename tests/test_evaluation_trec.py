"""TREC files: read back exactly, the same numbers as the table, and as trec_eval computes them."""

import math
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import ir_measures
import numpy as np
import pytest
from ir_measures import AP, RR, nDCG

from recloop.errors import ContractError, DataError
from recloop.evaluation.score import MetricsConfig, evaluate
from recloop.evaluation.trec import write_qrels, write_run, write_runs
from recloop.records import Group, Lists, UserVectors
from trec_by_hand import read_run, recompute


class Fixed:
    def __init__(self, scores_BNL: np.ndarray) -> None:
        self.scores_BNL = scores_BNL

    def score(self, lists: Lists, user_vectors: UserVectors | None) -> np.ndarray:
        return self.scores_BNL


def make_lists(seed: int = 0, num_users: int = 40) -> Lists:
    """Lists of 1 to 10 items, some without a positive, users with gaps in their numbers."""
    rng = np.random.default_rng(seed)
    user_B = np.sort(rng.choice(np.arange(num_users) * 3, num_users * 3))
    items_BL = np.stack([rng.permutation(500)[:10] for _ in user_B])
    is_item_BL = np.arange(10) < rng.integers(1, 11, len(user_B))[:, None]
    labels_BL = ((rng.random(items_BL.shape) < 0.15) & is_item_BL).astype(np.float32)
    return Lists(Group.TEST, user_B, np.where(is_item_BL, items_BL, 0), labels_BL, is_item_BL)


def make_scores(lists: Lists, num_completions: int, seed: int = 0) -> np.ndarray:
    """Coarse scores: most lists hold ties."""
    rng = np.random.default_rng(seed)
    scores_BNL = rng.integers(-2, 3, (len(lists), num_completions, 10)).astype(np.float32)
    return np.where(lists.is_item_BL[:, None, :], scores_BNL, -np.inf).astype(np.float32)


@pytest.mark.parametrize("empty", ["drop", "zero"])
@pytest.mark.parametrize("mean", ["user", "list"])
def test_numbers_from_the_files_equal_the_table(tmp_path: Path, empty: str, mean: str) -> None:
    lists = make_lists()
    metrics = MetricsConfig(names=("ndcg@5", "map@3", "map_kar@5", "mrr@10"), empty=empty, mean=mean)
    scores_by_seed = {seed: make_scores(lists, 3, seed) for seed in (1, 2)}
    vectors = UserVectors(np.unique(lists.user_B), np.zeros((len(np.unique(lists.user_B)), 3, 1), np.float32))
    rerankers = {s: Fixed(x) for s, x in scores_by_seed.items()}
    row = evaluate(rerankers, lists, vectors, metrics=metrics.names, empty=empty, mean=mean)
    write_qrels(tmp_path / "qrels.trec", lists)
    paths = [path for s, scores in scores_by_seed.items() for path in write_runs(tmp_path, "trained", s, scores, lists)]
    assert [path.name for path in paths[:2]] == ["trained.seed1.completion0.trec", "trained.seed1.completion1.trec"]
    recomputed = recompute(paths, tmp_path / "qrels.trec", metrics)
    for metric in metrics.names:
        assert recomputed[metric] == pytest.approx(row.average(metric), abs=1e-12)


def test_trec_eval_computes_the_same_from_the_files(tmp_path: Path) -> None:
    lists = make_lists(3)
    scores_BNL = make_scores(lists, 1, 3)
    write_qrels(tmp_path / "qrels.trec", lists)
    (path,) = write_runs(tmp_path, "variant", 0, scores_BNL, lists)
    metrics = MetricsConfig(names=("ndcg@5", "map@3", "mrr@10"), empty="drop", mean="list")
    ours = recompute([path], tmp_path / "qrels.trec", metrics)
    per_query = list(
        ir_measures.iter_calc(
            [nDCG @ 5, AP @ 3, RR @ 10],
            ir_measures.read_trec_qrels(str(tmp_path / "qrels.trec")),
            ir_measures.read_trec_run(str(path)),
        )
    )
    _, counts = np.unique(lists.user_B, return_counts=True)
    names = [f"{user}.{n}" for user, count in zip(np.unique(lists.user_B), counts, strict=True) for n in range(count)]
    with_positive = {name for name, labels_L in zip(names, lists.labels_BL, strict=True) if labels_L.any()}
    for metric, measured in (("ndcg@5", nDCG @ 5), ("map@3", AP @ 3), ("mrr@10", RR @ 10)):
        values = {m.query_id: m.value for m in per_query if m.measure == measured}
        assert set(values) == set(names)  # no list is lost, positives or not
        theirs = np.mean([value for name, value in values.items() if name in with_positive])
        assert ours[metric] == pytest.approx(theirs, abs=1e-9)


def test_lists_and_order_come_back(tmp_path: Path) -> None:
    lists = make_lists(1)
    rng = np.random.default_rng(1)
    scores_BL = rng.normal(0, 10.0 ** rng.integers(-20, 20, (len(lists), 10))).astype(np.float32)
    write_qrels(tmp_path / "q", lists)
    write_run(tmp_path / "r", scores_BL, lists, "tag")
    back, back_scores_BL = read_run(tmp_path / "r", tmp_path / "q")
    width = back.items_BL.shape[1]
    np.testing.assert_array_equal(back.user_B, lists.user_B)
    np.testing.assert_array_equal(back.items_BL, lists.items_BL[:, :width])
    np.testing.assert_array_equal(back.labels_BL, lists.labels_BL[:, :width])
    np.testing.assert_array_equal(back.is_item_BL, lists.is_item_BL[:, :width])
    np.testing.assert_array_equal(back_scores_BL[back.is_item_BL], scores_BL[lists.is_item_BL])


def test_ties_keep_their_order_and_scores_fall_strictly(tmp_path: Path) -> None:
    lists = Lists(
        Group.TEST,
        np.array([7]),
        np.array([[30, 10, 20, 5, 0]]),
        np.array([[0, 1, 0, 0, 0]], np.float32),
        np.array([[True, True, True, True, False]]),
    )
    write_run(tmp_path / "r", np.array([[1, 1, 1, 2, 9]], np.float32), lists, "tag")
    lines = [line.split() for line in (tmp_path / "r").read_text().splitlines()]
    assert [line[:4] + line[5:] for line in lines] == [
        ["7.0", "Q0", item, str(rank + 1), "tag"] for rank, item in enumerate(["5", "30", "10", "20"])
    ]
    as_float32 = [np.float32(line[4]) for line in lines]
    assert all(a > b for a, b in pairwise(as_float32))
    assert math.isclose(as_float32[3], 1.0, rel_tol=1e-6)


def test_what_no_file_can_say_is_refused(tmp_path: Path) -> None:
    lists = make_lists(4)
    scores_BL = make_scores(lists, 1)[:, 0]
    twice_BL = lists.items_BL.copy()
    row = int(np.flatnonzero(lists.is_item_BL.sum(axis=1) >= 2)[0])
    twice_BL[row, 1] = twice_BL[row, 0]
    with pytest.raises(DataError, match="an item may be in a list once, got 1 lists"):
        write_qrels(tmp_path / "q", replace(lists, items_BL=twice_BL))
    with pytest.raises(DataError, match="one word"):
        write_run(tmp_path / "r", scores_BL, lists, "two words")
    with pytest.raises(ContractError, match="must be finite"):
        write_run(tmp_path / "r", np.full_like(scores_BL, np.nan), lists, "tag")
    with pytest.raises(ContractError, match="shaped as its lists"):
        write_run(tmp_path / "r", scores_BL[:, :4], lists, "tag")
