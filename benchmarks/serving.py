"""`python -m benchmarks.serving`: the rate of `recloop serve` beside a FastAPI route that returns a constant.

Both are processes of their own on the machine's cores, which the client, in this process, shares. They take turns. Then
64 clients ask a language model for texts, and last the service is killed under load and started again.

With ``--parts`` it tells what the parts of one request cost instead, in this process and without sockets.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import json
import os
import random
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CONSTANT = """
import sys
import uvicorn
from fastapi import FastAPI

app = FastAPI()

@app.get("/ready")
@app.get("/constant")
async def constant():
    return {"ranking": "constant"}

uvicorn.run(app, port=int(sys.argv[1]), access_log=False, log_level="warning")
"""
NUM_CANDIDATES, NUM_ITEMS = 30, 160
RUN = {
    "variants": "trained",
    "data.simulated.num-users": "240",
    "data.simulated.num-items": str(NUM_ITEMS),
    "data.simulated.num-interactions": "20",
    "completions.reward": "4",
    "completions.test": "1",
    "dpo.max-pairs": "20",
    "preflight": "off",
}


@dataclass(frozen=True, slots=True)
class Load:
    """What some seconds of requests came to. cpu_us: of the server, a request."""

    per_s: float
    p50_ms: float
    p99_ms: float
    cpu_us: float

    def __str__(self) -> str:
        return f"{self.per_s:8,.0f} {self.p50_ms:8.1f} {self.p99_ms:8.1f} {self.cpu_us:8.0f}"


@dataclass(frozen=True, slots=True)
class Server:
    """A process that answers at a port."""

    process: subprocess.Popen[bytes]
    port: int

    def held_mb(self) -> float:
        """Resident memory."""
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 1e6

    def cpu_s(self) -> float:
        """Of all its threads so far."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextmanager
def serving(*command: str) -> Iterator[Server]:
    """A command with a free port at its end, when it is ready."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with subprocess.Popen([*command, str(port)], stdout=subprocess.DEVNULL) as process:
        try:
            server = Server(process, port)
            asyncio.run(ready(server))
            yield server
        finally:
            process.kill()


async def ready(server: Server) -> None:
    """Wait until it says so."""
    while True:
        try:
            status, _, _ = await ask(server.port, request("GET", "/ready"))
            if status == 200:
                return
        except OSError:
            pass
        if server.process.poll() is not None:
            raise SystemExit("a server has ended before it was ready")
        await asyncio.sleep(0.02)


def request(method: str, path: str, body: Any = None) -> bytes:
    """An HTTP request as bytes."""
    told = b"" if body is None else json.dumps(body).encode()
    named = {"host": "localhost", "content-type": "application/json", "content-length": str(len(told))}
    lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in named.items())]
    return "\r\n".join([*lines, "", ""]).encode() + told


async def answer(reader: asyncio.StreamReader) -> tuple[int, bytes, bytes]:
    """Status, head and body of one answer."""
    head = await reader.readuntil(b"\r\n\r\n")
    length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
    return int(head[9:12]), head, await reader.readexactly(length)


async def ask(port: int, asked: bytes) -> tuple[int, bytes, bytes]:
    """One request on a connection of its own."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(asked)
    try:
        return await answer(reader)
    finally:
        writer.close()


async def load(server: Server, requests: list[bytes], num_clients: int, seconds: float) -> Load:
    """Clients that each ask again as soon as they are answered."""
    took_s: list[float] = []
    end_s = time.perf_counter() + seconds

    async def client(number: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        while (start_s := time.perf_counter()) < end_s:
            writer.write(requests[number % len(requests)])
            status, _, body = await answer(reader)
            took_s.append(time.perf_counter() - start_s)
            if status != 200:
                raise SystemExit(f"a request was answered with {status}: {body[:300]!r}")
            number += num_clients
        writer.close()

    before_s, start_s = server.cpu_s(), time.perf_counter()
    await asyncio.gather(*(client(number) for number in range(num_clients)))
    wall_s = time.perf_counter() - start_s
    quantiles = statistics.quantiles(took_s, n=100)
    cpu_us = 1e6 * (server.cpu_s() - before_s) / len(took_s)
    return Load(len(took_s) / wall_s, 1e3 * quantiles[49], 1e3 * quantiles[98], cpu_us)


def rerank_requests(port: int) -> list[bytes]:
    """Lists of 30 candidates for 40 users, whose texts the run has."""
    _, _, body = asyncio.run(ask(port, request("GET", "/users?limit=40")))
    rng, items = random.Random(0), [f"i{number}" for number in range(NUM_ITEMS)]
    users = [user["user_id"] for user in json.loads(body)]
    return [request("POST", "/rerank", {"user": u, "candidates": rng.sample(items, NUM_CANDIDATES)}) for u in users]


def measure_rates(service: Server, constant: Server, seconds: float, repetitions: int) -> None:
    """A table of rates by number of clients; the two servers take turns, and each number is a median."""
    requests, fixed = rerank_requests(service.port), [request("GET", "/constant")]
    asyncio.run(load(service, requests, 16, seconds))  # what is loaded at first use
    print(f"{'clients':>7}  {'':10} {'req/s':>8} {'p50 ms':>8} {'p99 ms':>8} {'CPU us':>8}")
    for num_clients in (1, 16, 64):
        found: dict[str, list[Load]] = {"constant": [], "/rerank": []}
        for _ in range(repetitions):
            found["constant"].append(asyncio.run(load(constant, fixed, num_clients, seconds)))
            found["/rerank"].append(asyncio.run(load(service, requests, num_clients, seconds)))
        medians = {name: sorted(loads, key=lambda one: one.per_s)[len(loads) // 2] for name, loads in found.items()}
        for name, one in medians.items():
            print(f"{num_clients:7}  {name:10} {one}")
        print(f"{'':7}  /rerank at {medians['/rerank'].per_s / medians['constant'].per_s:.0%} of the constant's rate")


def measure_long(service: Server, seconds: float) -> None:
    """16 clients for long: each tenth's rate and the memory at its end. A status but 200 ends it."""
    requests = rerank_requests(service.port)
    asyncio.run(load(service, requests, 16, 5))  # what is loaded at first use
    print(f"held before {service.held_mb():.0f} MB\n{'seconds':>8} {'MB':>6} {'req/s':>8} {'p50 ms':>8} {'p99 ms':>8}")
    for tenth in range(1, 11):
        one = asyncio.run(load(service, requests, 16, seconds / 10))
        print(f"{tenth * seconds / 10:8.0f} {service.held_mb():6.0f} {one}", flush=True)


def measure_refusals(service: Server) -> None:
    """64 clients, each with a history of its own: the language model writes for some, the others are refused."""

    async def at_once() -> list[tuple[int, bytes, bytes] | BaseException]:
        histories = [[f"i{n}", f"i{(7 * n + 3) % NUM_ITEMS}"] for n in range(64)]
        asked = [request("POST", "/profile", {"history": history}) for history in histories]
        return await asyncio.gather(*(ask(service.port, one) for one in asked), return_exceptions=True)

    start_s = time.perf_counter()
    answers = asyncio.run(at_once())
    statuses = Counter("none" if isinstance(one, BaseException) else one[0] for one in answers)
    waits = sum(not isinstance(one, BaseException) and b"retry-after" in one[1].lower() for one in answers)
    told = ", ".join(f"{number} times {status}" for status, number in sorted(statuses.items(), key=str))
    print(f"64 clients and the language model: {told}; {waits} with Retry-After; {time.perf_counter() - start_s:.1f} s")


def measure_restart(command: Callable[[], Any], service: Server) -> None:
    """SIGKILL under load, and how long until the next process ranks."""
    requests = rerank_requests(service.port)

    async def kill_under_load() -> None:
        loading = asyncio.create_task(load(service, requests, 16, 10))
        await asyncio.sleep(1)
        service.process.send_signal(signal.SIGKILL)
        await asyncio.gather(loading, return_exceptions=True)

    asyncio.run(kill_under_load())
    start_s = time.perf_counter()
    with command() as again:
        ready_s = time.perf_counter() - start_s
        status, _, _ = asyncio.run(ask(again.port, requests[0]))
        whole_s = time.perf_counter() - start_s
        print(f"killed and started again: ready in {ready_s:.1f} s, a ranking ({status}) at {whole_s:.1f} s")


async def call(app: Any, method: str, path: str, body: bytes = b"") -> None:
    """One request to an application in this process."""
    named = {b"host": b"localhost", b"content-type": b"application/json", b"content-length": str(len(body)).encode()}
    scope = {"type": "http", "http_version": "1.1", "method": method, "path": path, "query_string": b""}

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: dict[str, Any]) -> None:
        if message.get("status", 200) != 200:
            raise SystemExit(f"a request was answered with {message['status']}")

    await app({**scope, "headers": list(named.items())}, receive, send)


def cpu_us(work: Callable[[], Any], num: int = 1) -> float:
    """Of this thread for one of `num` pieces, the least of two seconds: other jobs only add to it."""
    loop, found_s, at_once = asyncio.new_event_loop(), list[float](), max(1, 8 // num)
    while sum(found_s) * at_once * num < 2:
        start_s = time.thread_time()
        for _ in range(at_once):
            done = work()
            if asyncio.iscoroutine(done):
                loop.run_until_complete(done)
        found_s.append((time.thread_time() - start_s) / at_once / num)
    loop.close()
    return 1e6 * min(found_s)


def measure_parts(run: Path) -> None:
    """What the parts of one request cost, beside a route that returns a constant."""
    import numpy as np
    from fastapi import FastAPI
    from pydantic_core import to_json

    from recloop.rerankers.request_scorer import ListRequest
    from recloop.serving.app import make_app
    from recloop.serving.guard import Guard
    from recloop.serving.schemas import RerankRequest
    from recloop.serving.service import Service

    service, fixed = Service(run), FastAPI()
    asyncio.run(service.open())
    model, ranking = service.ranking.model, service.ranking
    rng, items = random.Random(0), list(model.item_ids)
    told = {"user": next(iter(model.owners)), "candidates": rng.sample(items, NUM_CANDIDATES)}
    body = RerankRequest.model_validate(told)
    sent, numbers, history = json.dumps(told).encode(), model.models.candidates(body.candidates), model.models.history
    text = model.models.first_text(body.who, model.variant) or ""
    query = ListRequest(np.array(numbers), model.scorer.adapt(model.models.encode(text)), history(body.who))
    (scores_L,) = model.scorer.score([query])
    reply = asyncio.run(ranking.rerank(body))
    bare = make_app(service)
    guarded = Guard(bare, service.metrics, out=io.StringIO())

    @fixed.get("/constant")
    async def constant() -> dict[str, str]:
        return {"ranking": "constant"}

    async def at_once(_: ListRequest) -> Any:
        return scores_L

    object.__setattr__(ranking, "batcher", at_once)
    rows = {
        "a FastAPI route that returns a constant": cpu_us(lambda: call(fixed, "GET", "/constant")),
        "/rerank, its scores given at once": cpu_us(lambda: call(guarded, "POST", "/rerank", sent)),
        "  of it the guard": cpu_us(lambda: call(guarded, "GET", "/health"))
        - cpu_us(lambda: call(bare, "GET", "/health")),
        "  of it validation": cpu_us(lambda: RerankRequest.model_validate_json(sent)),
        "  of it look-ups and the ranking": cpu_us(lambda: ranking.rerank(body)),
        "  of it JSON of the reply": cpu_us(lambda: to_json(reply)),
    }
    rows |= {
        f"scores, {n} lists in a pass": cpu_us(lambda n=n: model.scorer.score([query] * n), n) for n in (1, 4, 16, 64)
    }
    for name, one in rows.items():
        print(f"{name:40} {one:6.0f} us")


def main() -> None:
    """Measure, on a run given or made."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--run", type=Path, help="of the settings in RUN; by default one is made")
    parser.add_argument("--seconds", type=float, default=5.0, help="of each load")
    parser.add_argument("--repetitions", type=int, default=3, help="of each load; the median is told")
    parser.add_argument("--long", action="store_true", help="only one load of these seconds, and the memory held")
    parser.add_argument("--parts", action="store_true", help="tell what the parts of one request cost")
    told = parser.parse_args()
    recloop = (sys.executable, "-m", "recloop.cli")
    with tempfile.TemporaryDirectory() as folder:
        run = told.run or Path(folder) / "run"
        if told.run is None:
            words = [word for key, value in RUN.items() for word in (f"--{key}", value)]
            making = [*recloop, "run", "dpo4rec", *words, "--out", str(run)]
            subprocess.run(making, check=True, stdout=subprocess.DEVNULL)
        if told.parts:
            measure_parts(run)
            return
        command = (*recloop, "serve", str(run), "--port")
        with serving(*command) as service, serving(sys.executable, "-c", CONSTANT) as constant:
            time.sleep(10)  # the text encoder, which the service loads when it is ready
            if told.long:
                measure_long(service, told.seconds)
                return
            measure_rates(service, constant, told.seconds, told.repetitions)
            measure_refusals(service)
            measure_restart(lambda: serving(*command), service)


if __name__ == "__main__":
    main()
