"""What Prometheus reads of the service."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)
SIZES = (1, 2, 4, 8, 16, 32, 64, 128)


class ServiceMetrics:
    """Counters and gauges in a registry of their own. It holds their values."""

    def __init__(self) -> None:
        own = self.registry = CollectorRegistry()
        requests = Counter("recloop_requests", "Requests answered.", ["route", "status"], registry=own)
        seconds = Histogram(
            "recloop_request_seconds", "From request to answer.", ["route"], buckets=SECONDS, registry=own
        )
        self.batch = Histogram("recloop_rerank_lists", "Lists in one forward pass.", buckets=SIZES, registry=own)
        self.encoded = Counter("recloop_texts_encoded", "Texts that were in no cache of vectors.", registry=own)
        self.written = Counter("recloop_texts_written", "Answers of the language model.", registry=own)
        self._of = lru_cache(maxsize=512)(lambda route, status: (requests.labels(route, status), seconds.labels(route)))

    def observe(self, route: str, status: int, took_s: float) -> None:
        """One request was answered."""
        count, seconds = self._of(route, status)
        count.inc()
        seconds.observe(took_s)

    def watch(self, name: str, about: str, value: Callable[[], float]) -> None:
        """A gauge whose value is asked for whenever it is read."""
        Gauge(name, about, registry=self.registry).set_function(value)

    def text(self) -> bytes:
        """All of it, in Prometheus' format."""
        return generate_latest(self.registry)
