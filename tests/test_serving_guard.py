"""What is refused before the application sees it, and what is logged."""

import asyncio
import io
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from recloop.serving.guard import BodyError, Guard, Limits, Message, Receive, Scope, Send
from recloop.serving.metrics import ServiceMetrics

TOKEN = "a-token-of-some-length"
MB = 2**20


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers with the number of bytes of the body; a body that breaks a limit is its status."""
    size, status = 0, 200
    try:
        while True:
            message = await receive()
            size += len(message.get("body", b""))
            if not message.get("more_body"):
                break
    except BodyError as error:
        status = error.status
    await send({"type": "http.response.start", "status": status, "headers": []})
    await send({"type": "http.response.body", "body": str(size).encode()})


class Exchange:
    """One request to a guard around `echo`: what was read of it, and the answer."""

    def __init__(self, guard: Guard, path: str = "/rerank", **headers: str) -> None:
        self.guard, self.chunks_read, self.sent = guard, 0, list[Message]()
        pairs = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
        self.scope: Scope = {"type": "http", "method": "POST", "path": path, "headers": pairs}

    def do(self, chunks: AsyncIterator[bytes] | None = None) -> "Exchange":
        async def receive() -> Message:
            self.chunks_read += 1
            self.read_before_answer = not self.sent
            body = b"" if chunks is None else await anext(chunks, b"")
            return {"type": "http.request", "body": body, "more_body": bool(body)}

        async def send(message: Message) -> None:
            self.sent.append(message)

        asyncio.run(self.guard(self.scope, receive, send))
        self.status = self.sent[0]["status"]
        self.headers = dict(self.sent[0]["headers"])
        self.body = b"".join(message.get("body", b"") for message in self.sent[1:])
        return self


def guard(token: str | None = None, limits: Limits | None = None, out: io.StringIO | None = None) -> Guard:
    return Guard(echo, ServiceMetrics(), token, limits or Limits(), out)


async def parts(num: int, size: int, wait_s: float = 0.0) -> AsyncIterator[bytes]:
    for _ in range(num):
        await asyncio.sleep(wait_s)
        yield b"x" * size


@pytest.mark.parametrize("shown", [None, "Bearer", "Bearer wrong", f"Basic {TOKEN}", f"Bearer {TOKEN}x", TOKEN])
def test_without_the_token_the_answer_is_401_before_anything_of_the_body_is_read(shown: str | None) -> None:
    headers = {} if shown is None else {"authorization": shown}
    done = Exchange(guard(TOKEN), content_length=str(50 * MB), **headers).do(parts(3, 10))
    assert done.status == 401
    assert not getattr(done, "read_before_answer", False)
    assert json.loads(done.body)["error"]["code"] == "unauthorized"
    assert done.headers[b"www-authenticate"] == b"Bearer"


def test_with_the_token_a_request_goes_on() -> None:
    assert Exchange(guard(TOKEN), authorization=f"bearer {TOKEN}").do(parts(2, 5)).body == b"10"


@pytest.mark.parametrize("path", ["/", "/health", "/ready", "/page/page.js"])
def test_the_page_and_the_probes_need_no_token(path: str) -> None:
    assert Exchange(guard(TOKEN), path=path).do().status == 200


@pytest.mark.parametrize("path", ["/metrics", "/openapi.json", "/run", "/items", "/page", "//health"])
def test_everything_else_does(path: str) -> None:
    assert Exchange(guard(TOKEN), path=path).do().status == 401


@pytest.mark.parametrize(
    ("host", "status"),
    [("localhost:8000", 200), ("localhost", 200), ("[::1]:80", 200), ("evil.example:8000", 421), ("", 421)],
)
def test_a_service_for_this_machine_answers_by_its_names_alone(host: str, status: int) -> None:
    guarded = Guard(echo, ServiceMetrics(), out=None, hosts=frozenset({"localhost", "[::1]"}))
    assert Exchange(guarded, host=host).do().status == status


def test_a_body_of_50_mb_is_refused_before_it_is_read() -> None:
    done = Exchange(guard(), content_length=str(50 * MB)).do(parts(3, 10))
    assert done.status == 413
    assert not done.read_before_answer
    assert done.headers[b"connection"] == b"close"
    assert "52,428,800" in json.loads(done.body)["error"]["message"]


def test_a_client_that_sends_on_is_not_listened_to_for_long() -> None:
    done = Exchange(guard(limits=Limits(linger_s=0.1)), content_length=str(50 * MB)).do(parts(10_000, 10, 0.01))
    assert done.status == 413
    assert done.chunks_read < 100


def test_who_waits_for_leave_to_send_is_not_given_it() -> None:
    done = Exchange(guard(), content_length=str(50 * MB), expect="100-continue").do(parts(3, 10))
    assert (done.status, done.chunks_read) == (413, 0)


def test_a_body_that_does_not_say_its_length_is_cut_at_the_limit() -> None:
    done = Exchange(guard(), transfer_encoding="chunked").do(parts(5_000, 10_000))
    assert done.status == 413
    assert done.chunks_read <= MB // 10_000 + 1


def test_a_body_that_does_not_come_is_not_waited_for() -> None:
    assert Exchange(guard(limits=Limits(body_s=0.05))).do(parts(100, 1, 0.02)).status == 408


@pytest.mark.parametrize("given", ["abc-123", "7f.2_x", "A" * 64])
def test_a_wellformed_request_id_is_kept(given: str) -> None:
    assert Exchange(guard(), x_request_id=given).do().headers[b"x-request-id"] == given.encode()


@pytest.mark.parametrize("given", ["", "A" * 65, "a b", '"}', "-x", "a\u00e9"])
def test_any_other_is_replaced(given: str) -> None:
    made = Exchange(guard(), x_request_id=given).do().headers[b"x-request-id"]
    assert len(made) == 16
    assert made != given.encode()


def test_a_line_of_log_names_the_request_and_nothing_of_what_was_sent() -> None:
    out = io.StringIO()
    Exchange(guard(out=out), x_request_id="r1", path="/users/secret-name").do(parts(1, 5))
    (line,) = out.getvalue().splitlines()
    told = json.loads(line)
    assert (told["event"], told["request_id"], told["status"]) == ("request", "r1", 200)
    assert "secret-name" not in line
    assert told["ms"] >= 0


def test_a_defect_is_logged_by_its_place_and_not_by_its_message() -> None:
    out = io.StringIO()

    async def broken(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 500, "headers": []})
        raise KeyError("By genre: likes Drama")

    Exchange(Guard(broken, ServiceMetrics(), None, Limits(), out)).do()
    defect, request = map(json.loads, out.getvalue().splitlines())
    assert (defect["error"], request["status"]) == ("KeyError", 500)
    assert any("test_serving_guard.py" in place for place in defect["at"])
    assert "Drama" not in out.getvalue()


def test_beyond_so_many_requests_in_flight_the_next_is_told_to_come_back() -> None:
    async def slow(scope: Scope, receive: Receive, send: Send) -> None:
        await asyncio.sleep(0.05)
        await echo(scope, receive, send)

    async def ask() -> list[int]:
        guarded = Guard(slow, ServiceMetrics(), None, Limits(max_in_flight=3), None)
        statuses: list[int] = []

        async def one() -> None:
            async def receive() -> Message:
                return {"type": "http.request", "body": b""}

            async def send(message: dict[str, Any]) -> None:
                if message["type"] == "http.response.start":
                    statuses.append(message["status"])

            await guarded({"type": "http", "method": "GET", "path": "/run", "headers": []}, receive, send)

        await asyncio.gather(*(one() for _ in range(5)))
        return statuses

    assert sorted(asyncio.run(ask())) == [200, 200, 200, 503, 503]
