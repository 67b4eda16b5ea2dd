"""Metrics of one answer's rank, against the list metrics and by hand."""

import numpy as np
import pytest

from recloop.errors import SettingError
from recloop.evaluation.report_sections import Note, opening_sections
from recloop.evaluation.score import MetricsConfig, chance_scores, variant_from_ranks
from recloop.evaluation.significance import StatisticsConfig
from recloop.evaluation.tables import TableSettings, below_chance, make_table, results_json
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


def test_chance_is_the_mean_over_all_places_of_the_answer() -> None:
    """Of 4 candidates: HR@2 is 2/4, MRR@10 is (1 + 1/2 + 1/3 + 1/4) / 4; of 2: 1, and (1 + 1/2) / 2."""
    metrics = MetricsConfig(names=("hr@2", "mrr@10"), empty="zero", mean="user")
    chance = chance_scores(np.array([4, 2]), [3, 5], np.array([9, 7]), metrics)
    assert chance.name == "chance"
    assert (chance.seeds, chance.user_U.tolist()) == ((3, 5), [7, 9])
    assert chance.of("hr@2").tolist() == [[1.0, 0.5]] * 2
    assert chance.of("mrr@10") == pytest.approx(np.array([[0.75, 25 / 48]] * 2))


def test_what_is_below_chance_is_said_in_one_sentence() -> None:
    metrics = MetricsConfig(names=("hr@1",), empty="zero", mean="user")
    users = np.arange(8)
    ranks = {"base_model": np.full(8, 3), "popularity": np.ones(8, dtype=np.int64)}
    rows = [variant_from_ranks(name, {0: rank}, users, metrics) for name, rank in ranks.items()]
    chance = chance_scores(np.full(8, 4), [0], users, metrics)
    settings = TableSettings(("hr@1",), "hr@1", StatisticsConfig(num_flips=100, num_resamples=100), 0)
    table = make_table("Next item", [chance, *rows], (), settings, "base_model")
    assert below_chance(table).startswith("Below chance (HR@1 0.2500): Base model 0.0000. ")
    assert below_chance(make_table("Next item", [chance, rows[1]], (), settings, "chance")) == ""
    assert below_chance(make_table("Next item", rows, (), settings, "base_model")) == ""
    notes, _ = opening_sections((table,), results_json([table]))[2].parts
    assert notes == Note(f"Next item. {below_chance(table)}")
