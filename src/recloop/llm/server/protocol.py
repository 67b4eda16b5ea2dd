"""One request to an OpenAI-compatible server: what is sent, and what its outcome means; a failure does not raise."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from recloop.llm.language_model import Sampling, chat_messages
from recloop.llm.server.config import PaceConfig, ServerAddress, ServerConfig, with_secrets
from recloop.llm.server.rate_limits import retry_after_s
from recloop.llm.server.redaction import redact
from recloop.llm.server.reply import REASON_CHARS, Failed, Failure, Reply, error_text, get, get_dicts, read_reply
from recloop.records import Prompt

if TYPE_CHECKING:
    import httpx2

MAX_BODY_BYTES = 16 << 20  # more of one answer is not read
LISTING_S = 20.0  # longest wait for the names of a server's models
FILTERED = ("content_filter", "content_policy_violation", "moderation_blocked")
NO_CREDIT = ("insufficient_quota", "billing_hard_limit_reached", "insufficient_balance")
PIECE_CHARS = 6  # of a secret; a shorter piece tells nobody anything
KEY_LIKE = re.compile(r"\b(sk|pk|key|api|hf|gsk|xai)[-_][\w*.-]{6,}", re.IGNORECASE)


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
        "stream": config.stream,
    }
    for field in config.omit:
        del body[field]
    if config.stream:
        body["stream_options"] = {"include_usage": True}
    if len(completions) > 1:
        body["n"] = len(completions)
    if config.send_seed:
        body["seed"] = completion_seed(sampling.seed, completions[0])
    return json.dumps(body | config.extra_body).encode()


class Wire:
    """An HTTP client for one server. Enter it inside the event loop that uses it."""

    def __init__(self, address: ServerAddress, config: ServerConfig, pace: PaceConfig, key: str | None) -> None:
        import httpx2

        query, in_query = with_secrets(config.query, "lm.server.query")
        more, in_headers = with_secrets(pace.headers, "lm.pace.headers")
        self._url, self._models_url = (
            str(httpx2.URL(f"{address.base_url}/{end}", params=query or None)) for end in ("chat/completions", "models")
        )
        self._timeout_s, self._secrets = pace.timeout_s, [*filter(None, [key]), *in_query, *in_headers]
        headers = {"Content-Type": "application/json", "Accept": "application/json, text/event-stream", **more}
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
            listed = get_dicts(get(json.loads(response.content), "data")) if response.status_code == 200 else []
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
                outcome = read_reply(data)
                is_reply = isinstance(outcome, Reply)
                return outcome if is_reply else replace(outcome, reason=self._clean(outcome.reason))
            asked_wait_s = retry_after_s(response.headers.get("retry-after"), datetime.now(UTC))
            return outcome_of_status(response.status_code, self._clean(error_text(data)), asked_wait_s)

    def _clean(self, text: str) -> str:
        """Without keys, anything like a key, or personal details: servers quote what they got."""
        text = KEY_LIKE.sub("[key]", text)
        for secret in self._secrets:
            text = without_secret(text, secret)
        return redact(text)[0][:REASON_CHARS]


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


def without_secret(text: str, secret: str) -> str:
    """The text with every piece of a secret replaced, also where it stands escaped, in base64 or in part.

    Example:
        >>> without_secret("no access for sk-very-sec..., ask us", "sk-very-secret-0123")
        'no access for [key]..., ask us'
    """
    in_base64 = [base64.b64encode(b"\0" * shift + secret.encode())[4:-4].decode() for shift in range(3)]
    forms = {secret, repr(secret)[1:-1], json.dumps(secret)[1:-1], quote(secret, safe=""), *in_base64}
    for form in forms:
        pieces = {form[at : at + PIECE_CHARS] for at in range(max(1, len(form) - PIECE_CHARS + 1))} - {""}
        width = min(PIECE_CHARS, len(form))
        hidden = {
            n for at in range(len(text) - width + 1) if text[at : at + width] in pieces for n in range(at, at + width)
        }
        if width and hidden:
            marked = "".join("\0" if n in hidden else c for n, c in enumerate(text))
            text = re.sub("\0+", "[key]", marked)
    return text
