"""What a server's answer means, odd ones included; the rows of odd answers are those that servers were seen to give."""

import json

import pytest

from recloop.llm.server.reply import (
    MAX_COUNT,
    Choice,
    Failed,
    Failure,
    Reply,
    error_text,
    is_other_model,
    read_reply,
    remedy,
)


def body_of(*messages, usage=None, **more):
    choices = [{"message": message, "finish_reason": "stop"} | more for message in messages]
    return json.dumps({"choices": choices} | ({"usage": usage} if usage else {})).encode()


@pytest.mark.parametrize(
    ("message", "more", "choice"),
    [
        ({"content": "a"}, {}, Choice("a", True, False)),
        ({"content": "a"}, {"finish_reason": "length"}, Choice("a", False, False)),
        ({"content": None}, {}, Choice("", True, False)),
        ({"content": None, "refusal": "No."}, {}, Choice("No.", True, True)),
        ({"content": "a"}, {"finish_reason": "content_filter"}, Choice("a", True, True)),
        ({"content": [{"text": "a"}, {"text": "b"}, "c"]}, {}, Choice("ab", True, False)),
        ({"content": "b", "reasoning_content": "long"}, {}, Choice("b", True, False)),
        (None, {}, Choice("", True, False)),
    ],
)  # fmt: skip
def test_choices_are_read_as_servers_write_them(message, more, choice):
    assert read_reply(body_of(message, **more)).choices == (choice,)


def test_usage_is_read_where_there_is_any():
    usage = {"prompt_tokens": 9, "completion_tokens": 4, "prompt_tokens_details": {"cached_tokens": 3}}
    reply = read_reply(body_of({"content": "a"}, usage=usage))
    assert (reply.input_tokens, reply.cached_tokens, reply.output_tokens) == (9, 3, 4)
    odd = read_reply(body_of({"content": "a"}, usage={"prompt_tokens": "9", "completion_tokens": -1}))
    assert (odd.input_tokens, odd.cached_tokens, odd.output_tokens) == (None, None, None)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'{"choices": []}',
        b'{"choices": 3}',
        b'{"choices": [3]}',
        b'{"error": "busy"}',
        b"[" * 100_000,
    ],
)
def test_what_is_no_answer_counts_as_cut_off(body):
    outcome = read_reply(body)
    assert isinstance(outcome, Failed)
    assert outcome.kind is Failure.CUT
    assert len(outcome.reason) <= 300


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b'{"error": {"message": "too  long", "code": "c"}}', "too long c"),
        (b'{"detail": "no\\nmodel"}', "no model"),
        (b'{"error": "busy"}', "busy"),
        (b"<html>Bad\n Gateway</html>", "<html>Bad Gateway</html>"),
        (b"\xff", "\ufffd"),
    ],
)
def test_what_a_server_says_becomes_one_line(data, text):
    assert error_text(data) == text


CALLS = [{"type": "function", "function": {"name": "look_up", "arguments": "{}"}}]


@pytest.mark.parametrize(
    ("message", "ended", "choice"),
    [
        ({"content": None, "reasoning_content": "I see"}, "length", Choice("", False, False, "I see")),
        ({"content": "", "reasoning": "I see"}, "stop", Choice("", True, False, "I see")),
        ({"content": None, "tool_calls": CALLS}, "tool_calls", Choice("", True, False, json.dumps(CALLS), True)),
        ({"content": "a", "tool_calls": CALLS}, "tool_calls", Choice("a", True, False)),
        ({"content": "a"}, "MAX_TOKENS", Choice("a", False, False)),
        ({"content": ""}, "SAFETY", Choice("", True, True)),
        ({"content": "a"}, "end_turn", Choice("a", True, False)),
        ({"content": "a"}, None, Choice("a", True, False)),
        ({"content": "a"}, "quantum\x1b[2J", Choice("a", False, False, odd_end="quantum\\x1b[2j")),
        ({"content": "a"}, 7, Choice("a", False, False, odd_end="7")),
    ],
)  # fmt: skip
def test_ends_tools_and_reasoning_are_told_apart(message, ended, choice):
    assert read_reply(body_of(message, finish_reason=ended)).choices == (choice,)


@pytest.mark.parametrize("ended", ["error", "abort", "ABORTED", "timeout"])
def test_an_answer_that_the_server_broke_off_is_asked_for_again(ended):
    outcome = read_reply(body_of({"content": "half"}, finish_reason=ended))
    assert isinstance(outcome, Failed)
    assert outcome.kind is Failure.SERVER


@pytest.mark.parametrize(
    ("usage", "counts", "is_odd"),
    [
        ({"prompt_tokens": 9, "prompt_tokens_details": {"cached_tokens": 90}}, (9, 9, None), True),
        ({"prompt_tokens": 10**30, "completion_tokens": 3}, (None, None, 3), True),
        ({"prompt_tokens": MAX_COUNT, "completion_tokens": MAX_COUNT + 1}, (MAX_COUNT, None, None), True),
        ({"prompt_tokens": 9, "completion_tokens": -3}, (9, None, None), True),
        ({"prompt_tokens": True, "completion_tokens": 2.5}, (None, None, None), True),
        ({}, (None, None, None), False),
        ({"prompt_tokens": 9, "completion_tokens": 3, "prompt_tokens_details": None}, (9, None, 3), False),
    ],
)  # fmt: skip
def test_numbers_of_tokens_are_believed_within_bounds(usage, counts, is_odd):
    reply = read_reply(body_of({"content": "a"}, usage=usage))
    assert isinstance(reply, Reply)
    assert (reply.input_tokens, reply.cached_tokens, reply.output_tokens) == counts
    assert reply.has_odd_counts == is_odd


def stream_of(*pieces, end=b"data: [DONE]\n\n"):
    return b"".join(b"data: " + json.dumps(piece).encode() + b"\n\n" for piece in pieces) + end


def piece(text=None, index=0, ended=None, **more):
    delta = {} if text is None else {"content": text}
    return {"choices": [{"index": index, "delta": delta, "finish_reason": ended}], "model": "m"} | more


def test_a_stream_is_read_as_the_answer_it_carries():
    usage = {"choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": 4}}
    reply = read_reply(
        b": ping\n\n" + stream_of(piece("Likes "), piece("War", 1), piece("Noir"), piece(ended="stop"),
                                  piece(index=1, ended="length"), usage)
    )  # fmt: skip
    assert isinstance(reply, Reply)
    assert reply.choices == (Choice("Likes Noir", True, False), Choice("War", False, False))
    assert (reply.input_tokens, reply.output_tokens, reply.model) == (9, 4, "m")


@pytest.mark.parametrize(
    "body",
    [
        stream_of(piece("half"), end=b""),
        stream_of(piece("half"), end=b"data: {broken"),
        stream_of({"error": {"message": "overloaded"}}),
        stream_of(3),
    ],
)
def test_a_stream_that_ends_early_is_cut(body):
    outcome = read_reply(body)
    assert isinstance(outcome, Failed)
    assert outcome.kind is Failure.CUT


def test_what_a_server_says_cannot_steer_a_terminal():
    assert error_text(b'{"error": {"message": "\\u001b[2Jbusy \\u202e"}}') == "\\x1b[2Jbusy \\u202e"
    reply = read_reply(json.dumps({"choices": [{"message": {"content": "a"}}], "model": "m\x07"}).encode())
    assert isinstance(reply, Reply)
    assert reply.model == "m\\x07"


@pytest.mark.parametrize(
    ("said", "asked", "is_other"),
    [
        ("gpt-4o-2024-08-06", "gpt-4o", False),
        ("org/Model", "org/model", False),
        ("/models/llama-8b.gguf", "llama-8b", False),
        ("runs/lm/trained.s0@main", "/data/runs/lm/trained.s0", False),
        ("llama3:latest", "llama3", False),
        ("", "anything", False),
        ("llama-8b", "gpt-4o", True),
        ("base", "trained.s0", True),
    ],
)
def test_another_model_is_told_by_its_name(said, asked, is_other):
    assert is_other_model(said, asked) == is_other


@pytest.mark.parametrize(
    ("said", "do"),
    [
        ("Unsupported parameter: 'top_p' is not supported with this model.", 'lm.server.omit = ["top_p"]'),
        ("'temperature' does not support 0.7", 'lm.server.omit = ["temperature"]'),
        ("Use 'max_completion_tokens' instead.", 'lm.server.length_field = "max_completion_tokens"'),
        ("unknown field seed", "lm.server.send_seed = false"),
        ("stream must be true", "lm.server.stream = true"),
        ("no", "check model name"),
    ],
)
def test_what_a_server_refuses_names_the_setting_for_it(said, do):
    assert do in remedy(said)
