import random
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from recloop.llm.server.rate_limits import Concurrency, Health, RateLimit, backoff_s, retry_after_s

NOW = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)


def test_concurrency_grows_fast_until_the_first_congestion_and_then_by_one_a_round():
    c = Concurrency(64)
    assert c.limit == 4
    for _ in range(16):
        c.succeeded()
    assert c.limit == 20
    c.congested(now_s=0.0)
    assert c.limit == 10
    c.congested(now_s=0.9)  # the same congestion, seen by another request
    assert c.limit == 10
    for _ in range(12):  # a round of about ten answers
        c.succeeded()
    assert c.limit == 11
    c.congested(now_s=1.0)
    assert c.limit == 5


def test_concurrency_stays_within_its_bounds():
    c = Concurrency(6)
    for _ in range(50):
        c.succeeded()
    assert c.limit == 6
    for second in range(20):
        c.congested(now_s=float(second))
    assert c.limit == 1
    assert Concurrency(2).limit == 2


@pytest.mark.parametrize(("per_min", "amount"), [(600, 1), (6000, 37), (6000, 500), (3, 1)])
def test_over_any_minute_a_rate_limit_lets_through_what_it_says(per_min, amount):
    """By hand: after the first second's worth (or the first unit), units pass at per_min / 60 a second."""
    limit, now_s, taken = RateLimit(per_min, 0.0), 0.0, []
    while now_s < 180:
        now_s += limit.wait_s(amount, now_s)
        limit.take(amount, now_s)
        taken.append(now_s)
    for start_s in range(0, 120, 7):
        used = amount * sum(start_s <= at_s < start_s + 60 for at_s in taken)
        assert used <= per_min + max(per_min / 60, 1) + amount
    assert amount * len(taken) >= 0.95 * 3 * per_min - amount


def test_what_was_reserved_and_not_used_is_given_back():
    limit = RateLimit(600, 0.0)
    limit.take(10, 0.0)
    assert limit.wait_s(5, 0.0) == pytest.approx(0.5)
    limit.take(-8, 0.0)
    assert limit.wait_s(5, 0.0) == 0
    assert RateLimit(None, 0.0).wait_s(1e9, 0.0) == 0


def test_health_pauses_once_for_failures_that_come_together_and_longer_each_time(monkeypatch):
    monkeypatch.setattr("recloop.llm.server.rate_limits.BACKOFF_BASE_S", 1.0)
    health, rng = Health(1000.0), random.Random(0)
    waits = []
    now_s = 0.0
    for _ in range(6):
        for _ in range(10):  # ten requests meet the same trouble
            health.failed(now_s)
            health.back_off(now_s, rng)
        waits.append(health.wait_s(now_s))
        now_s += waits[-1]
    assert all(2**k / 2 <= wait <= min(30, 2**k) for k, wait in enumerate(waits))
    assert health.is_troubled
    health.succeeded()
    assert not health.is_troubled
    health.back_off(now_s, rng)
    assert health.wait_s(now_s) <= 1.0


def test_a_server_is_gone_after_an_outage_without_any_success():
    health = Health(10.0)
    assert not health.is_gone(1e9)
    health.failed(100.0)
    assert not health.is_gone(109.9)
    assert health.is_gone(110.0)
    health.succeeded()
    health.failed(110.0)
    assert not health.is_gone(119.0)


def test_back_off_doubles_up_to_its_cap_and_is_drawn():
    rng = random.Random(1)
    for failures in range(1, 60):
        longest = min(30.0, 0.5 * 2 ** (failures - 1))
        drawn = [backoff_s(failures, rng) for _ in range(50)]
        assert longest / 2 <= min(drawn) < max(drawn) <= longest


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, None),
        ("7", 7.0),
        ("0.25", 0.25),
        ("-3", 0.0),
        ("inf", None),
        ("nan", None),
        ("soon", None),
        (format_datetime(NOW + timedelta(seconds=90), usegmt=True), 90.0),
        (format_datetime(NOW - timedelta(seconds=90), usegmt=True), 0.0),
    ],
)
def test_retry_after_is_seconds_or_a_date(value, expected):
    assert retry_after_s(value, NOW) == expected
