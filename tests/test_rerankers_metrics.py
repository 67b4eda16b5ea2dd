"""Metrics against ir-measures, against plain Python, and by hand."""

import itertools
import math

import numpy as np
import pytest

from recloop.errors import ContractError, SettingError
from recloop.records import Group, Lists
from recloop.rerankers.metrics import (
    MetricName,
    average_precision,
    compute_completion_metrics,
    compute_metric,
    hit_rate,
    list_log_likelihood,
    ndcg,
    reciprocal_rank,
    user_means,
)

# METHODS' example: labels of one ranked list on which libraries give AP@3 as 0.20, 0.33 and 1.00.
RANKED = np.array([[1, 0, 0, 1, 1, 1, 1]], dtype=np.float32)
DESCENDING = np.arange(7, 0, -1, dtype=np.float32)[None]
ALL_ITEMS = np.ones((1, 7), dtype=bool)


def lists_of(labels, is_item=None, users=None):
    labels = np.asarray(labels, dtype=np.float32)
    is_item = np.ones(labels.shape, dtype=bool) if is_item is None else np.asarray(is_item)
    users = np.arange(len(labels)) if users is None else np.asarray(users)
    return Lists(Group.TEST, users, np.zeros(labels.shape, dtype=np.int64), labels, is_item)


def random_lists(rng, num_lists, max_len, top_grade):
    """Scores without ties (a permutation), grades, and masks of 1 to `max_len` items."""
    scores = np.argsort(rng.random((num_lists, max_len)), axis=1).astype(np.float64) - max_len / 2
    grades = rng.integers(0, top_grade + 1, (num_lists, max_len)) * (rng.random((num_lists, max_len)) < 0.4)
    is_item = np.arange(max_len) < rng.integers(1, max_len + 1, num_lists)[:, None]
    return scores, grades.astype(np.float32), is_item


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning:ir_measures")
@pytest.mark.parametrize("k", [1, 3, 5, 7, 10])
def test_a_hundred_thousand_lists_equal_ir_measures(k):
    """20,000 lists at each of five cut-offs."""
    import ir_measures
    from ir_measures import AP, RR, Success, nDCG

    scores, grades, is_item = random_lists(np.random.default_rng(k), 20_000, 12, top_grade=3)
    places = [np.flatnonzero(mask).tolist() for mask in is_item]
    labels = grades.astype(int).tolist()
    qrels = {str(b): {str(i): labels[b][i] for i in places[b]} for b in range(len(labels))}
    run = {str(b): {str(i): scores[b][i] for i in places[b]} for b in range(len(labels))}
    ours = {
        nDCG @ k: ndcg(scores, grades, is_item, k),
        AP @ k: average_precision(scores, grades, is_item, k, "all"),
        RR @ k: reciprocal_rank(scores, grades, is_item, k),
        Success @ k: hit_rate(scores, grades, is_item, k),
    }
    theirs = {measure: np.full(len(labels), np.nan) for measure in ours}
    for metric in ir_measures.iter_calc(list(ours), qrels, run):
        theirs[metric.measure][int(metric.query_id)] = metric.value
    has_positive = (grades * is_item).any(axis=1)
    for measure, values in ours.items():
        assert np.abs(values - theirs[measure])[has_positive].max() < 1e-9, measure
        assert np.isnan(values[~has_positive]).all()
        assert (theirs[measure][~has_positive] == 0).all()


def plain_values(scores, labels, is_item, k):
    """Oracle: every metric of one list by its definition, one item at a time."""
    order = sorted(np.flatnonzero(is_item), key=lambda place: -scores[place])  # sorted() is stable
    ranked = [float(labels[place]) for place in order]
    ideal = sorted(ranked, reverse=True)
    hits = [rank for rank, label in enumerate(ranked, start=1) if label > 0]
    if not hits:
        return dict.fromkeys(["ndcg", "all", "min", "hits", "mrr", "hr", "loglik"], math.nan)

    def dcg(grades):
        return sum(grade / math.log2(rank + 1) for rank, grade in enumerate(grades[:k], start=1))

    found = [rank for rank in hits if rank <= k]
    total = sum(sum(other <= rank for other in hits) / rank for rank in found)
    shares = [math.exp(scores[place]) for place in order]
    logps = [math.log(shares[rank - 1] / sum(shares)) for rank in hits]
    return {
        "ndcg": dcg(ranked) / dcg(ideal),
        "all": total / len(hits),
        "min": total / min(len(hits), k),
        "hits": total / max(len(found), 1),
        "mrr": 1 / hits[0] if hits[0] <= k else 0.0,
        "hr": float(bool(found)),
        "loglik": sum(logps) / len(logps),
    }


@pytest.mark.parametrize("k", [1, 2, 5, 9, 30])
@pytest.mark.parametrize("tied", [False, True])
def test_every_metric_equals_its_definition(k, tied):
    scores, labels, is_item = random_lists(np.random.default_rng(k), 300, 9, top_grade=3)
    if tied:
        scores = np.round(scores / 3)
    arrays = (scores, labels, is_item)
    ours = {
        "ndcg": ndcg(*arrays, k),
        **{norm: average_precision(*arrays, k, norm) for norm in ("all", "min", "hits")},
        "mrr": reciprocal_rank(*arrays, k),
        "hr": hit_rate(*arrays, k),
        "loglik": list_log_likelihood(*arrays),
    }
    plain = [plain_values(*row, k) for row in zip(*arrays, strict=True)]
    for name, values in ours.items():
        np.testing.assert_allclose(values, [row[name] for row in plain], atol=1e-12, err_msg=name)


def test_the_three_maps_of_one_list_by_hand():
    # one hit in the first 3, at rank 1: precision 1. Relevant: 5. So 1/5, 1/min(5, 3), 1/1.
    lists = lists_of(RANKED)
    values = [compute_metric(f"{name}@3", DESCENDING, lists)[0] for name in ("map", "map_min", "map_kar")]
    assert values == pytest.approx([1 / 5, 1 / 3, 1.0])


def test_ndcg_by_hand():
    # ranked 1 0 0 1: DCG@5 = 1 + 1/log2(5) + 1/log2(6); ideal, five positives: sum of 1/log2(2..6)
    ideal = sum(1 / math.log2(rank + 1) for rank in range(1, 6))
    expected = (1 + 1 / math.log2(5) + 1 / math.log2(6)) / ideal
    assert compute_metric("ndcg@5", DESCENDING, lists_of(RANKED))[0] == pytest.approx(expected)


def test_equal_scores_keep_the_input_order_and_earn_chance():
    rng = np.random.default_rng(0)
    labels = np.zeros((20_000, 10), dtype=np.float32)
    labels[:, 0] = 1
    labels = rng.permuted(labels, axis=1)
    values = compute_metric("mrr@10", np.zeros(labels.shape), lists_of(labels))
    np.testing.assert_array_equal(values, 1 / (labels.argmax(axis=1) + 1))
    assert values.mean() == pytest.approx(sum(1 / r for r in range(1, 11)) / 10, abs=0.01)


@pytest.mark.parametrize("name", ["ndcg@5", "map@3", "map_min@3", "map_kar@3", "mrr@10", "hr@1", "loglik"])
def test_padding_changes_nothing_whatever_it_holds(name):
    rng = np.random.default_rng(1)
    scores, labels = rng.normal(size=(50, 6)), (rng.random((50, 6)) < 0.4).astype(np.float32)
    is_item = np.ones((50, 6), dtype=bool)
    bare = compute_metric(name, scores, lists_of(labels, is_item))
    for filler in (-np.inf, np.nan, 1e9):
        padded_scores = np.concatenate([scores, np.full((50, 3), filler)], axis=1)
        padded = lists_of(np.pad(labels, ((0, 0), (0, 3))), np.pad(is_item, ((0, 0), (0, 3))))
        np.testing.assert_allclose(compute_metric(name, padded_scores, padded), bare, atol=1e-12)


def test_completion_metrics_are_the_metric_of_each_completion():
    rng = np.random.default_rng(2)
    lists = lists_of((rng.random((20, 6)) < 0.3).astype(np.float32))
    scores_BNL = rng.normal(size=(20, 4, 6))
    values_BN = compute_completion_metrics("map@3", scores_BNL, lists)
    for list_, completion in itertools.product(range(20), range(4)):
        one = compute_metric("map@3", scores_BNL[[list_], completion], lists.take(np.array([list_])))
        np.testing.assert_array_equal(values_BN[list_, completion], one[0])


def test_user_means_by_hand():
    # user 3: values 1, none, .5; user 7: none at all; user 9: .25
    values, users = np.array([1.0, np.nan, 0.5, np.nan, 0.25]), np.array([3, 3, 3, 7, 9])
    dropped_users, dropped = user_means(values, users, "drop")
    assert (dropped_users.tolist(), dropped.tolist()) == ([3, 9], [0.75, 0.25])
    zero_users, zeros = user_means(values, users, "zero")
    assert (zero_users.tolist(), zeros.tolist()) == ([3, 7, 9], [0.5, 0.0, 0.25])


def test_user_means_of_completions_are_means_completion_by_completion():
    values_BN = np.array([[1.0, 0.0], [np.nan, np.nan], [0.5, 1.0]])
    _, means_UN = user_means(values_BN, np.array([4, 4, 4]), "drop")
    assert means_UN.tolist() == [[0.75, 0.5]]


@pytest.mark.parametrize("name", ["ndcg@5", "map@10", "map_min@3", "map_kar@1", "mrr@7", "hr@10", "loglik"])
def test_metric_names_are_read_and_written_alike(name):
    assert str(MetricName.parse(name)) == name


@pytest.mark.parametrize("name", ["ndcg", "ndcg@0", "ndcg@-1", "ndgc@5", "loglik@5", "NDCG@5", "", "map@ 5"])
def test_other_names_are_refused_with_the_choices(name):
    with pytest.raises(SettingError, match="map_min@K"):
        MetricName.parse(name)


def test_a_score_that_is_not_finite_is_refused_where_it_stands():
    scores = DESCENDING.copy()
    scores[0, 2] = np.nan
    with pytest.raises(ContractError, match="list 0 at place 2"):
        ndcg(scores, RANKED, ALL_ITEMS, 5)


def test_a_cut_off_below_one_is_refused():
    with pytest.raises(SettingError, match="got 0; use k=7"):
        ndcg(DESCENDING, RANKED, ALL_ITEMS, 0)


def test_shapes_that_do_not_agree_are_refused():
    with pytest.raises(ContractError, match="one completion at a time"):
        compute_metric("ndcg@5", np.zeros((1, 2, 7)), lists_of(RANKED))
