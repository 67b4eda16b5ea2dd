"""Preference pairs: hand-derived cases, properties, and files that other tools open."""

import json

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recloop.errors import DataError, TrainingError
from recloop.records import Completion, Pair, Prompt, Rewards, UserCompletions
from recloop.rewards.files import write_pairs, write_pairs_jsonl, write_rewards
from recloop.rewards.preference_pairs import PairConfig, PairSet, best_of_n, find_pairs, random_label_pairs

ALL_PAIRS = PairConfig(mode="all_pairs", min_gap=0.0)
BEST_WORST = PairConfig(mode="best_worst", min_gap=0.0)


def make_completions(texts_of, unfinished=()):
    users = sorted(texts_of)
    return UserCompletions(
        np.asarray(users, np.int64),
        tuple(
            tuple(
                Completion(user, n, text, len(text), (user, n) not in unfinished, -1.0)
                for n, text in enumerate(texts_of[user])
            )
            for user in users
        ),
    )


def make_rewards(rewards_of, round=0):
    users = sorted(rewards_of)
    return Rewards(round, "ndcg@5", np.asarray(users), np.asarray([rewards_of[user] for user in users], np.float32))


def pairs_of(texts_of, rewards_of, config, unfinished=(), same=str.__eq__):
    return find_pairs(make_completions(texts_of, unfinished), make_rewards(rewards_of), config, same)


def test_best_against_worst():
    found = pairs_of({4: ["a", "b", "c", "d"]}, {4: [0.25, 0.75, 0.0, 0.5]}, BEST_WORST)
    assert found.pairs == (Pair(0, 4, 1, 2, "b", "c", 0.75, 0.0),)
    assert (found.num_candidates, found.share_kept) == (1, 1.0)


def test_users_without_a_reward_make_no_pair():
    found = pairs_of({1: ["a", "b"], 2: ["a", "b"]}, {2: [0.0, 1.0]}, BEST_WORST)
    assert [pair.user for pair in found.pairs] == [2]


def test_every_candidate_is_counted_once():
    texts_of = {user: ["a", "b", "c"] for user in range(5)} | {3: ["a", "b", "a"]}
    rewards_of = {
        0: [0.5, 0.5, 0.5],  # tied
        1: [0.5, 0.55, 0.5],  # gap 0.05
        2: [0.5, 1.0, 0.0],  # its best completion, 1, was cut
        3: [1.0, 0.5, 0.0],  # best and worst are the same text
        4: [1.0, 0.5, 0.0],  # kept
    }
    found = pairs_of(texts_of, rewards_of, PairConfig(mode="best_worst", min_gap=0.1), unfinished={(2, 1)})
    assert [pair.user for pair in found.pairs] == [4]
    assert (found.num_tied, found.num_below_gap, found.num_unfinished, found.num_duplicates) == (1, 1, 1, 1)
    assert found.num_candidates == 5
    assert found.share_kept == 0.2
    assert str(found) == (
        "1 pairs, 20% of 5 candidates (dropped: 1 tied, 1 below the gap, 1 unfinished, 1 duplicate texts)"
    )


def test_among_equal_bests_the_first_usable_one_is_taken():
    # Completions 0, 1 and 3 share the best reward: 0 was cut, 1 reads like the worst completion, 3 is usable.
    texts_of, rewards_of = {0: ["a", "x", "x", "y"]}, {0: [1.0, 1.0, 0.0, 1.0]}
    found = pairs_of(texts_of, rewards_of, BEST_WORST, unfinished={(0, 0)})
    assert [(pair.chosen_completion, pair.rejected_completion) for pair in found.pairs] == [(3, 2)]


def test_a_rejected_completion_may_be_cut_short():
    found = pairs_of({0: ["a", "b"]}, {0: [1.0, 0.0]}, BEST_WORST, unfinished={(0, 1)})
    assert [pair.is_rejected_finished for pair in found.pairs] == [False]


def test_random_labels_leave_pairs_with_a_cut_completion_as_they_are():
    """Otherwise the control alone would learn to stop mid-sentence."""
    texts = {user: ["a", "b"] for user in range(200)}
    cut = {(user, 1) for user in range(0, 200, 2)}
    pairs = pairs_of(texts, {user: [1.0, 0.0] for user in texts}, BEST_WORST, unfinished=cut).pairs
    mixed = random_label_pairs(pairs, seed=3)
    assert all(after == before for before, after in zip(pairs, mixed, strict=True) if before.user % 2 == 0)
    assert 25 < sum(pair.chosen == "b" for pair in mixed) < 75


def test_duplicates_are_found_after_tokenising():
    def same(first, second):
        return first[:3] == second[:3]  # a model that reads three characters

    found = pairs_of({0: ["abcd", "abce"]}, {0: [1.0, 0.0]}, BEST_WORST, same=same)
    assert (found.pairs, found.num_duplicates) == ((), 1)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.lists(st.integers(0, 4), min_size=4, max_size=4), min_size=1, max_size=6),
    st.sampled_from([0.0, 0.25, 0.6]),
)
def test_properties_of_both_modes(grid, min_gap):
    rewards_of = {user: [value / 4 for value in row] for user, row in enumerate(grid)}
    texts_of = {user: list("abcd") for user in rewards_of}
    best = pairs_of(texts_of, rewards_of, PairConfig(mode="best_worst", min_gap=min_gap))
    every = pairs_of(texts_of, rewards_of, PairConfig(mode="all_pairs", min_gap=min_gap))
    expected = {
        (user, i, j)
        for user, row in rewards_of.items()
        for i in range(4)
        for j in range(4)
        if row[i] > row[j] and row[i] - row[j] >= min_gap
    }
    assert {(pair.user, pair.chosen_completion, pair.rejected_completion) for pair in every.pairs} == expected
    assert every.num_candidates == 6 * len(grid)
    assert {pair.user for pair in best.pairs} == {user for user, _, _ in expected}
    for pair in best.pairs:
        assert pair.chosen_reward == max(rewards_of[pair.user])
        assert pair.rejected_reward == min(rewards_of[pair.user])
    for found in (best, every):
        dropped = found.num_tied + found.num_below_gap + found.num_unfinished + found.num_duplicates
        assert dropped + len(found.pairs) == found.num_candidates


def test_random_labels_exchange_about_half_and_nothing_else():
    pairs = tuple(Pair(0, user, 1, 2, "w", "l", 1.0, 0.0) for user in range(1000))
    mixed = random_label_pairs(pairs, seed=7)
    num_swapped = sum(pair.chosen == "l" for pair in mixed)
    assert 440 < num_swapped < 560  # binomial(1000, .5): outside in fewer than 1 of 5,000 seeds
    for before, after in zip(pairs, mixed, strict=True):
        assert after in (before, Pair(0, before.user, 2, 1, "l", "w", 0.0, 1.0))
    assert random_label_pairs(pairs, seed=7) == mixed
    assert random_label_pairs(pairs, seed=8) != mixed


def test_best_of_n_keeps_each_users_best_completion():
    found = pairs_of({0: ["a", "b", "c"], 1: ["a", "b", "c"]}, {0: [0.2, 0.9, 0.5], 1: [0.4, 0.1, 0.1]}, ALL_PAIRS)
    assert [(pair.user, pair.chosen) for pair in best_of_n(found.pairs)] == [(0, "b"), (1, "a")]


def test_rewards_must_fit_the_completions():
    with pytest.raises(DataError, match="user 1 has 2 rewards, got 0 completions"):
        pairs_of({0: ["a", "b"]}, {1: [0.0, 1.0]}, BEST_WORST)
    with pytest.raises(DataError, match="user 0 has 3 rewards, got 2 completions"):
        pairs_of({0: ["a", "b"]}, {0: [0.0, 1.0, 0.5]}, BEST_WORST)
    with pytest.raises(DataError, match="rewards must be finite"):
        pairs_of({0: ["a", "b"]}, {0: [0.0, float("nan")]}, BEST_WORST)


def test_parquet_files_hold_the_source_ids(tmp_path):
    user_ids = ["u10", "u11", "u12"]
    write_rewards(tmp_path / "rewards.parquet", make_rewards({0: [0.0, 1.0], 2: [0.5, 0.25]}, round=3), user_ids)
    table = pl.read_parquet(tmp_path / "rewards.parquet")
    assert table.columns == ["round", "user_id", "split", "completion", "reward"]
    assert table.rows() == [
        (3, "u10", "reward", 0, 0.0),
        (3, "u10", "reward", 1, 1.0),
        (3, "u12", "reward", 0, 0.5),
        (3, "u12", "reward", 1, 0.25),
    ]

    pairs = [Pair(1, 2, 0, 3, "good", "bad", 0.5, 0.25)]
    write_pairs(tmp_path / "pairs.parquet", pairs, user_ids)
    row = pl.read_parquet(tmp_path / "pairs.parquet").row(0, named=True)
    assert row == {
        "round": 1,
        "user_id": "u12",
        "chosen_completion": 0,
        "rejected_completion": 3,
        "chosen": "good",
        "rejected": "bad",
        "chosen_reward": 0.5,
        "rejected_reward": 0.25,
        "is_rejected_finished": True,
    }
    write_pairs(tmp_path / "none.parquet", [], user_ids)
    assert pl.read_parquet(tmp_path / "none.parquet").schema == pl.read_parquet(tmp_path / "pairs.parquet").schema


def test_jsonl_is_conversational_and_described_for_llama_factory(tmp_path):
    prompts = {5: Prompt(5, "Summarise.", 'Three films, "Ü"\nand a task.', 3, 0)}
    pair = Pair(0, 5, 0, 1, "likes Drama", "likes War", 1.0, 0.0)
    write_pairs_jsonl(tmp_path / "pairs.jsonl", [pair], prompts)
    lines = (tmp_path / "pairs.jsonl").read_text(encoding="utf-8").splitlines()
    row = json.loads(lines[0])
    assert len(lines) == 1
    assert [message["role"] for message in row["prompt"]] == ["system", "user"]
    assert row["prompt"][1]["content"] == prompts[5].text
    assert row["chosen"] == [{"role": "assistant", "content": "likes Drama"}] == [row["chosen_message"]]
    assert row["rejected"] == [{"role": "assistant", "content": "likes War"}] == [row["rejected_message"]]
    info = json.loads((tmp_path / "dataset_info.json").read_text())["pairs"]
    assert info["file_name"] == "pairs.jsonl"
    assert info["ranking"] is True
    assert all(column in row for column in info["columns"].values())
    with pytest.raises(DataError, match="got none for user 6"):
        write_pairs_jsonl(tmp_path / "x.jsonl", [Pair(0, 6, 0, 1, "a", "b", 1.0, 0.0)], prompts)


@pytest.mark.parametrize(
    ("dropped", "do"),
    [
        ({"num_unfinished": 9, "num_tied": 1}, "raise lm.max_tokens, so that completions end"),
        ({"num_tied": 9}, "reward by a finer metric"),
        ({"num_below_gap": 9}, "lower pairs.min_gap"),
        ({"num_duplicates": 9}, "raise lm.temperature"),
        ({}, "give reward users completions and lists"),
    ],
)
def test_no_pair_is_an_error_that_names_what_would_mend_its_cause(dropped, do):
    counts = dict.fromkeys(("num_tied", "num_below_gap", "num_unfinished", "num_duplicates"), 0) | dropped
    with pytest.raises(TrainingError, match=do):
        PairSet((), sum(counts.values()), **counts).require_some()
