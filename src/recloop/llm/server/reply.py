"""What the body of a server's answer means. Nothing in it is believed beyond its bounds; a failure does not raise."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, cast

from recloop.errors import shown

REASON_CHARS = 300
MAX_COUNT = 10_000_000  # tokens; no model reads or writes as many in one request
FILTERS = frozenset({"content_filter", "safety", "recitation", "blocklist", "prohibited_content", "refusal"})
ENDS = frozenset({"stop", "eos", "eos_token", "end_turn", "stop_sequence", "stop_token", "tool_calls", "function_call"})
CUTS = frozenset({"length", "max_tokens", "model_length", "max_output_tokens"})
BREAKS = frozenset({"error", "abort", "aborted", "cancelled", "canceled", "timeout", "server_error", "unavailable"})
REASONING_FIELDS = ("reasoning_content", "reasoning", "thinking")  # DeepSeek and SGLang, vLLM and OpenRouter, Ollama
NO_MORE = b"[DONE]"  # the end of a stream


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
    """One text of an answer.

    is_finished: False when the token limit cut it, or it ended for an unknown reason.
    is_refused: by a filter, or by the model in a field of its own.
    beside: what came in place of a text: reasoning, or the tools that the model called.
    odd_end: a reason for its end that is unknown here; empty where there is none.
    """

    text: str
    is_finished: bool
    is_refused: bool
    beside: str = ""
    calls_tool: bool = False
    odd_end: str = ""


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer.

    input_tokens, cached_tokens, output_tokens: None where the server does not give them, or gives what cannot be.
    note: what was odd about it. model: which one answered, as the server says; empty where it does not.
    """

    choices: tuple[Choice, ...]
    input_tokens: int | None
    cached_tokens: int | None
    output_tokens: int | None
    note: str = ""
    model: str = ""
    has_odd_counts: bool = False


def read_reply(data: bytes) -> Reply | Failed:
    """The answer in a body of status 200, streamed or whole; a body that holds none counts as cut off on the way."""
    text = data.decode("utf-8", "replace")
    try:
        value = _joined(data) if data.lstrip().startswith((b"data:", b":", b"event:")) else json.loads(text)
    except (ValueError, RecursionError) as error:
        return Failed(Failure.CUT, f"the answer is not JSON ({error})"[:REASON_CHARS], None, 200)
    written = get_dicts(get(value, "choices"))
    choices = tuple(map(_choice, written))
    if not choices:
        return Failed(Failure.CUT, f"the answer has no choices ({error_text(data)})"[:REASON_CHARS], None, 200)
    broken = [end for end in map(_end, written) if end in BREAKS]
    if broken:
        return Failed(Failure.SERVER, f"the answer ended with {broken[0]!r}", None, 200)
    usage, model = get(value, "usage"), get(value, "model")
    counts = [get(usage, *keys) for keys in (("prompt_tokens",), ("completion_tokens",))]
    read, output = map(_count, counts)
    cached = get(usage, "prompt_tokens_details", "cached_tokens")
    is_too_many = isinstance(cached, int) and read is not None and cached > read
    return Reply(
        choices,
        read,
        read if is_too_many else _count(cached),
        output,
        "bytes that are no UTF-8 were left out" if "\ufffd" in text else "",
        shown(model)[:REASON_CHARS] if isinstance(model, str) else "",
        is_too_many or any(given is not None and _count(given) is None for given in (*counts, cached)),
    )


def error_text(data: bytes) -> str:
    """What a server says about an error, in one line."""
    text = data[:4000].decode("utf-8", "replace")
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        value = None
    inner = get(value, "error") or value
    if isinstance(inner, dict):
        parts = [get(inner, key) for key in ("message", "detail", "code", "type")]
        return shown(" ".join(" ".join(str(part) for part in parts if part).split()) or text)
    return shown(" ".join(str(inner if isinstance(value, dict) else text).split()))


def _choice(choice: dict[str, Any]) -> Choice:
    message, ended = get(choice, "message"), _end(choice)
    content, refusal, calls = (get(message, key) for key in ("content", "refusal", "tool_calls"))
    if isinstance(content, list):
        content = "".join(str(part.get("text") or "") for part in get_dicts(content))
    text = content if isinstance(content, str) else ""
    reasoning = next((told for key in REASONING_FIELDS if isinstance(told := get(message, key), str) and told), "")
    calls = calls or get(message, "function_call")
    is_known = not ended or ended in ENDS | CUTS | FILTERS
    return Choice(
        text or (str(refusal) if refusal else ""),
        is_known and ended not in CUTS,
        bool(refusal) or ended in FILTERS,
        "" if text.strip() else json.dumps(calls, ensure_ascii=False) if calls else reasoning,
        bool(calls) and not text.strip(),
        "" if is_known else shown(ended)[:40],
    )


def _end(choice: dict[str, Any]) -> str:
    ended = choice.get("finish_reason")
    return "" if ended is None else str(ended).lower()


def _joined(data: bytes) -> dict[str, Any]:
    """The whole answer of a stream's pieces; ValueError where it does not come to its end."""
    texts: dict[int, dict[str, str]] = {}
    ends: dict[int, Any] = {}
    whole: dict[str, Any] = {}
    is_over = False
    for line in data.splitlines():
        field, _, rest = line.partition(b":")
        if field != b"data" or is_over:
            continue
        if rest.strip() == NO_MORE:
            is_over = True
            continue
        piece = json.loads(rest)
        whole |= {key: piece[key] for key in ("usage", "model", "error") if get(piece, key)}
        for choice in get_dicts(get(piece, "choices")):
            place = choice.get("index", 0)
            parts = texts.setdefault(place if isinstance(place, int) else 0, {})
            for key in ("content", "refusal", *REASONING_FIELDS):
                if isinstance(told := get(choice, "delta", key), str):
                    parts[key] = parts.get(key, "") + told
            if get(choice, "delta", "tool_calls"):
                parts["tool_calls"] = parts.get("tool_calls", "") + json.dumps(get(choice, "delta", "tool_calls"))
            if choice.get("finish_reason"):
                ends[place] = choice["finish_reason"]
    if not is_over and len(ends) < len(texts):
        raise ValueError("the stream ended early")
    choices = [{"message": texts[place], "finish_reason": ends.get(place)} for place in sorted(texts)]
    return whole | {"choices": choices}


def is_other_model(said: str, asked: str) -> bool:
    """Whether an answer names another model than was asked; a version, tag or folder around the name is none.

    Example:
        >>> is_other_model("gpt-4o-2024-08-06", "gpt-4o"), is_other_model("llama-8b", "gpt-4o")
        (False, True)
    """
    ends = [name.rstrip("/").rsplit("/", 1)[-1].lower().removesuffix(".gguf") for name in (said, asked)]
    return bool(said) and not (ends[0].startswith(ends[1]) or ends[1].startswith(ends[0]))


def remedy(said: str) -> str:
    """What to do about a server that takes no prompt, by what it says."""
    said = said.lower()
    if "max_completion_tokens" in said:
        return 'set lm.server.length_field = "max_completion_tokens"'
    for field in ("top_p", "temperature"):
        if field in said:
            return f'leave the field out with lm.server.omit = ["{field}"]'
    if "seed" in said:
        return "leave the field out with lm.server.send_seed = false"
    if "stream" in said:
        return "ask for a stream with lm.server.stream = true"
    return "check model name, lm.server and lm.max_tokens"


def get(value: Any, *keys: str) -> Any:
    """What lies at these keys, one in the other; None where a value on the way is no JSON object."""
    for key in keys:
        value = cast(dict[str, Any], value).get(key) if isinstance(value, dict) else None
    return value


def get_dicts(value: Any) -> Sequence[dict[str, Any]]:
    """The JSON objects of a list; none where it is no list."""
    parts = cast(list[Any], value) if isinstance(value, list) else []
    return [cast(dict[str, Any], part) for part in parts if isinstance(part, dict)]


def _count(value: Any) -> int | None:
    is_whole = isinstance(value, int) and not isinstance(value, bool)
    return value if is_whole and 0 <= value <= MAX_COUNT else None
