"""What happens before and after every request: its id, the token, limits of size and time, one line of log, metrics."""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import re
import secrets
import sys
import time
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TextIO

from pydantic_core import to_json

from recloop.serving.metrics import ServiceMetrics

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
AsgiApp = Callable[[Scope, Receive, Send], Awaitable[None]]
Headers = list[tuple[bytes, bytes]]

REQUEST_ID = re.compile(rb"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
HOST_PORT = re.compile(r":\d+$")
OPEN_PATHS = ("/", "/health", "/ready")  # and the page's files, which hold no data
OPEN_FOLDER = "/page/"
FLUSH_S = 0.2  # a write to the log's file for each request took a fifth of the time that ranking takes
SMALL_BODY = 2**16  # a refused request's body that may be read to its end, so that the connection can go on
SAFETY: Headers = [(b"x-content-type-options", b"nosniff"), (b"cache-control", b"no-store")]


@dataclass(frozen=True, slots=True)
class Limits:
    """What a request may take. body_s: until its body has come. linger_s: for a client that sends on though refused."""

    max_body_bytes: int = 2**20
    body_s: float = 10.0
    linger_s: float = 2.0
    max_in_flight: int = 512


class BodyError(Exception):
    """The body is longer than allowed, or does not come; `status` is the answer's."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


def problem_body(code: str, message: str, request_id: str, fields: list[dict[str, str]] | None = None) -> bytes:
    """The body of an answer that refuses."""
    told = {"code": code, "message": message, "request_id": request_id, "fields": fields or []}
    return to_json({"error": told})


def log_line(out: TextIO, event: str, **fields: Any) -> None:
    """One JSON object on a line, not yet flushed. Fields are numbers and names, never what a user wrote or did."""
    now = datetime.now(UTC).isoformat(timespec="milliseconds")
    out.write(to_json({"time": now, "event": event, **fields}).decode() + "\n")


class Guard:
    """The application with all of that around it; it counts the requests in flight.

    Args:
        token: what a client must show as its bearer token; None where anybody may ask.
        hosts: names that requests may be addressed to, so that no other site's page can ask under a name of its own
            that leads here; None for all.
        out: where log lines go; None for nowhere.
    """

    def __init__(
        self,
        app: AsgiApp,
        metrics: ServiceMetrics,
        token: str | None = None,
        limits: Limits = Limits(),
        out: TextIO | None = sys.stdout,
        hosts: frozenset[str] | None = None,
    ) -> None:
        self.app, self.metrics, self.limits, self.out, self.hosts = app, metrics, limits, out, hosts
        self._token = None if token is None else token.encode()
        self._in_flight, self._is_flushing = 0, False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request, or the application's start and end."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        start_s = time.perf_counter()
        headers = dict(scope["headers"])
        given = headers.get(b"x-request-id", b"")
        request_id = given.decode() if REQUEST_ID.fullmatch(given) else secrets.token_hex(8)
        scope["state"] = {**scope.get("state", {}), "request_id": request_id}
        status = 0

        async def answer(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message["headers"], *SAFETY, (b"x-request-id", request_id.encode())]
            await send(message)

        self._in_flight += 1
        try:
            refusal = self._refusal(scope["path"], headers)
            if refusal is not None:
                await self._refuse(refusal, request_id, headers, receive, answer)
            else:
                await self.app(scope, self._bounded(receive), answer)
        except Exception as error:
            self._log_defect(request_id, error)
        finally:
            self._in_flight -= 1
            self._tell(scope, request_id, status, time.perf_counter() - start_s)

    def _refusal(self, path: str, headers: dict[bytes, bytes]) -> tuple[int, str, str, Headers] | None:
        """Status, code, message and headers of the answer to a request that goes no further."""
        is_open = path in OPEN_PATHS or path.startswith(OPEN_FOLDER)
        if self._token is not None and not is_open:
            scheme, _, shown = headers.get(b"authorization", b"").partition(b" ")
            if scheme.lower() != b"bearer" or not hmac.compare_digest(shown.strip(), self._token):
                what = "a bearer token is wanted, got none or a wrong one; send the header Authorization: Bearer TOKEN"
                return 401, "unauthorized", what, [(b"www-authenticate", b"Bearer")]
        if self.hosts is not None and HOST_PORT.sub("", headers.get(b"host", b"").decode("latin-1")) not in self.hosts:
            what = f"without a token only {', '.join(sorted(self.hosts))} may be asked, by this name; set a token"
            return 421, "another_host", what, []
        length = headers.get(b"content-length", b"0")
        most = self.limits.max_body_bytes
        if length.isdigit() and int(length) > most:
            return 413, "too_large", f"a body may have {most:,} bytes, got {int(length):,}; send fewer candidates", []
        if self._in_flight > self.limits.max_in_flight and not is_open:
            what = f"{self.limits.max_in_flight} requests are being answered; ask again in 1 s"
            return 503, "overloaded", what, [(b"retry-after", b"1")]
        return None

    async def _refuse(
        self,
        refusal: tuple[int, str, str, Headers],
        request_id: str,
        request_headers: dict[bytes, bytes],
        receive: Receive,
        send: Send,
    ) -> None:
        """Answer at once. What the client still sends is thrown away for a moment, else it might miss the answer."""
        status, code, message, extra = refusal
        body = problem_body(code, message, request_id)
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode()), *extra]
        length = request_headers.get(b"content-length", b"0")
        is_small = b"transfer-encoding" not in request_headers and length.isdigit() and int(length) <= SMALL_BODY
        if not is_small:
            headers.append((b"connection", b"close"))
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body, "more_body": not is_small})
        if not is_small:
            # A client that waits for "100 Continue" has not sent its body, and would be told to by a first receive.
            if request_headers.get(b"expect", b"").lower() != b"100-continue":
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(self.limits.linger_s):
                        while (await receive()).get("more_body", False):
                            pass
            await send({"type": "http.response.body", "body": b""})

    def _bounded(self, receive: Receive) -> Receive:
        """`receive`, which raises `BodyError` where the body is too long or too slow."""
        limits, num_bytes, is_whole = self.limits, 0, False
        deadline_s = asyncio.get_running_loop().time() + limits.body_s

        async def bounded() -> Message:
            nonlocal num_bytes, is_whole
            if is_whole:
                return await receive()  # nothing comes any more but the client's leaving
            try:
                async with asyncio.timeout_at(deadline_s):
                    message = await receive()
            except TimeoutError:
                raise BodyError(408, f"the body did not come within {limits.body_s:g} s; send it faster") from None
            is_whole = not message.get("more_body", False)
            num_bytes += len(message.get("body", b""))
            if num_bytes > limits.max_body_bytes:
                raise BodyError(413, f"a body may have {limits.max_body_bytes:,} bytes; send fewer candidates")
            return message

        return bounded

    def _tell(self, scope: Scope, request_id: str, status: int, took_s: float) -> None:
        route = getattr(scope.get("route"), "path", "other")
        self.metrics.observe(route, status, took_s)
        if self.out is not None:
            told = {"request_id": request_id, "method": scope["method"], "route": route, "status": status}
            log_line(self.out, "request", **told, ms=round(1e3 * took_s, 2))
            if not self._is_flushing:
                self._is_flushing = True
                asyncio.get_running_loop().call_later(FLUSH_S, self._flush, self.out)

    def _flush(self, out: TextIO) -> None:
        self._is_flushing = False
        out.flush()

    def _log_defect(self, request_id: str, error: Exception) -> None:
        """Where an unforeseen error arose; its message may quote what a user wrote, and is left out."""
        if self.out is None:
            return
        places: list[str] = []
        trace = error.__traceback__
        while trace is not None:
            places.append(f"{trace.tb_frame.f_code.co_filename.rpartition('/')[2]}:{trace.tb_lineno}")
            trace = trace.tb_next
        log_line(self.out, "defect", request_id=request_id, error=type(error).__name__, at=places[-6:])
