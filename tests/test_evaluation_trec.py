"""TREC files: read back exactly, the same numbers as the table, and as trec_eval computes them."""

import math
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import ir_measures
import numpy as np
import polars as pl
import pytest
from ir_measures import AP, RR, nDCG

import recloop as rl
from recloop.errors import ContractError, DataError
from recloop.evaluation.score import MetricsConfig, evaluate
from recloop.evaluation.trec import TrecIds, trec_ids, write_qrels, write_run, write_runs
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


def ids_of(lists: Lists) -> TrecIds:
    """Numbers as ids."""
    seen: dict[int, int] = {}
    queries = []
    for user in lists.user_B.tolist():
        seen[user] = seen.get(user, -1) + 1
        queries.append(f"{user}.{seen[user]}")
    return TrecIds(pl.Series(queries, dtype=pl.String), pl.Series(map(str, range(500)), dtype=pl.String))


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
    write_qrels(tmp_path / "qrels.trec", lists, ids_of(lists))
    ids = ids_of(lists)
    paths = [
        path for s, scores in scores_by_seed.items() for path in write_runs(tmp_path, "trained", s, scores, lists, ids)
    ]
    assert [path.name for path in paths[:2]] == ["trained.seed1.completion0.trec", "trained.seed1.completion1.trec"]
    recomputed = recompute(paths, tmp_path / "qrels.trec", metrics)
    for metric in metrics.names:
        assert recomputed[metric] == pytest.approx(row.average(metric), abs=1e-12)


def test_trec_eval_computes_the_same_from_the_files(tmp_path: Path) -> None:
    lists = make_lists(3)
    scores_BNL = make_scores(lists, 1, 3)
    write_qrels(tmp_path / "qrels.trec", lists, ids_of(lists))
    (path,) = write_runs(tmp_path, "variant", 0, scores_BNL, lists, ids_of(lists))
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
    write_qrels(tmp_path / "q", lists, ids_of(lists))
    write_run(tmp_path / "r", scores_BL, lists, ids_of(lists), "tag")
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
    write_run(tmp_path / "r", np.array([[1, 1, 1, 2, 9]], np.float32), lists, ids_of(lists), "tag")
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
        write_qrels(tmp_path / "q", replace(lists, items_BL=twice_BL), ids_of(lists))
    with pytest.raises(DataError, match="one word"):
        write_run(tmp_path / "r", scores_BL, lists, ids_of(lists), "two words")
    with pytest.raises(ContractError, match="must be finite"):
        write_run(tmp_path / "r", np.full_like(scores_BL, np.nan), lists, ids_of(lists), "tag")
    with pytest.raises(ContractError, match="shaped as its lists"):
        write_run(tmp_path / "r", scores_BL[:, :4], lists, ids_of(lists), "tag")


def test_ids_are_those_of_the_log_and_every_positive_is_found_again(tmp_path: Path) -> None:
    bought = {"user_id": ["u 1", "50%"] * 6, "item_id": ["a b", "c", "d", "z", "e", "f", "g", "h", "i", "k", "l", "m"]}
    log = rl.Log.from_frames(pl.DataFrame({**bought, "time": range(978300000, 978300012)}))
    lists = rl.candidate_lists(log, split={"train": 0.5, "reward": 0, "valid": 0, "test": 0.5}, list_len=4, chunk=2)
    for number, group in enumerate((lists.train, lists.test)):
        write_qrels(tmp_path / f"{number}.trec", group, trec_ids(log, group))
    lines = [line.split() for n in (0, 1) for line in (tmp_path / f"{n}.trec").read_text().splitlines()]
    assert all(len(line) == 4 for line in lines)
    found = {(query.rpartition(".")[0], item) for query, _, item, label in lines if label == "1"}
    written = {"u 1": "u%201", "50%": "50%25", "a b": "a%20b"}
    pairs = zip(bought["user_id"], bought["item_id"], strict=True)
    later = {(written[user], written.get(item, item)) for n, (user, item) in enumerate(pairs) if n >= 6}
    assert found == later


def test_lists_that_were_shown_keep_their_ids(tmp_path: Path) -> None:
    shown = {"user_id": ["a", "a", "b", "b", "a", "a"], "list_id": ["z", "z", "m", "m", "k 1", "k 1"]}
    frame = pl.DataFrame({**shown, "item_id": [5, 7, 5, 7, 7, 5], "label": [0, 1, 1, 0, 2, 0]})
    log = rl.Log.from_frames(pl.DataFrame({"user_id": ["a", "b"], "item_id": [5, 7]}), impressions=frame)
    lists = rl.lists_from_impressions(log, split={"train": 0.5, "reward": 0, "valid": 0, "test": 0.5})
    lines = set()
    for number, group in enumerate((lists.train, lists.test)):
        write_qrels(tmp_path / f"{number}.trec", group, trec_ids(log, group))
        lines |= set((tmp_path / f"{number}.trec").read_text().splitlines())
    assert lines == {"z 0 5 0", "z 0 7 1", "m 0 5 1", "m 0 7 0", "k%201 0 7 2", "k%201 0 5 0"}
