"""How fast a server may be asked: adaptive concurrency, rate limits, pauses, back-off, outages.

Nothing here waits or reads a clock: every function takes the time, in seconds of any monotonic clock.
"""

from __future__ import annotations

import random
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

START_CONCURRENCY = 4
HALVE_AT_MOST_EVERY_S = 1.0  # a congestion that many requests meet at once counts once
TROUBLED_AFTER = 5  # failures in a row, after which one request at a time tries again
BACKOFF_BASE_S, BACKOFF_CAP_S = 0.5, 30.0


class Concurrency:
    """How many requests may be open, at most `most`: +1 per success until the first congestion, then as TCP does."""

    def __init__(self, most: int) -> None:
        self._most, self._limit = most, float(min(START_CONCURRENCY, most))
        self._has_met_congestion = False
        self._halved_s = -float("inf")

    @property
    def limit(self) -> int:
        return int(self._limit)

    def succeeded(self) -> None:
        step = 1 / self._limit if self._has_met_congestion else 1.0
        self._limit = min(self._limit + step, float(self._most))

    def congested(self, now_s: float) -> None:
        if now_s - self._halved_s >= HALVE_AT_MOST_EVERY_S:
            self._halved_s = now_s
            self._has_met_congestion = True
            self._limit = max(1.0, self._limit / 2)


class RateLimit:
    """At most `per_min` units a minute, evenly after the first second's share; None for no limit."""

    def __init__(self, per_min: float | None, now_s: float) -> None:
        self._per_s = None if per_min is None else per_min / 60
        self._room = self._burst = max(1.0, self._per_s or 0.0)
        self._at_s = now_s

    def wait_s(self, amount: float, now_s: float) -> float:
        """Seconds until `amount` may be taken; more than a second's share waits for a full second's share."""
        if self._per_s is None:
            return 0.0
        self._refill(now_s)
        return max(0.0, (min(amount, self._burst) - self._room) / self._per_s)

    def take(self, amount: float, now_s: float) -> None:
        """Count `amount` as used; a negative amount returns what was reserved and not used."""
        if self._per_s is not None:
            self._refill(now_s)
            self._room = min(self._burst, self._room - amount)

    def _refill(self, now_s: float) -> None:
        assert self._per_s is not None
        self._room = min(self._burst, self._room + (now_s - self._at_s) * self._per_s)
        self._at_s = now_s


class Health:
    """Whether the server answers: requested pauses, failures in a row, and outages; one of `max_outage_s` ends it."""

    def __init__(self, max_outage_s: float) -> None:
        self._max_outage_s = max_outage_s
        self._paused_until_s = -float("inf")
        self._failing_since_s: float | None = None
        self._num_in_a_row = self._num_pauses = 0

    @property
    def is_troubled(self) -> bool:
        """True when only one request at a time should try."""
        return self._num_in_a_row >= TROUBLED_AFTER

    def succeeded(self) -> None:
        self._num_in_a_row, self._num_pauses, self._failing_since_s = 0, 0, None

    def failed(self, now_s: float) -> None:
        self._num_in_a_row += 1
        if self._failing_since_s is None:
            self._failing_since_s = now_s

    def pause(self, seconds: float, now_s: float) -> None:
        """Send nothing for so long."""
        self._paused_until_s = max(self._paused_until_s, now_s + seconds)

    def back_off(self, now_s: float, rng: random.Random) -> None:
        """Pause longer than the last time; failures during a pause belong to the one that began it."""
        if self.wait_s(now_s) <= 0:
            self._num_pauses += 1
            self.pause(min(backoff_s(self._num_pauses, rng), self._max_outage_s / 4), now_s)

    def wait_s(self, now_s: float) -> float:
        return max(0.0, self._paused_until_s - now_s)

    def is_gone(self, now_s: float) -> bool:
        since_s = self._failing_since_s
        return since_s is not None and now_s - since_s >= self._max_outage_s


def backoff_s(num_failures: int, rng: random.Random) -> float:
    """Half to all of base x 2^(failures - 1), capped; random, so that what failed together comes back apart."""
    return min(BACKOFF_CAP_S, BACKOFF_BASE_S * 2 ** min(num_failures - 1, 30)) * rng.uniform(0.5, 1.0)


def retry_after_s(value: str | None, now: datetime) -> float | None:
    """Seconds that a Retry-After header, a number or a date, asks to wait; None when absent or unreadable.

    Example:
        >>> retry_after_s("Wed, 21 Oct 2026 07:28:30 GMT", datetime(2026, 10, 21, 7, 28, tzinfo=UTC))
        30.0
    """
    if value is None:
        return None
    try:
        seconds = float(value)
    except ValueError:
        try:
            date = parsedate_to_datetime(value)
        except ValueError:
            return None
        date = date if date.tzinfo is not None else date.replace(tzinfo=UTC)
        seconds = (date - now).total_seconds()
    return max(0.0, seconds) if seconds < float("inf") else None
