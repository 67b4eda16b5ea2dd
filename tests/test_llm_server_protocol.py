import json

import pytest
from pydantic import ValidationError

from recloop.errors import SettingError
from recloop.llm.language_model import Sampling
from recloop.llm.server.config import PaceConfig, ServerAddress, ServerConfig, parse_address, read_key
from recloop.llm.server.cost import BudgetConfig, PriceConfig, Usage, over_budget
from recloop.llm.server.protocol import (
    Choice,
    Failed,
    Failure,
    completion_seed,
    error_text,
    outcome_of_status,
    read_reply,
    request_body,
)  # fmt: skip
from recloop.llm.server.scheduler import share_out
from recloop.records import Prompt


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
    ("status", "said", "kind"),
    [
        (400, "context length exceeded", Failure.REJECTED),
        (422, "", Failure.REJECTED),
        (413, "", Failure.REJECTED),
        (403, "content_policy_violation", Failure.REJECTED),
        (401, "", Failure.FATAL),
        (403, "no access", Failure.FATAL),
        (404, "", Failure.FATAL),
        (302, "", Failure.FATAL),
        (429, "slow down", Failure.THROTTLED),
        (429, "insufficient_quota", Failure.FATAL),
        (408, "", Failure.SERVER),
        (500, "", Failure.SERVER),
        (529, "overloaded", Failure.SERVER),
    ],
)
def test_a_status_says_whether_to_ask_again(status, said, kind):
    assert outcome_of_status(status, said, None).kind is kind


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


def test_seeds_differ_by_completion_and_seed_and_fit_31_bits():
    seeds = {completion_seed(seed, completion) for seed in range(40) for completion in range(40)}
    assert len(seeds) == 1600
    assert all(0 <= seed < 2**31 for seed in seeds)
    assert completion_seed(3, 4) == completion_seed(3, 4)


def test_settings_of_a_request_reach_its_body():
    config = ServerConfig(
        length_field="max_completion_tokens",
        send_seed=False,
        extra_body={"top_k": 4, "chat_template_kwargs": {}},
    )
    sampling, prompt = Sampling(1, 0.5, 0.9, 7, 3), Prompt(1, "", "Hello", 0, 0)
    body = json.loads(request_body(ServerAddress("http://h/v1", "m"), config, prompt, sampling, [2]))
    assert body == {
        "model": "m", "messages": [{"role": "user", "content": "Hello"}], "temperature": 0.5, "top_p": 0.9,
        "max_completion_tokens": 7, "stream": False, "top_k": 4, "chat_template_kwargs": {},
    }  # fmt: skip


def test_more_fields_may_not_replace_our_own():
    with pytest.raises(ValidationError, match="may not set n"):
        ServerConfig(extra_body={"n": 3})


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("openai:", "must be openai:<base_url>#<model>"),
        ("openai:http://h/v1", "must be openai:"),
        ("openai:ftp://h/v1#m", "must be openai:"),
        ("openai:h:80#m", "must be openai:"),
        ("openai:http://user:word@h/v1#m", "may not carry a user, password"),
        ("openai:http://h/v1?key=3#m", "may not carry"),
    ],
)
def test_a_name_that_is_none_is_refused(name, message):
    with pytest.raises(SettingError, match=message):
        parse_address(name)


def test_a_name_is_taken_apart():
    assert parse_address("openai:https://h:8/v1/#org/m:8b") == ServerAddress("https://h:8/v1", "org/m:8b")
    assert ServerAddress("http://[::1]:8/v1", "m").is_loopback
    assert not ServerAddress("http://127.0.0.1.example.org/v1", "m").is_loopback


def test_a_key_comes_from_the_environment_only(monkeypatch):
    assert read_key(PaceConfig()) is None
    monkeypatch.setenv("SOME_KEY", " abc\n")
    assert read_key(PaceConfig(api_key_env="SOME_KEY")) == "abc"


def test_money_is_counted_by_kind_of_token():
    prices = PriceConfig(input=2.0, cached_input=0.5, output=8.0)
    spent = Usage(requests=3, input_tokens=1000, cached_tokens=400, output_tokens=100, wasted_tokens=10)
    # 600 x 2 + 400 x 0.5 + 100 x 8 + 10 x 8
    assert spent.cost(prices) == pytest.approx(2280 / 1e6)
    assert spent.cost(PriceConfig(input=2.0)) == pytest.approx((2000 + 20) / 1e6)
    assert (spent + spent).cost(prices) == pytest.approx(2 * spent.cost(prices))
    assert spent.tokens == 1110


def test_a_budget_names_the_cap_that_is_reached():
    spent, prices = Usage(requests=3, input_tokens=1000, output_tokens=100), PriceConfig(output=1e6)
    assert over_budget(spent, BudgetConfig(), prices) is None
    assert over_budget(spent, BudgetConfig(max_requests=3, max_tokens=1100, max_cost=100), prices) is None
    for name, cap in (("max_requests", 2), ("max_tokens", 1099), ("max_cost", 99.9)):
        assert f"lm.budget.{name} is" in str(over_budget(spent, BudgetConfig(**{name: cap}), prices))


def test_tokens_are_shared_out_in_proportion_and_none_is_lost():
    assert share_out(10, [1, 1, 2]) == [2, 3, 5]
    assert share_out(7, [0, 0]) == [3, 4]
    assert sum(share_out(101, [3, 9, 1, 5])) == 101
    assert share_out(0, []) == []
