"""An OpenAI-compatible server on loopback that answers at once, counts everything, and fails on request.

Also a program: ``python fake_server.py PORT`` serves until its standard input closes, without faults.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import sys
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Self

WORDS = ["Drama", "War", "Comedy", "Noir", "Western", "Romance", "Thriller", "Musical", "Horror", "Sport"]
HEAD = "HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n{extra}\r\n"
MEGABYTE = 1 << 20


@dataclass
class Seen:
    """One request as it arrived. delivered: texts of it that were sent whole."""

    number: int
    prompt: str
    body: dict[str, Any]
    headers: dict[str, str]
    path: str = ""
    fault: str = ""
    delivered: list[str] = field(default_factory=list)

    @property
    def n(self) -> int:
        return self.body.get("n", 1)


def text_for(prompt: str, seed: int | None, index: int) -> str:
    """What the server writes: a function of prompt, seed and place among the choices."""
    digest = hashlib.sha256(f"{prompt}|{seed}|{index}".encode()).digest()
    return f"By genre: likes {WORDS[digest[0] % 10]}, {WORDS[digest[1] % 10]}; {digest.hex()[:12]}."


class FakeServer:
    """Serves ``/v1/chat/completions`` from a thread of its own.

    Args:
        fault: (request as seen) -> name of what goes wrong with it, or "" for an honest answer.
        takes_n: False to give one choice whatever was asked; None to answer 400 to n > 1.
        delay_s: time an honest answer takes.
        port: 0 for any.
        write: (prompt, seed, place among the choices) -> the text of an honest answer.
        models: what ``/v1/models`` lists; None to know no such address. Any name is answered all the same.
        change: (request as seen, the answer as JSON) -> the body to send in its place.
    """

    def __init__(
        self,
        fault: Callable[[Seen], str] = lambda seen: "",
        *,
        takes_n: bool | None = True,
        delay_s: float = 0.0,
        port: int = 0,
        write: Callable[[str, int | None, int], str] = text_for,
        models: tuple[str, ...] | None = None,
        change: Callable[[Seen, dict[str, Any]], bytes] = lambda seen, value: json.dumps(value).encode(),
    ) -> None:
        self.change = change
        self.fault, self.takes_n, self.delay_s, self.port = fault, takes_n, delay_s, port
        self.write, self.models = write, models
        self.seen: list[Seen] = []
        self.open = self.most_open = 0
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        self._ready.wait()
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stopped.set)
        self._thread.join()

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def delivered(self) -> Counter[str]:
        """By prompt, texts that were sent whole."""
        return Counter(prompt for seen in self.seen for prompt in [seen.prompt] * len(seen.delivered))

    def _serve(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._main())
        self._loop.close()

    async def _main(self) -> None:
        self._stopped = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        server = await asyncio.start_server(self._meet, "127.0.0.1", self.port, backlog=1024)
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        await self._stopped.wait()
        server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _meet(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            while await self._answer(reader, writer):
                pass
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            self._tasks.discard(task)
            writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        headers = {k.lower(): v for k, _, v in (line.partition(": ") for line in head[1:] if line)}
        if head[0].startswith("GET "):
            await self._list(writer)
            return True
        body = json.loads(await reader.readexactly(int(headers.get("content-length", 0))))
        prompt = "\n".join(message["content"] for message in body["messages"])
        seen = Seen(len(self.seen), prompt, body, headers, head[0].split()[1])
        self.seen.append(seen)
        seen.fault = self.fault(seen)
        if not seen.fault and self.takes_n is None and seen.n > 1:
            seen.fault = "400"
        self.open += 1
        self.most_open = max(self.most_open, self.open)
        try:
            return await self._reply(seen, writer)
        finally:
            self.open -= 1

    async def _reply(self, seen: Seen, writer: asyncio.StreamWriter) -> bool:
        fault = seen.fault
        if fault.isdigit() or fault[:4].rstrip("-").isdigit():
            await self._refuse(fault, writer)
            return True
        if fault == "reset":
            writer.transport.abort()
            return False
        if fault == "hang":
            await asyncio.sleep(3600)
        texts, payload = self._payload(seen)
        head = HEAD.format(status=200, length=len(payload), extra="").encode()
        if fault == "cut":  # the connection ends in the middle of the answer
            writer.write(head + payload[: len(payload) // 2])
            await writer.drain()
            return False
        if fault == "drip":
            writer.write(head)
            for place in range(len(payload)):
                writer.write(payload[place : place + 1])
                await writer.drain()
                await asyncio.sleep(0.1)
        if self.delay_s:
            await asyncio.sleep(self.delay_s)
        writer.write(head + payload)
        await writer.drain()
        if fault not in ("truncated", "no-choices", "broken off"):
            seen.delivered = texts
        return True

    async def _list(self, writer: asyncio.StreamWriter) -> None:
        if self.models is None:
            await self._refuse("404", writer)
            return
        data = json.dumps({"data": [{"id": name} for name in self.models]}).encode()
        writer.write(HEAD.format(status=200, length=len(data), extra="").encode() + data)
        await writer.drain()

    async def _refuse(self, fault: str, writer: asyncio.StreamWriter) -> None:
        status, _, extra = fault.partition("-")
        message = {
            "401": "Incorrect API key provided: sk-secret-123456",
            "404": "The model `nobody` does not exist",
            "400": "this prompt cannot be processed",
            "422": "no model reads \ud83d",
        }.get(status, "try again")
        code = extra if extra.startswith("insufficient") else status
        data = json.dumps({"error": {"message": message, "code": code}}).encode()
        header = f"Retry-After: {extra}\r\n" if extra and code != extra else ""
        writer.write(HEAD.format(status=status, length=len(data), extra=header).encode() + data)
        await writer.drain()

    def _payload(self, seen: Seen) -> tuple[list[str], bytes]:
        num = seen.n if self.takes_n else 1
        match seen.fault:
            case "one":
                num = 1
            case "fewer":
                num = max(1, seen.n - 1)
            case "more":
                num = seen.n + 2
        texts = [self.write(seen.prompt, seen.body.get("seed"), index) for index in range(num)]
        match seen.fault:
            case "empty":
                texts = [" \n"] * num
            case "long":
                texts = ["likes Drama. " * (MEGABYTE // 13)] * num
            case "think":
                texts = [f"<think>\nlet me see\n</think>\n\n**{text}**" for text in texts]
            case "sorry":
                texts = ["I'm sorry, but I can't help with that."] * num
            case "filtered" | "half a character":
                texts = [f"{text} \ud83d" for text in texts]
        choices = [
            {
                "index": index,
                "message": {"role": "assistant", "content": text},
                "finish_reason": {"length": "length", "filtered": "content_filter"}.get(seen.fault, "stop"),
            }
            for index, text in enumerate(texts)
        ]
        usage = {"prompt_tokens": 100, "completion_tokens": 10 * num, "total_tokens": 100 + 10 * num}
        usage |= {"prompt_tokens_details": {"cached_tokens": 40}}
        value = {"choices": [] if seen.fault == "no-choices" else choices, "usage": usage}
        payload = self.change(seen, value)
        if seen.fault == "truncated":
            payload = payload[: len(payload) // 2]
        if seen.fault == "latin1":
            payload = payload.replace(b"By genre", b"By g\xe9nre")
        return texts[: seen.n], payload


if __name__ == "__main__":
    with FakeServer(port=int(sys.argv[1])) as running:
        print(running.port, flush=True)
        sys.stdin.read()
        asked = len(running.seen)
        print(json.dumps({"requests": asked, "delivered": sum(running.delivered().values())}), flush=True)
