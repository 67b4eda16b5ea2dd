"""Sessions cut by hand, candidates, splits, and simulated sessions that keep what they promise."""

import numpy as np
import polars as pl
import pytest

from recloop.data.sessions import (
    DAY_S,
    Session,
    SessionConfig,
    cut_sessions,
    draw_candidates,
    sessions_of_log,
    task_digest,
)
from recloop.data.simulated_sessions import ATTRIBUTES, FORMAT, SimulatedSessionsConfig, simulate_sessions
from recloop.errors import DataError, SettingError
from recloop.records import Domain, Log

MINUTE_S = 60


def dataset(rows: list[tuple[int, int, int]], num_items: int = 40) -> Log:
    """Interactions as (user, time, item)."""
    items = pl.DataFrame(
        {
            "item": range(num_items),
            "item_id": [f"i{n}" for n in range(num_items)],
            "title": [f"T{n}" for n in range(num_items)],
        }
    ).with_columns(genre=pl.lit(["x"]))
    num_users = 1 + max(user for user, _, _ in rows)
    users = pl.DataFrame({"user": range(num_users), "user_id": [f"u{n}" for n in range(num_users)]})
    log = pl.DataFrame(
        {"user": [r[0] for r in rows], "item": [r[2] for r in rows], "time": [r[1] for r in rows]},
        schema={"user": pl.Int64, "item": pl.Int64, "time": pl.Int64},
    ).with_columns(rating=pl.lit(None, dtype=pl.Float32))
    return Log("log", Domain.MOVIES, users, items, ("genre",), log.sort("user", "time", "item"), None)


ROWS = [
    (0, 10, 1), (0, 20, 2), (0, 30, 3),
    (0, DAY_S + 5, 4), (0, DAY_S + 6, 5), (0, DAY_S + 7, 4), (0, DAY_S + 8, 6),
    (1, 40, 7), (1, 40 + 90 * MINUTE_S, 8), (1, 41 + 90 * MINUTE_S, 9),
]  # fmt: skip


@pytest.mark.parametrize(
    ("config", "items"),
    [
        (SessionConfig(cut="day", min_items=2), [(1, 2, 3), (7, 8, 9), (4, 5, 6)]),
        (SessionConfig(cut="gap", gap_minutes=60, min_items=1), [(1, 2, 3), (8, 9), (4, 5, 6)]),
        (SessionConfig(cut="user", min_items=3), [(1, 2, 3, 4, 5, 6)]),
        (SessionConfig(cut="user", min_items=2, max_items=2), [(8 - 1, 8, 9), (4, 5, 6)]),
    ],
)
def test_sessions_end_at_midnight_after_a_pause_or_with_the_user(
    config: SessionConfig, items: list[tuple[int, ...]]
) -> None:
    assert [session.items for session in cut_sessions(dataset(ROWS), config)] == items


def test_candidates_hold_the_answer_once_and_no_item_shown() -> None:
    for seed in range(20):
        drawn = draw_candidates([1, 2, 3], 4, 12, 9, np.random.default_rng(seed))
        assert len(set(drawn)) == 9
        assert drawn.count(4) == 1
        assert not {1, 2, 3} & set(drawn)
    with pytest.raises(SettingError, match="use at most 9"):
        draw_candidates([1, 2, 3], 4, 12, 10, np.random.default_rng(0))


def test_the_answer_stands_anywhere_among_the_candidates() -> None:
    places = [draw_candidates([0], 1, 30, 10, np.random.default_rng(s)).index(1) for s in range(400)]
    assert set(places) == set(range(10))


def log_of_many(num_users: int) -> Log:
    return dataset([(u, 1000 * u + n, (3 * u + n) % 40) for u in range(num_users) for n in range(5)])


SMALL = SessionConfig(num_train=20, num_test=8, num_candidates=10, test_share=0.25)


def test_test_sessions_are_later_than_training_sessions_and_nobody_is_in_both() -> None:
    task = sessions_of_log(log_of_many(40), SMALL, seed=3)
    assert (len(task.train), len(task.test)) == (20, 8)
    assert max(s.time for s in task.train) < min(s.time for s in task.test)
    assert not {s.user for s in task.train} & {s.user for s in task.test}
    assert all(len(s.candidates) == 10 and s.answer not in s.items for s in task.sessions)


def test_the_seed_decides_and_more_sessions_leave_candidates_as_they_are() -> None:
    one, again = (sessions_of_log(log_of_many(40), SMALL, seed=3) for _ in range(2))
    assert task_digest(one) == task_digest(again)
    assert task_digest(one) != task_digest(sessions_of_log(log_of_many(40), SMALL, seed=4))
    more = sessions_of_log(log_of_many(40), SMALL.model_copy(update={"num_train": 30}), seed=3)
    by_user = {s.user: s.candidates for s in more.train}
    shared = [s for s in one.train if s.user in by_user]
    assert len(shared) > 5
    assert all(by_user[s.user] == s.candidates for s in shared)


def test_too_few_sessions_say_how_many_there_are() -> None:
    with pytest.raises(SettingError, match="20 sessions for train, got 8"):
        sessions_of_log(log_of_many(10), SMALL, seed=0)


def test_a_session_that_shows_its_answer_or_repeats_is_refused() -> None:
    with pytest.raises(DataError, match="differ from each other"):
        Session(0, 0, (1, 2), 2, (2, 3))
    with pytest.raises(DataError, match="hold the answer"):
        Session(0, 0, (1,), 2, (3, 4))
    with pytest.raises(DataError, match="must differ"):
        Session(0, 0, (1,), 2, (2, 2))


def test_in_a_world_the_format_tells_the_attribute_and_the_attribute_the_answer() -> None:
    task = simulate_sessions(SimulatedSessionsConfig(), seed=1)
    rows = task.items.rows(named=True)
    for session in task.sessions:
        last = rows[session.items[-1]]
        assert {rows[i][FORMAT][0] for i in session.items} == {last[FORMAT][0]}
        alike = {f: [c for c in session.candidates if rows[c][f] == last[f]] for f in ATTRIBUTES}
        assert all(len(found) == 1 for found in alike.values())
        assert alike[session.attribute] == [session.answer]
    by_format = {(rows[s.items[-1]][FORMAT][0], s.attribute) for s in task.sessions}
    assert len(by_format) == 3
    shares = [sum(s.attribute == f for s in task.sessions) / 500 for f in ATTRIBUTES]
    assert shares == pytest.approx([0.6, 0.25, 0.15], abs=0.07)


@pytest.mark.slow
def test_without_signal_the_answer_is_any_candidate() -> None:
    task = simulate_sessions(SimulatedSessionsConfig(signal=0.0, num_train=900), seed=2)
    rows = task.items.rows(named=True)
    hits = [rows[s.answer][s.attribute] == rows[s.items[-1]][s.attribute] for s in task.train]
    # One of 20 candidates shares the attribute's value: 45 of 900 expected, standard deviation 6.5.
    assert 25 < sum(hits) < 65


def test_an_impossible_simulation_is_refused() -> None:
    with pytest.raises(ValueError, match="use 120 items"):
        SimulatedSessionsConfig(num_items=60)
