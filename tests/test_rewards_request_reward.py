"""The terms of an answer's reward: by hand, and by slow plain oracles."""

import math
import random
from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from recloop.data.item_graph import build_item_graph
from recloop.prompts.request_answer import read_answer
from recloop.records import Condition, Request, RequestKind
from recloop.rewards.request_reward import (
    AnswerRewardConfig,
    RewardTerms,
    ndcg_of,
    preference_alignment,
    query_alignment,
    reward_answer,
)
from simulated_by_hand import dataset_of

GRAPH = build_item_graph(dataset_of([[(0, 4.0)]], num_items=6))  # genres g0 g1 g2 g0 g1 g2
VECTORS = np.array([[1, 0], [1, 1], [0, 0], [0, 2], [-1, 0], [3, 4]], np.float32)
REQUEST = Request(0, RequestKind.EXPLICIT_1, 0, "genre g1", (Condition("genre", "g1"),), (3, 1, 0), 1)
WEIGHTS = AnswerRewardConfig()
TITLES = ["Title 3", "Title 1", "Title 0"]


def terms(text, config=WEIGHTS, is_finished=True):
    return reward_answer(read_answer(text, TITLES, is_finished=is_finished), REQUEST, GRAPH, VECTORS, config)


def test_the_right_answer_in_form_earns_everything():
    found = terms("Wanted: genre g1.\n\n\\boxed{Title 1}")
    assert found == RewardTerms(1.0, 1.0, pytest.approx(1.0), 0.5)
    assert found.total(AnswerRewardConfig()) == pytest.approx(1 + 0.01 + 0.01 + 0.05)


def test_a_wrong_answer_earns_what_it_shares():
    # Title 0 has genre g0, the right one g1: QAS 0. cos((1, 0), (1, 1)) = 1 / sqrt 2.
    found = terms("So.\n\n\\boxed{Title 0}")
    assert found == RewardTerms(0.0, 0.0, pytest.approx(1 / math.sqrt(2)), 0.5)


@pytest.mark.parametrize("text", ["no box", "\\boxed{Title 9}", "\\boxed{Title 1} \\boxed{Title 0}", ""])
def test_no_answer_earns_only_the_wrong_form(text):
    assert terms(text) == RewardTerms(0.0, 0.0, 0.0, -0.5)
    assert terms("Why. \\boxed{Title 1}", is_finished=False) == RewardTerms(0.0, 0.0, 0.0, -0.5)


def test_a_ranked_list_earns_by_the_place_of_the_right_item():
    text = "Why.\n\n\\boxed{Title 0 ; Title 3 ; Title 1}"
    assert terms(text).ndcg == 0.0
    assert terms(text, AnswerRewardConfig(k=3)).ndcg == pytest.approx(1 / 2)  # 1 / log2(4)


def test_alignment_of_items_without_attributes_or_vectors_is_0():
    dataset = dataset_of([[(0, 4.0)]], num_items=2)
    items = dataset.items.with_columns(pl.Series("genre", [["g"], []], dtype=pl.List(pl.String)))
    bare = build_item_graph(replace(dataset, items=items))
    assert query_alignment(bare, 0, 1) == 0.0
    assert preference_alignment(VECTORS, 2, 5) == 0.0


@pytest.mark.slow
def test_terms_equal_plain_oracles_on_10_000_random_cases():
    rng = random.Random(3)
    for _ in range(10_000):
        ranked = tuple(rng.sample(range(8), rng.randint(0, 8)))
        right, k = rng.randrange(8), rng.randint(1, 8)
        gain = 0.0
        for place, one in enumerate(ranked[:k]):
            if one == right:
                gain = math.log(2) / math.log(place + 2)
        assert ndcg_of(ranked, right, k) == pytest.approx(gain)
        one, other = ([rng.gauss(0, 1) for _ in range(3)] for _ in range(2))
        dot = sum(a * b for a, b in zip(one, other, strict=True))
        cosine = dot / math.sqrt(sum(a * a for a in one) * sum(b * b for b in other))
        both = np.array([one, other])
        assert preference_alignment(both, 0, 1) == pytest.approx(cosine)
        chosen, gt = rng.randrange(6), rng.randrange(6)
        shared = sum(attribute in GRAPH.of_item[chosen] for attribute in GRAPH.of_item[gt])
        assert query_alignment(GRAPH, chosen, gt) == shared / len(GRAPH.of_item[gt])
