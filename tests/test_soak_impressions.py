"""Clicks that fall with the place teach the same taste as true labels do, where there are enough of them."""

import pytest

import recloop as rl
from recloop.data.impressions import lists_from_impressions
from recloop.rerankers.list_baselines import AsShown
from test_data_impressions import ALL, biased_impressions

NUM_USERS = 4000  # with 300 the biased clicks, a third of the positives, teach a third less (docs/log.md)


@pytest.mark.soak
def test_the_gain_over_the_order_shown_is_that_of_true_labels() -> None:
    log = rl.load_log("simulated", simulated={"num_users": NUM_USERS})
    shown = {bias: biased_impressions(log, 1, bias) for bias in (0.0, 1.0)}
    true = lists_from_impressions(log, shown[0.0], split=ALL).test
    metric = {"metrics": ("ndcg@5",), "empty": "drop"}
    as_shown = rl.evaluate(AsShown(), true, **metric, name="as_shown").average("ndcg@5")
    gains = []
    for bias in shown:
        lists = lists_from_impressions(log, shown[bias], split=ALL)
        reranker = rl.fit_reranker("prm", log, lists, max_epochs=6, use_id_history=True)
        gains.append(rl.evaluate(reranker, true, **metric, name="reranker").average("ndcg@5") - as_shown)
    assert gains[0] > 0.3
    assert gains[1] == pytest.approx(gains[0], rel=0.05)
