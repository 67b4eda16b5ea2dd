import json

import pytest
from pydantic import ValidationError

from recloop.errors import SettingError
from recloop.llm.language_model import Sampling
from recloop.llm.server.config import PaceConfig, ServerAddress, ServerConfig, parse_address, read_key
from recloop.llm.server.cost import BudgetConfig, PriceConfig, Usage, over_budget, share_out
from recloop.llm.server.protocol import completion_seed, outcome_of_status, request_body
from recloop.llm.server.reply import Failure
from recloop.records import Prompt


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
    spent = Usage(
        requests=3, input_tokens=1000, cached_tokens=400, output_tokens=100, wasted_tokens=10, wasted_output_tokens=7
    )
    # (600 + 3) x 2 + 400 x 0.5 + (100 + 7) x 8
    assert spent.cost(prices) == pytest.approx(2262 / 1e6)
    assert spent.cost(PriceConfig(input=2.0)) == pytest.approx((2000 + 6) / 1e6)
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
