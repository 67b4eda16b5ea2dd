"""Metrics of one answer's rank, against the list metrics and by hand."""

import numpy as np
import pytest

from recloop.errors import SettingError
from recloop.evaluation.score import MetricsConfig, variant_from_ranks
from recloop.records import Group, Lists
from recloop.rerankers.metrics import NOT_RANKED, compute_metric, metric_of_rank


@pytest.mark.parametrize("metric", ["ndcg@10", "ndcg@5", "hr@1", "hr@5", "mrr@10", "mrr@3"])
def test_a_rank_is_worth_what_the_list_metric_says(metric: str) -> None:
    ranks = np.arange(1, 13)
    labels_BL = np.eye(12, dtype=np.float32)
    lists = Lists(Group.TEST, np.arange(12), np.tile(np.arange(12), (12, 1)), labels_BL, np.ones((12, 12), dtype=bool))
    scores_BL = -np.tile(np.arange(12.0), (12, 1))
    assert metric_of_rank(metric, ranks) == pytest.approx(compute_metric(metric, scores_BL, lists))


def test_an_answer_not_ranked_earns_nothing() -> None:
    assert metric_of_rank("ndcg@10", np.array([NOT_RANKED, 1, 3])).tolist() == [0.0, 1.0, 0.5]


def test_metrics_of_several_answers_are_refused() -> None:
    for metric in ("map@5", "loglik"):
        with pytest.raises(SettingError, match="one answer"):
            metric_of_rank(metric, np.array([1]))


@pytest.mark.parametrize(("mean", "value"), [("list", 0.5), ("user", 0.2)])
def test_a_users_sessions_are_that_users_lists(mean: str, value: float) -> None:
    metrics = MetricsConfig(names=("mrr@10",), empty="drop", mean=mean)  # pyright: ignore[reportArgumentType]
    ranks = np.array([NOT_RANKED, 1, 1, NOT_RANKED, 2, 2, 1, NOT_RANKED])
    users = np.array([7, 4, 4, 9, 4, 4, 4, 8])
    # User 4: (1 + 1 + .5 + .5 + 1) / 5 = .8; the others 0. By list: 4 / 8 = .5; by user: .8 / 4 = .2.
    row = variant_from_ranks("x", {0: ranks}, users, metrics)
    assert row.average("mrr@10") == pytest.approx(value)
    assert row.user_U.tolist() == [4, 7, 8, 9]
    assert row.num_lists_U.tolist() == [5, 1, 1, 1]
