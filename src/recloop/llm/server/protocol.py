"""One request to an OpenAI-compatible server: what is sent, and what its outcome means; a failure does not raise."""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum
from typing import TYPE_CHECKING, Any, cast

from recloop.llm.language_model import Sampling, chat_messages
from recloop.llm.server.config import PaceConfig, ServerAddress, ServerConfig
from recloop.llm.server.rate_limits import retry_after_s
from recloop.llm.server.redaction import redact
from recloop.records import Prompt

if TYPE_CHECKING:
    import httpx2

MAX_BODY_BYTES = 16 << 20  # more of one answer is not read
REASON_CHARS = 300
LISTING_S = 20.0  # longest wait for the names of a server's models
FILTERED = ("content_filter", "content_policy_violation", "moderation_blocked")
NO_CREDIT = ("insufficient_quota", "billing_hard_limit_reached", "insufficient_balance")
KEY_LIKE = re.compile(r"\b(sk|pk|key|api|hf|gsk|xai)[-_][\w*.-]{6,}", re.IGNORECASE)


class Failure(Enum):
    """Why a request brought no answer."""

    UNREACHED = "unreached"  # nothing was sent
    CUT = "cut"  # sent, and then timed out, reset, or unreadable: may be billed
    SERVER = "server"  # the server says it failed
    THROTTLED = "throttled"  # too many requests
    REJECTED = "rejected"  # the server will never answer this request
    FATAL = "fatal"  # it will answer no request: key, model name, address, credit


@dataclass(frozen=True, slots=True)
class Failed:
    """A request without an answer. retry_after_s: how long the server asks to wait; None when it does not."""

    kind: Failure
    reason: str
    retry_after_s: float | None = None
    status: int | None = None


@dataclass(frozen=True, slots=True)
class Choice:
    """One text of an answer. is_finished: False when the token limit cut it. is_refused: a filter, or the model."""

    text: str
    is_finished: bool
    is_refused: bool


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer. Token counts are None where the server does not give them; note: what was odd about it."""

    choices: tuple[Choice, ...]
    input_tokens: int | None
    cached_tokens: int | None
    output_tokens: int | None
    note: str = ""


def completion_seed(seed: int, completion: int) -> int:
    """The seed sent for a completion: 31 bits, since some servers take no more."""
    digest = hashlib.sha256(f"{seed} draft {completion}".encode()).digest()  # another string means other seeds
    return int.from_bytes(digest[:4], "big") >> 1


def request_body(
    address: ServerAddress, config: ServerConfig, prompt: Prompt, sampling: Sampling, completions: Sequence[int]
) -> bytes:
    """The JSON of one request: the prompt and the sampling settings, not whose prompt it is."""
    body: dict[str, Any] = {
        "model": address.model,
        "messages": chat_messages(prompt),
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        config.length_field: sampling.max_tokens,
        "stream": False,
    }
    if len(completions) > 1:
        body["n"] = len(completions)
    if config.send_seed:
        body["seed"] = completion_seed(sampling.seed, completions[0])
    return json.dumps(body | config.extra_body).encode()


class Wire:
    """An HTTP client for one server. Enter it inside the event loop that uses it."""

    def __init__(self, address: ServerAddress, pace: PaceConfig, key: str | None) -> None:
        import httpx2

        self._url, self._models_url = f"{address.base_url}/chat/completions", f"{address.base_url}/models"
        self._timeout_s, self._key = pace.timeout_s, key
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        if key is not None:
            headers["Authorization"] = f"Bearer {key}"
        has_tls = address.base_url.startswith("https:")
        verify = httpx2.create_ssl_context() if has_tls else False  # reading certificates takes a while
        # One client per connection: a pool of many looks at each of them at every request.
        self._new_client = lambda: httpx2.AsyncClient(
            headers=headers,
            timeout=httpx2.Timeout(pace.timeout_s, connect=min(pace.timeout_s, 20.0), pool=None),
            limits=httpx2.Limits(max_connections=1, max_keepalive_connections=1),
            follow_redirects=False,  # a redirect could carry prompts and key to a host that nobody allowed
            verify=verify,
            trust_env=not address.is_loopback,  # requests to this machine need no proxy
        )
        self._idle: list[httpx2.AsyncClient] = []
        self._unreached = (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.UnsupportedProtocol)
        self._broken = (httpx2.HTTPError, httpx2.StreamError)

    async def __aenter__(self) -> Wire:
        return self

    async def __aexit__(self, *_: object) -> None:
        for client in self._idle:
            await client.aclose()

    async def ask(self, body: bytes) -> Reply | Failed:
        """The outcome of one request; only cancellation raises."""
        client = self._idle.pop() if self._idle else self._new_client()
        try:
            async with asyncio.timeout(self._timeout_s):  # for the whole answer: a server may send it byte by byte
                return await self._ask(client, body)
        except TimeoutError:
            return Failed(Failure.CUT, f"no whole answer within {self._timeout_s:g} s")
        except self._unreached as error:
            return Failed(Failure.UNREACHED, self._clean(f"{type(error).__name__}: {error}"))
        except self._broken as error:
            return Failed(Failure.CUT, self._clean(f"{type(error).__name__}: {error}"))
        finally:
            self._idle.append(client)

    async def model_names(self) -> tuple[str, ...]:
        """What the server calls its models; none where it does not list them."""
        client = self._new_client()
        try:
            async with asyncio.timeout(LISTING_S):
                response = await client.get(self._models_url)
            listed = _dicts(_get(json.loads(response.content), "data")) if response.status_code == 200 else []
            return tuple(name for model in listed if isinstance(name := model.get("id"), str))
        except (TimeoutError, ValueError, RecursionError, *self._broken):
            return ()
        finally:
            await client.aclose()

    async def _ask(self, client: httpx2.AsyncClient, body: bytes) -> Reply | Failed:
        async with client.stream("POST", self._url, content=body) as response:
            parts: list[bytes] = []
            size = 0
            async for part in response.aiter_bytes():
                parts.append(part)
                size += len(part)
                if size > MAX_BODY_BYTES:
                    return Failed(Failure.REJECTED, f"the answer is longer than {MAX_BODY_BYTES >> 20} MiB", None, 200)
            data = b"".join(parts)
            if response.status_code == 200:
                return read_reply(data)
            asked_wait_s = retry_after_s(response.headers.get("retry-after"), datetime.now(UTC))
            return outcome_of_status(response.status_code, self._clean(error_text(data)), asked_wait_s)

    def _clean(self, text: str) -> str:
        """Without the key, anything like a key, or personal details: servers quote what they got."""
        if self._key:
            text = text.replace(self._key, "[key]")
        return redact(KEY_LIKE.sub("[key]", text))[0][:REASON_CHARS]


def outcome_of_status(status: int, said: str, asked_wait_s: float | None) -> Failed:
    """What an HTTP status other than 200 means for this request and for all others."""
    reason = f"HTTP {status}: {said}"
    match status:
        case 429:
            kind = Failure.FATAL if any(code in said for code in NO_CREDIT) else Failure.THROTTLED
        case 403 if any(code in said for code in FILTERED):
            kind = Failure.REJECTED
        case 401 | 402 | 403 | 404 | 405 | 407:
            kind = Failure.FATAL
        case 408 | 409 | 425:
            kind = Failure.SERVER
        case _:
            kind = Failure.SERVER if status >= 500 else Failure.FATAL if status < 400 else Failure.REJECTED
    return Failed(kind, reason, asked_wait_s, status)


def error_text(data: bytes) -> str:
    """What a server says about an error, in one line."""
    text = data[:4000].decode("utf-8", "replace")
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        value = None
    inner = _get(value, "error") or value
    if isinstance(inner, dict):
        parts = [_get(inner, key) for key in ("message", "detail", "code", "type")]
        return " ".join(" ".join(str(part) for part in parts if part).split()) or text
    return " ".join(str(inner if isinstance(value, dict) else text).split())


def read_reply(data: bytes) -> Reply | Failed:
    """The answer in a body of status 200; a body that holds none counts as cut off on the way."""
    text = data.decode("utf-8", "replace")
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        return Failed(Failure.CUT, f"the answer is not JSON ({error})"[:REASON_CHARS], None, 200)
    choices = tuple(map(_choice, _dicts(_get(value, "choices"))))
    if not choices:
        return Failed(Failure.CUT, f"the answer has no choices ({error_text(data)})"[:REASON_CHARS], None, 200)
    return Reply(
        choices,
        _count(_get(value, "usage", "prompt_tokens")),
        _count(_get(value, "usage", "prompt_tokens_details", "cached_tokens")),
        _count(_get(value, "usage", "completion_tokens")),
        "bytes that are no UTF-8 were left out" if "\ufffd" in text else "",
    )


def _choice(choice: dict[str, Any]) -> Choice:
    content, refusal = _get(choice, "message", "content"), _get(choice, "message", "refusal")
    ended = choice.get("finish_reason")
    if isinstance(content, list):
        content = "".join(str(part.get("text") or "") for part in _dicts(content))
    text = content if isinstance(content, str) else ""
    is_refused = bool(refusal) or ended == "content_filter"
    return Choice(text or (str(refusal) if refusal else ""), ended != "length", is_refused)


def _get(value: Any, *keys: str) -> Any:
    """What lies at these keys, one in the other; None where a value on the way is no JSON object."""
    for key in keys:
        value = cast(dict[str, Any], value).get(key) if isinstance(value, dict) else None
    return value


def _dicts(value: Any) -> list[dict[str, Any]]:
    """The JSON objects of a list; none where it is no list."""
    parts = cast(list[Any], value) if isinstance(value, list) else []
    return [cast(dict[str, Any], part) for part in parts if isinstance(part, dict)]


def _count(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None
