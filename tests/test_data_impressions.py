"""Lists that users were shown: nothing is invented, nothing is lost, and no model sees the order."""

import re

import numpy as np
import polars as pl
import pytest

import recloop as rl
from recloop.data.impressions import impression_lists, lists_from_impressions, with_impressions
from recloop.errors import DataError, SettingError
from recloop.evaluation.score import compare_variants
from recloop.records import Domain, Group, Log
from recloop.rerankers.list_baselines import AsShown, FirstStage, ItemKnn, Popularity

ALL = {"train": 0.5, "reward": 0, "valid": 0.25, "test": 0.25}


def log_of(num_users=8, num_items=12, history=3):
    users = pl.DataFrame({"user": range(num_users), "user_id": [f"u{n}" for n in range(num_users)]})
    items = {"item": range(num_items), "item_id": [f"i{n}" for n in range(num_items)]}
    rows = [(u, (u + n) % num_items, None, float(n)) for u in range(num_users) for n in range(history)]
    schema = {"user": pl.Int64, "item": pl.Int64, "rating": pl.Float32, "time": pl.Float64}
    frame = pl.DataFrame(rows, schema=schema, orient="row")
    return Log("x", Domain.GENERIC, users, pl.DataFrame(items).with_columns(title="item_id"), (), frame, None)


def shown_rows(num_users=8, lengths=(2, 5, 9)):
    rows = []
    for user in range(num_users):
        for number, length in enumerate(lengths):
            for place in range(length):
                item = f"i{(user + 5 * place + number) % 12}"
                rows.append((f"u{user}", f"{user}.{number}", item, float(place == number), place + 1, -place / 10, 2.5))
    names = ["user_id", "list_id", "item_id", "label", "position", "score", "time"]
    return pl.DataFrame(rows, schema=names, orient="row")


def as_rows(lists, log):
    ids = log.items["item_id"].to_list()
    tables = lists.items_BL, lists.labels_BL, lists.position_BL, lists.score_BL, lists.is_item_BL
    return sorted(
        (
            int(user),
            sorted(
                (ids[i], float(y), int(p), round(float(s), 3)) for i, y, p, s, real in zip(*row, strict=True) if real
            ),
        )
        for user, *row in zip(lists.user_B, *tables, strict=True)
    )


def test_lists_hold_what_was_shown_and_keep_their_length():
    log, shown = log_of(), shown_rows()
    lists = lists_from_impressions(log, shown, split=ALL)
    got = [row for group in Group for row in as_rows(lists.of(group), log)]
    expected = [
        (
            int(user[1:]),
            sorted((row["item_id"], row["label"], row["position"], round(row["score"], 3)) for row in part.to_dicts()),
        )
        for (user, _), part in shown.group_by("user_id", "list_id", maintain_order=True)
    ]
    assert sorted(got) == sorted(expected)
    assert lists.test.items_BL.shape[1] == 9
    assert set(lists.train.user_B) & set(lists.test.user_B) == set()


def test_the_order_of_items_is_drawn_and_says_nothing_about_labels_or_positions():
    log = log_of(400)
    shown = shown_rows(400, lengths=(8,))
    lists = lists_from_impressions(log, shown, split=ALL)
    first = lists.train.position_BL[:, 0]
    assert np.bincount(first.astype(int), minlength=9)[1:].min() > 10
    again = lists_from_impressions(log, shown, split=ALL)
    np.testing.assert_array_equal(again.train.items_BL, lists.train.items_BL)


def test_histories_are_the_latest_before_the_first_list():
    log = log_of(history=6)
    shown = shown_rows().with_columns(time=pl.lit(4.0))
    histories = lists_from_impressions(log, shown, split=ALL, window_max=2).histories
    assert [histories.of(u)[0].tolist() for u in (0, 5)] == [[2, 3], [7, 8]]  # of times 0 to 3
    few = shown_rows(lengths=(2,)).drop("time")  # of user 0: items 0 and 5
    assert lists_from_impressions(log, few, split=ALL).histories.of(0)[0].tolist() == [1, 2, 3, 4]


def test_a_list_of_one_item_is_left_out_and_an_item_shown_twice_counts_once():
    log = log_of()
    rows = [("u0", "a", "i1", 0.0), ("u0", "b", "i1", 0.0), ("u0", "b", "i2", 1.0), ("u0", "b", "i1", 1.0)]
    shown = pl.DataFrame(rows, schema=["user_id", "list_id", "item_id", "label"], orient="row")
    made = impression_lists(with_impressions(log, shown), {Group.TEST: np.arange(8)}, 0, 30).test
    assert len(made) == 1
    assert dict(zip(made.items_BL[0].tolist(), made.labels_BL[0].tolist(), strict=True)) == {1: 1.0, 2: 1.0}
    assert made.position_BL is None
    assert made.score_BL is None


WRONG = [
    (lambda f: f.drop("label", "time"), "impressions without labels must have times"),
    (
        lambda f: f.with_columns(item_id=pl.lit("nobody")),
        r"of items of the log, got 1 that are not \(first: 'nobody'\)",
    ),
    (lambda f: f.with_columns(user_id=pl.lit("x")), r"of users of the log"),
    (lambda f: f.with_columns(label=-1.0), r"0 or positive, got -1.0 for item"),
    (lambda f: f.with_columns(label=pl.lit("clicked")), r"0 or positive, got None"),
    (lambda f: f.with_columns(user_id=pl.lit(None, dtype=pl.String)), r"of users of the log, .*first: None"),
    (lambda f: f.with_columns(score=pl.lit("high")), r"score of an impression must be a number, got 'high'"),
    (lambda f: f.to_dict(), r"a frame of polars, pandas or datasets, got dict"),
    (lambda f: f.with_columns(list_id=pl.lit("one")), r"must be one user's, got list 'one'"),
]


@pytest.mark.parametrize(("change", "complaint"), WRONG)
def test_wrong_impressions_are_one_error(change, complaint):
    with pytest.raises(DataError, match=re.compile(complaint)):
        with_impressions(log_of(), change(shown_rows()))


def test_frames_of_pandas_and_datasets_are_read_alike():
    from datasets import Dataset

    log, shown = log_of(), shown_rows()
    expected = with_impressions(log, shown).impressions
    assert with_impressions(log, shown.to_pandas()).impressions.equals(expected)
    assert with_impressions(log, Dataset.from_dict(shown.to_dict(as_series=False))).impressions.equals(expected)


def test_lists_that_cannot_be_made_are_one_error():
    with pytest.raises(SettingError, match="window_max must be at least 1, got 0"):
        lists_from_impressions(log_of(), shown_rows(), split=ALL, window_max=0)
    with pytest.raises(DataError, match="a list must hold 2 items to be ranked, got none"):
        lists_from_impressions(log_of(), shown_rows(lengths=(1,)), split=ALL)


def test_a_log_without_impressions_says_what_to_do():
    with pytest.raises(DataError, match="must have impressions for such lists, got none"):
        rl.candidate_lists(log_of(), protocol="impressions", split=ALL)


def test_the_protocol_reads_the_impressions_of_the_log():
    log = with_impressions(log_of(), shown_rows())
    lists = rl.candidate_lists(log, protocol="impressions", split=ALL)
    direct = lists_from_impressions(log, split=ALL)
    np.testing.assert_array_equal(lists.test.items_BL, direct.test.items_BL)


@pytest.mark.slow
def test_baselines_by_hand():
    log = with_impressions(log_of(), shown_rows())
    lists = lists_from_impressions(log, split=ALL)
    test = lists.test
    np.testing.assert_array_equal(AsShown().score(test)[:, 0][test.is_item_BL], -test.position_BL[test.is_item_BL])
    np.testing.assert_array_equal(FirstStage().score(test)[:, 0][test.is_item_BL], test.score_BL[test.is_item_BL])

    chosen = {u: lists.histories.of(int(u))[0].tolist() for u in np.unique(lists.train.user_B)}
    for user, items, labels, real in zip(
        lists.train.user_B, lists.train.items_BL, lists.train.labels_BL, lists.train.is_item_BL, strict=True
    ):
        chosen[user] = chosen[user] + items[(labels > 0) & real].tolist()
    counts = np.bincount(np.concatenate(list(chosen.values())), minlength=log.num_items)
    popularity = Popularity.fit(log.num_items, lists.histories, lists.train).score(test)
    np.testing.assert_array_equal(popularity[:, 0][test.is_item_BL], counts[test.items_BL][test.is_item_BL])

    sets = [{u for u, items in chosen.items() if item in items} for item in range(log.num_items)]
    knn = ItemKnn.fit(log.num_items, lists.histories, lists.train).score(test)[:, 0]
    for row, user in enumerate(test.user_B):
        for place in np.flatnonzero(test.is_item_BL[row]):
            one = sets[test.items_BL[row, place]]
            others = [sets[item] for item in lists.histories.of(int(user))[0]]
            cosines = [len(one & o) / np.sqrt(len(one) * len(o)) for o in others if one and o]
            assert knn[row, place] == pytest.approx(sum(cosines), abs=1e-5)
    with pytest.raises(DataError, match="give impressions a position"):
        AsShown().score(rl.candidate_lists(rl.load_log(users=40)).test)


def test_groups_by_time_part_early_users_from_late_ones_and_drop_what_outlasts_a_group():
    log = log_of(8)
    shown = shown_rows(8)
    start = pl.col("user_id").str.slice(1).cast(pl.Float64) * 10  # user n begins at 10 n, with a list every 6
    shown = shown.with_columns(time=start + pl.col("list_id").str.slice(2).cast(pl.Float64) * 6)
    lists = lists_from_impressions(log, shown, split=ALL, groups="time")
    assert [set(lists.of(group).user_B) for group in Group] == [{0, 1, 2, 3}, set(), {4, 5}, {6, 7}]
    times = rl.with_impressions(log, shown).impressions
    of_list = dict(times.select("list", "time").iter_rows())
    latest = max(of_list[number] for number in lists.train.list_B.tolist())
    assert latest < min(of_list[number] for number in lists.valid.list_B.tolist())
    assert max(of_list[n] for n in lists.valid.list_B.tolist()) < min(of_list[n] for n in lists.test.list_B.tolist())
    assert lists.notes == ("2 of 24 lists were shown when a later group had begun and are left out",)
    with pytest.raises(DataError, match="groups by time need the time of every list"):
        lists_from_impressions(log, shown.drop("time"), split=ALL, groups="time")


def test_candidates_of_ones_own_are_labelled_by_what_is_liked_later_and_may_serve_the_test_alone():
    log = rl.load_log("simulated", users=60)
    ids, items = log.users["user_id"].to_list(), log.items["item_id"].to_list()
    own = log.interactions.with_columns(place=pl.int_range(pl.len()).over("user"), num=pl.len().over("user"))
    rng = np.random.default_rng(0)
    rows = []
    for user in range(log.num_users):
        mine = own.filter(pl.col("user") == user)
        half = mine["time"][mine.height // 2]
        candidates = {*mine["item"].to_list()[-4:], *rng.choice(log.num_items, 9, replace=False).tolist()}
        rows += [(ids[user], f"c{user}", items[item], float(rng.random()), half) for item in candidates]
    candidates = pl.DataFrame(rows, schema=["user_id", "list_id", "item_id", "score", "time"], orient="row")
    with_own = with_impressions(log, candidates)
    lists = rl.candidate_lists(with_own, "kar", test="impressions")
    alone = rl.candidate_lists(log, "kar")
    np.testing.assert_array_equal(lists.train.items_BL, alone.train.items_BL)
    assert set(lists.test.user_B) == set(alone.test.user_B)
    assert len(lists.test) == len(np.unique(lists.test.user_B))
    liked = own.filter((pl.col("rating") >= 4) & (pl.col("place") >= pl.col("num") // 2))
    liked = set(liked.select("user", "item").iter_rows())
    for row, user in enumerate(lists.test.user_B.tolist()):
        items_L, is_item_L = lists.test.items_BL[row].tolist(), lists.test.is_item_BL[row]
        got = {
            item
            for item, label, real in zip(items_L, lists.test.labels_BL[row], is_item_L, strict=True)
            if real * label
        }
        assert got == {item for item, real in zip(items_L, is_item_L, strict=True) if real and (user, item) in liked}
        assert len(lists.histories.of(user)[0]) == min(30, (own["user"] == user).sum() // 2)
    other = int(lists.train.user_B[0])
    np.testing.assert_array_equal(lists.histories.of(other)[0], alone.histories.of(other)[0])
    with pytest.raises(DataError, match="impressions without labels must have times"):
        with_impressions(log, candidates.drop("time"))


@pytest.mark.slow
def test_the_first_stages_score_is_a_feature_where_it_is_wanted(tmp_path):
    log = rl.load_log("simulated", users=200)
    shown = biased_impressions(log, 1, 0.0)
    rng = np.random.default_rng(0)
    shown = shown.with_columns(score=100 + 10 * pl.col("label") + pl.Series(rng.normal(0, 5, shown.height)))
    lists = lists_from_impressions(log, shown, split=ALL)
    found = {}
    for use_scores in (False, True):
        reranker = rl.fit_reranker("prm", log, lists, max_epochs=4, use_scores=use_scores)
        found[use_scores] = rl.evaluate(reranker, lists.test, metrics=("ndcg@5",), empty="drop", name="x").average(
            "ndcg@5"
        )
    assert found[True] > found[False] + 0.1
    reranker.save(tmp_path)
    again = type(reranker).load(tmp_path)
    np.testing.assert_array_equal(again.score(lists.test, None), reranker.score(lists.test, None))
    with pytest.raises(DataError, match="reads the first stage's scores, got lists without"):
        reranker.score(rl.candidate_lists(log).test, None)


def biased_impressions(log, seed, bias):
    """Eight items a list in random places; a user clicks what taste says, seen with a chance that falls by place."""
    rng = np.random.default_rng(seed)
    genres = log.items["genre"].list.first().to_list()
    positive = log.interactions.filter(pl.col("rating") >= 4)
    liked = positive.group_by("user", maintain_order=True).agg("item").iter_rows()
    rows = []
    for user, items in liked:
        taste = {genres[item] for item in items}
        for number in range(6):
            for place, item in enumerate(rng.choice(log.num_items, 8, replace=False)):
                is_seen = rng.random() < 1 / (place + 1) ** bias
                clicked = float(is_seen and genres[item] in taste and rng.random() < 0.9)
                ids = log.users["user_id"][user], f"{user}.{number}", log.items["item_id"][int(item)]
                rows.append((*ids, clicked, place + 1))
    return pl.DataFrame(rows, schema=["user_id", "list_id", "item_id", "label", "position"], orient="row")


@pytest.mark.slow
def test_a_reranker_beats_the_order_shown_where_taste_decides_and_places_hide_it():
    log = rl.load_log("simulated", users=300)
    scores = {}
    for bias in (0.0, 1.0):
        lists = lists_from_impressions(log, biased_impressions(log, 1, bias), split=ALL)
        reranker = rl.fit_reranker("prm", log, lists, max_epochs=6, use_id_history=True)
        true = lists_from_impressions(log, biased_impressions(log, 1, 0.0), split=ALL).test
        variants = [
            rl.evaluate(one, true, metrics=("ndcg@5",), empty="drop", name=name)
            for name, one in (("reranker", reranker), ("as_shown", AsShown()))
        ]
        scores[bias] = [one.average("ndcg@5") for one in variants]
        assert compare_variants(variants, [("reranker", "as_shown")], "ndcg@5")["low"][0] > 0.05
    assert scores[0.0][1] == pytest.approx(scores[1.0][1])
