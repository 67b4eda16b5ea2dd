"""One request to an OpenAI-compatible endpoint: what is sent, and what its outcome means.

A failure never raises here: it is one of a few outcomes, and `recloop.llm.server.scheduler` decides.
"""

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
from recloop.llm.server.config import EndpointConfig, PaceConfig, ServerModel
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
    CUT = "cut"  # sent, and then timed out, reset, or unreadable: may have been paid for
    SERVER = "server"  # the server says it failed
    THROTTLED = "throttled"  # too many requests
    REJECTED = "rejected"  # this request will never be taken
    FATAL = "fatal"  # no request will be taken: key, model name, address, credit


@dataclass(frozen=True, slots=True)
class Failed:
    """A request without an answer. retry_after_s: as the server asked, if it did."""

    kind: Failure
    reason: str
    retry_after_s: float | None = None
    status: int | None = None


@dataclass(frozen=True, slots=True)
class Choice:
    """One text of an answer. is_finished: False when the token limit cut it."""

    text: str
    is_finished: bool
    is_refused: bool


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer. Token counts are None where the server does not tell; note: what was odd about it."""

    choices: tuple[Choice, ...]
    input_tokens: int | None
    cached_tokens: int | None
    output_tokens: int | None
    note: str = ""


def completion_seed(seed: int, completion: int) -> int:
    """The seed sent for a completion: of 31 bits, since some servers take no more."""
    digest = hashlib.sha256(f"{seed} draft {completion}".encode()).digest()
    return int.from_bytes(digest[:4], "big") >> 1


def request_body(
    server: ServerModel, config: EndpointConfig, prompt: Prompt, sampling: Sampling, completions: Sequence[int]
) -> bytes:
    """The JSON of one request: nothing but the prompt and how it is to be answered; not whose it is."""
    body: dict[str, Any] = {
        "model": server.model,
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
    """An HTTP client for one endpoint. Must be entered inside the event loop that uses it."""

    def __init__(self, server: ServerModel, pace: PaceConfig, key: str | None) -> None:
        import httpx2

        self._url, self._models_url = f"{server.base_url}/chat/completions", f"{server.base_url}/models"
        self._timeout_s, self._key = pace.timeout_s, key
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        if key is not None:
            headers["Authorization"] = f"Bearer {key}"
        has_tls = server.base_url.startswith("https:")
        verify = httpx2.create_ssl_context() if has_tls else False  # reading certificates takes a while
        # One client to a connection: a pool of many looks at each of them at every request.
        self._new_client = lambda: httpx2.AsyncClient(
            headers=headers,
            timeout=httpx2.Timeout(pace.timeout_s, connect=min(pace.timeout_s, 20.0), pool=None),
            limits=httpx2.Limits(max_connections=1, max_keepalive_connections=1),
            follow_redirects=False,  # a redirect could carry prompts and key to a host nobody allowed
            verify=verify,
            trust_env=not server.is_loopback,  # what stays on this machine needs no proxy
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
        """Send one request; whatever happens to it is the outcome, cancellation excepted."""
        client = self._idle.pop() if self._idle else self._new_client()
        try:
            async with asyncio.timeout(self._timeout_s):  # over all of it: a server may drip for ever
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
        """What the server calls its models; none where it does not tell."""
        client = self._new_client()
        try:
            async with asyncio.timeout(LISTING_S):
                response = await client.get(self._models_url)
            return read_model_names(response.content) if response.status_code == 200 else ()
        except (TimeoutError, *self._broken):
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
            return reward_model_status(response.status_code, self._clean(error_text(data)), asked_wait_s)

    def _clean(self, text: str) -> str:
        """Without the key, or anything like one or like a person's details: servers quote what they got."""
        if self._key:
            text = text.replace(self._key, "[key]")
        return redact(KEY_LIKE.sub("[key]", text))[0][:REASON_CHARS]


def reward_model_status(status: int, said: str, asked_wait_s: float | None) -> Failed:
    """What an HTTP status other than 200 means for the request and for all others."""
    reason = f"HTTP {status}: {said}"
    match status:
        case 429 if any(code in said for code in NO_CREDIT):
            kind = Failure.FATAL
        case 429:
            kind = Failure.THROTTLED
        case 401 | 402 | 403 | 404 | 405 | 407:
            kind = Failure.FATAL
        case 408 | 409 | 425:
            kind = Failure.SERVER
        case _ if status >= 500:
            kind = Failure.SERVER
        case _ if status < 400:
            kind = Failure.FATAL
        case _:
            kind = Failure.REJECTED
    if kind is Failure.FATAL and status == 403 and any(code in said for code in FILTERED):
        kind = Failure.REJECTED
    return Failed(kind, reason, asked_wait_s, status)


def error_text(data: bytes) -> str:
    """What a server says about an error, in one line."""
    text = data[:4000].decode("utf-8", "replace")
    try:
        value = json.loads(text)
    except ValueError:
        return " ".join(text.split())
    if isinstance(value, dict):
        said = cast(dict[str, Any], value)
        inner = said.get("error", said)
        if isinstance(inner, dict):
            parts = cast(dict[str, Any], inner)
            told = [parts.get(k) for k in ("message", "detail", "code", "type")]
            return " ".join(" ".join(str(part) for part in told if part).split()) or text
        return " ".join(str(inner).split())
    return " ".join(text.split())


def read_reply(data: bytes) -> Reply | Failed:
    """The answer in a body of status 200; a body that is none counts as cut off on the way."""
    note = ""
    try:
        text = data.decode()
    except UnicodeDecodeError:
        text, note = data.decode("utf-8", "replace"), "bytes that are no UTF-8 were left out"
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        return Failed(Failure.CUT, f"the answer is not JSON ({error})"[:REASON_CHARS], None, 200)
    listed = cast(dict[str, Any], value).get("choices") if isinstance(value, dict) else None
    texts = cast(list[Any], listed) if isinstance(listed, list) else []
    choices = [_choice(cast(dict[str, Any], choice)) for choice in texts if isinstance(choice, dict)]
    if not choices:
        why = f"the answer has no choices ({error_text(data)})"
        return Failed(Failure.CUT, why[:REASON_CHARS], None, 200)
    usage = cast(dict[str, Any], value).get("usage")
    counts = cast(dict[str, Any], usage) if isinstance(usage, dict) else {}
    details = counts.get("prompt_tokens_details")
    cached = cast(dict[str, Any], details).get("cached_tokens") if isinstance(details, dict) else None
    return Reply(
        tuple(choices),
        _count(counts.get("prompt_tokens")),
        _count(cached),
        _count(counts.get("completion_tokens")),
        note,
    )


def read_model_names(data: bytes) -> tuple[str, ...]:
    """The names in a list of models; none where it is no such list."""
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return ()
    listed = cast(dict[str, Any], value).get("data") if isinstance(value, dict) else None
    models = cast(list[Any], listed) if isinstance(listed, list) else []
    names = [cast(dict[str, Any], model).get("id") for model in models if isinstance(model, dict)]
    return tuple(name for name in names if isinstance(name, str))


def _choice(choice: dict[str, Any]) -> Choice:
    message = choice.get("message")
    said = cast(dict[str, Any], message) if isinstance(message, dict) else {}
    content = said.get("content")
    if isinstance(content, list):
        parts = [cast(dict[str, Any], part) for part in cast(list[Any], content) if isinstance(part, dict)]
        content = "".join(str(part.get("text") or "") for part in parts)
    refusal, ended = said.get("refusal"), choice.get("finish_reason")
    is_refused = bool(refusal) or ended == "content_filter"
    text = content if isinstance(content, str) else ""
    return Choice(text or (str(refusal) if refusal else ""), ended != "length", is_refused)


def _count(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None
