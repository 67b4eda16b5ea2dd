"""A small finished run, its service, and a client without a socket, for the tests of `recloop.serving`."""

import asyncio
import io
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import httpx2

import recloop as rl
from recloop.serving.app import make_app
from recloop.serving.guard import Guard, Limits
from recloop.serving.service import Service
from recloop.testing import FakeEncoder, FakeLM

T = TypeVar("T")
SETTINGS: dict[str, Any] = {
    "rounds": 0,
    "variants": "trained",
    "data": {"simulated": {"num_users": 40, "num_items": 80, "num_interactions": 20}},
    "completions": {"test": 1},
    "reranker": {"max_epochs": 2, "min_epoch_steps": 4},
    "statistics": {"num_flips": 100, "num_resamples": 100},
}


def make_run(folder: Path) -> rl.FinishedRun:
    """A run without training, whose texts a fake wrote."""
    objects: dict[str, Any] = {"lm": FakeLM(), "encoder": FakeEncoder()}
    rl.run("dpo4rec", out=folder, preflight="off", **objects, **SETTINGS)
    return rl.load(folder, **objects)


@dataclass
class Served:
    """A service and what it logs."""

    service: Service
    token: str | None = None
    limits: Limits = field(default_factory=Limits)
    log: io.StringIO = field(default_factory=io.StringIO)

    def __post_init__(self) -> None:
        self.app = Guard(make_app(self.service), self.service.metrics, self.token, self.limits, self.log)

    def run(self, work: Callable[[httpx2.AsyncClient], Awaitable[T]]) -> T:
        """What some requests bring, in an event loop of their own."""

        async def all_of_it() -> T:
            transport = httpx2.ASGITransport(app=self.app, raise_app_exceptions=False)  # pyright: ignore
            async with httpx2.AsyncClient(transport=transport, base_url="http://service") as client:
                return await work(client)

        return asyncio.run(all_of_it())

    def get(self, path: str, **more: Any) -> httpx2.Response:
        return self.run(lambda client: client.get(path, **more))

    def post(self, path: str, body: Any, **more: Any) -> httpx2.Response:
        return self.run(lambda client: client.post(path, json=body, **more))

    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.log.getvalue().splitlines()]


def serve(finished: rl.FinishedRun, **more: Any) -> Served:
    """The run, opened."""
    service = Service(finished.run.path, finished=finished, **more)
    asyncio.run(service.open())
    return Served(service)
