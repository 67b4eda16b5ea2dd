"""Server answers: bodies, statuses, and what readers of replies make of the texts."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fuzz.mutate import mutated_bytes, mutated_json, nested, odd_text
from fuzz.target import Case, Kind, require
from recloop.encoders.claims import ClaimsEncoder, split_polarity
from recloop.errors import RecloopError
from recloop.llm.completion_text import first_sentences, tidy
from recloop.llm.server.protocol import Failed, Reply, error_text, outcome_of_status, read_reply
from recloop.llm.server.rate_limits import retry_after_s
from recloop.llm.server.redaction import redact
from recloop.prompts.claims import parse_claims
from recloop.prompts.next_item import parse_ranking
from recloop.prompts.reflection import parse_hints, says_yes
from recloop.prompts.request_answer import read_answer
from recloop.records import CompletionStatus

TITLES = (
    "Heat",
    "The Matrix (1999)",
    "Alien",
    "Ace::Fade",
    "8MM",
    "Iron Tide",
    "L'Eclisse",
    "(500) Days",
    "1984",
    "Up",
)
TEXTS = (
    "By genre: likes Drama, War; dislikes Comedy. By era: mixed.", "<think>Two dramas.</think>Likes **drama**.",
    "Sure! 1. Alien, 2. Heat and Up", "1. Heat\n2. Alien\n- The Matrix", "Wanted: war.\n\n\\boxed{Iron Tide ; Heat}",
    "\\boxed{\\text{Up}} \\boxed{Alien}", "Hint: prefer the same genre as the latest items.\n2. Mind the era of films.",
    "I'm sorry, but I can't help with that.", "<|channel|>analysis<|message|>x<|channel|>final<|message|>Likes war.",
    "yes.",
    "```\nBy genre: likes War.\n```", '<tool_call>{"name": "x"}</tool_call>', "[THINK]hm[/THINK] Likes War.",
)  # fmt: skip
PIECES = (
    "<think>", "</think>", "\\boxed{", "}", "{", "**", "`", "1. ", "\n", ", ", "; ", " and ", "By genre: likes ",
    ". ", "(", ")",
    '"', "<", "<|", "|>", "[INST]", "\u0301", "a", "Heat ", "\\text{", "> ", "- ", "I'm sorry ", ":", "|", "@", "1",
    ".", "::", "/",
)  # fmt: skip
ERRORS: tuple[Any, ...] = (
    {"error": {"message": "bad", "type": "x", "code": 5}}, {"error": "no"}, {"detail": [{"msg": "x"}]}, [], "text",
    None,
    {"object": "error", "message": {"a": []}},
)  # fmt: skip


def _make(work: Path) -> Case:  # noqa: ARG001
    def case(rng: random.Random, folder: Path) -> Callable[[], None]:
        raw = _body(rng)
        (folder / "answer").write_bytes(raw[:1_000_000])
        status, wait = rng.choice((200, 200, 200, 400, 401, 429, 500, rng.randrange(600))), odd_text(rng)
        is_finished = rng.random() < 0.8
        return lambda: _read(raw, status, wait, is_finished=is_finished)

    return case


def _body(rng: random.Random) -> bytes:
    if rng.random() < 0.1:
        return mutated_json(json.dumps(rng.choice(ERRORS)).encode(), rng)
    message: dict[str, Any] = {"role": "assistant", "content": _text(rng)}
    usage = {"prompt_tokens": 9, "completion_tokens": 5, "prompt_tokens_details": {"cached_tokens": 2}}
    ended = rng.choice(("stop", "length", "content_filter", "error", None, odd_text(rng)))
    choices = [{"index": 0, "message": message, "finish_reason": ended}] * rng.choice((1, 1, 2))
    body = json.dumps({"id": "x", "model": "m", "choices": choices, "usage": usage}).encode()
    kind = rng.random()
    if kind < 0.4:
        return body
    if kind < 0.42:
        return b'{"choices": ' + nested(100_000).encode() + b"}"
    return mutated_json(body, rng) if kind < 0.8 else mutated_bytes(body, rng)


def _text(rng: random.Random) -> str:
    kind = rng.random()
    if kind < 0.6:
        return mutated_bytes(rng.choice(TEXTS).encode(), rng).decode("utf-8", "replace")
    if kind < 0.9:
        return "".join(rng.choice(PIECES) for _ in range(rng.randrange(60)))
    return rng.choice(PIECES) * rng.choice((500, 5_000, 19_000)) + rng.choice(PIECES)


def _read(raw: bytes, status: int, wait: str, *, is_finished: bool) -> None:
    """What a run does with an answer. Nothing here may raise, not even an error of recloop's own."""
    try:
        waited = retry_after_s(wait, datetime.now(UTC))
        require(waited is None or 0 <= waited < float("inf"), f"a wait of {waited} s")
        if status != 200:
            failed = outcome_of_status(status, error_text(raw)[:300], waited)
            require(len(failed.reason) < 5_000 and bool(failed.reason), "a reason of no fit length")
            return
        reply = read_reply(raw)
        if isinstance(reply, Failed):
            require(bool(reply.reason), "a failure without a reason")
            return
        _check_counts(reply)
        for choice in reply.choices:
            text, what, _ = tidy(choice.text)
            require((what is CompletionStatus.OK) == bool(text.strip()), f"{what} with the text {text[:80]!r}")
            text.encode()
            require(
                not any(ord(char) < 32 and char not in "\n\t" for char in text), f"control characters: {text[:80]!r}"
            )
            read_text(text, is_finished=is_finished)
    except RecloopError as error:
        require(False, f"an answer raised {error!r}")


def _check_counts(reply: Reply) -> None:
    for count in (reply.input_tokens, reply.cached_tokens, reply.output_tokens):
        require(count is None or 0 <= count < 2**63, f"{count} tokens")


def read_text(text: str, *, is_finished: bool) -> None:
    """Every reader of replies."""
    parsed = parse_claims(text, ("genre", "era"))
    require(len(set(parsed.claims)) == len(parsed.claims), "a claim twice")
    ranking = parse_ranking(text, TITLES, 10)
    places = set(ranking.places)
    require(len(places) == len(ranking.places) and places <= set(range(len(TITLES))), f"ranks {ranking.places}")
    answer = read_answer(text, TITLES, is_finished=is_finished)
    require(set(answer.ranked) <= set(range(len(TITLES))), f"ranks {answer.ranked}")
    require("".join(text[p.start : p.end] for p in answer.paragraphs) == text, "paragraphs do not cover the text")
    hints = parse_hints(text, TITLES, 3)
    require(len(hints.hints) <= 3, "more hints than asked for")
    says_yes(text)
    split_polarity(text)
    ClaimsEncoder().encode([text])
    redact(text)
    first_sentences(text, 2)


KIND = Kind("servers", 5_000, _make)
