"""Requests made from a log: one candidate satisfies each, kinds are what they say, groups share none."""

from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from recloop.data.item_graph import build_item_graph
from recloop.data.requests import RequestConfig, check_request, make_requests
from recloop.data.simulated import SimulatedConfig, simulate_log
from recloop.data.splits import SplitConfig, split_users
from recloop.errors import DataError
from recloop.prompts.request_answer import are_tellable
from recloop.records import Condition, Group, Request, RequestKind

SIMULATED = SimulatedConfig(num_users=40, num_items=150, num_interactions=20)


def simulated(with_profiles=True):
    dataset, _ = simulate_log(SIMULATED, seed=1)
    if with_profiles:
        ages = pl.Series("age", ["18-24" if user % 2 else "25-34" for user in range(dataset.num_users)])
        dataset = replace(dataset, users=dataset.users.with_columns(ages))
    return dataset, split_users(dataset.num_users, SplitConfig(), 0)


def make(dataset, groups, seed=0, **settings):
    return make_requests(dataset, groups, RequestConfig(**settings), seed, noun="films", can_tell=are_tellable)


@pytest.fixture(scope="module")
def made():
    dataset, groups = simulated()
    return dataset, build_item_graph(dataset), groups, make(dataset, groups)


def everything(made):
    return [request for group in Group for request in made[3].of(group)]


@pytest.mark.slow
def test_exactly_one_candidate_satisfies_each_request(made):
    dataset, graph, _, _ = made
    items = dataset.items.to_dicts()
    for request in everything(made):
        assert len(set(request.candidates)) == 20
        satisfying = [  # from the catalogue itself, not by the graph
            item
            for item in request.candidates
            if all(one.value in items[item][one.attribute] for one in request.conditions)
        ]
        assert satisfying == [request.answer]
        check_request(graph, request)


def test_every_kind_is_made_and_says_what_it_must(made):
    dataset, graph, _, requests = made
    titles = dataset.items["title"].to_list()
    by_kind = {kind: [r for r in everything(made) if r.kind is kind] for kind in RequestKind}
    assert all(by_kind.values()), requests.num_given_up
    for kind, num in (("explicit_1", 1), ("explicit_2", 2), ("explicit_3", 3)):
        for request in by_kind[RequestKind(kind)]:
            assert len(request.conditions) == num
            assert all(one.value in request.text for one in request.conditions)
    for request in by_kind[RequestKind.IMPLICIT]:
        (known,) = request.mentioned
        assert titles[known] in request.text
        assert request.conditions[0] in graph.of_item[known]
        assert request.conditions[0].value not in request.text
        assert known not in request.candidates
    for request in by_kind[RequestKind.MISINFORMED]:
        claimed = {one.value for one in graph.items_with if one.value in request.text}
        true = {one.value for one in graph.of_item[request.mentioned[0]]}
        said = {one.value for one in request.conditions[1:]}
        assert claimed - true - said, "a claim that is false"
    for request in by_kind[RequestKind.INTEREST]:
        liked = [i for i, s in zip(request.history, request.rating, strict=True) if s >= 4]
        main = request.conditions[0]
        counts = {
            one: sum(one in graph.of_item[i] for i in liked)
            for one in graph.items_with
            if one.attribute == main.attribute
        }
        assert all(counts[main] > counts[one] for one in counts if one != main)
    for request in by_kind[RequestKind.DEMOGRAPHIC]:
        assert "age" in request.text


def test_near_misses_meet_all_conditions_but_one(made):
    _, graph, _, _ = made
    shares = []
    for request in everything(made):
        if request.kind is RequestKind.EXPLICIT_2:
            met = [len(graph.attributes(i) & set(request.conditions)) for i in request.candidates]
            shares.append(sum(num == 1 for num in met))
    assert min(shares) >= 4


def test_a_false_premise_has_its_traps(made):
    _, graph, _, _ = made
    for request in everything(made):
        if request.kind is RequestKind.MISINFORMED:
            attribute, true = request.conditions[0].attribute, request.conditions[0]
            claimed = [
                one
                for one in graph.items_with
                if one.attribute == attribute and one != true and one.value in request.text
            ]
            assert any(one in graph.of_item[item] for one in claimed for item in request.candidates)


def test_groups_share_neither_users_nor_requests(made):
    _, _, groups, requests = made
    for group in Group:
        assert {request.user for request in requests.of(group)} <= set(groups[group].tolist())
    keys = [(frozenset(r.conditions), r.answer) for r in everything(made)]
    assert len(keys) == len(set(keys))
    assert [r.number for r in everything(made)] == list(range(len(keys)))


def test_the_right_item_stands_anywhere_in_the_list(made):
    places = np.array([request.candidates.index(request.answer) for request in everything(made)])
    assert abs(places.mean() - 9.5) < 4 * np.sqrt((20**2 - 1) / 12 / len(places))


def test_requests_are_a_function_of_the_seed():
    dataset, groups = simulated()
    assert make(dataset, groups, per_user=1) == make(dataset, groups, per_user=1)
    assert make(dataset, groups, per_user=1) != make(dataset, groups, seed=1, per_user=1)


@pytest.mark.slow
def test_without_profiles_nobody_is_asked_as_a_group():
    dataset, groups = simulated(with_profiles=False)
    requests = make(dataset, groups)
    assert all(r.kind is not RequestKind.DEMOGRAPHIC for group in Group for r in requests.of(group))
    assert requests.num_given_up["demographic"] > 0


@pytest.mark.slow
def test_what_cannot_be_asked_is_one_clear_error():
    dataset, groups = simulated()
    bare = replace(dataset, attributes=())
    with pytest.raises(DataError, match="requests need items with attributes, got none in simulated"):
        make(bare, groups)
    with pytest.raises(DataError, match="every group needs a request"):
        make(dataset, groups, num_candidates=151)


def test_a_request_that_nothing_or_too_much_satisfies_is_refused(made):
    _, graph, _, _ = made
    nothing = Request(0, RequestKind.EXPLICIT_1, 0, "", (Condition("genre", "Nothing"),), tuple(range(20)), 3)
    with pytest.raises(DataError, match="got 0 of 20"):
        check_request(graph, nothing)
    with pytest.raises(DataError, match="got 20 of 20"):
        check_request(graph, replace(nothing, conditions=()))
