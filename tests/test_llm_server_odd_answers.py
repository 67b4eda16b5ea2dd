"""Odd answers of a server, from the wire to the cache and the account."""

import json
from dataclasses import replace

import pytest

from fake_server import FakeServer
from recloop.errors import BudgetError, GenerationError, SettingError
from recloop.llm.cache import CompletionCache
from recloop.llm.config import LmConfig
from recloop.llm.language_model import Sampling
from recloop.llm.sampling import sample_completions
from recloop.llm.server.client import ServerLM
from recloop.llm.server.config import PaceConfig, ServerConfig
from recloop.llm.server.cost import BudgetConfig, PriceConfig, describe_server_usage
from recloop.llm.server.protocol import without_secret
from recloop.progress import Progress
from recloop.records import CompletionStatus, Prompt

SAMPLING = Sampling(num_completions=2, temperature=1.0, top_p=1.0, max_tokens=32, seed=5)
PROMPTS = [Prompt(user, "You summarise.", f"History number {user}.", 1, 0) for user in range(6)]
FAST = PaceConfig(timeout_s=5.0, max_outage_s=3.0)
KEY = "sk-very-secret-0123456789"


@pytest.fixture(autouse=True)
def short_waits(monkeypatch):
    monkeypatch.setattr("recloop.llm.server.rate_limits.BACKOFF_BASE_S", 0.02)


@pytest.fixture
def cache(tmp_path):
    with CompletionCache(tmp_path / "completions.sqlite") as opened:
        yield opened


def lm_at(at, **sections):
    return ServerLM(LmConfig(**{"name": f"openai:{at.base_url}#m", "pace": FAST} | sections))


def with_choices(**fields):
    """Each choice of an answer with other fields; `message` is added to what is there."""

    def change(seen, value):
        for choice in value["choices"]:
            choice["message"] |= fields.get("message", {})
            choice |= {key: told for key, told in fields.items() if key != "message"}
        return json.dumps(value).encode()

    return change


def ask(at, cache, **sections):
    completions = sample_completions(lm_at(at, **sections), PROMPTS, SAMPLING, cache)
    return [one for completions_N in completions.completions_UN for one in completions_N]


def test_an_unknown_end_is_unfinished_counted_and_shown(cache):
    with FakeServer(change=with_choices(finish_reason="quantum")) as server:
        answers = ask(server, cache)
    assert {(one.status, one.is_finished) for one in answers} == {(CompletionStatus.OK, False)}
    assert {one.reason for one in answers} == {"the server ended it with 'quantum'"}
    assert cache.usage().odd_ends == 12
    note = {"server": cache.usage().as_note(PriceConfig())}
    assert any(line.startswith("12 answers ended for a reason") for line in describe_server_usage({"sample": note}))


def test_an_answer_broken_off_is_asked_for_again(cache):
    met = set()

    def change(seen, value):
        is_first = seen.prompt not in met
        met.add(seen.prompt)
        return with_choices(finish_reason="error" if is_first else "stop")(seen, value)

    with FakeServer(change=change) as server:
        answers = ask(server, cache)
        assert len(server.seen) == 12
    assert {(one.status, one.is_finished) for one in answers} == {(CompletionStatus.OK, True)}


@pytest.mark.parametrize(
    ("message", "ended", "reason", "raw"),
    [
        ({"content": None, "reasoning_content": "Hm"}, "length", "reasoning used up max_tokens", "Hm"),
        ({"content": "", "reasoning": "Hm"}, "stop", "nothing but reasoning", "Hm"),
        ({"content": None, "tool_calls": [{"id": "a"}]}, "tool_calls", "called a tool", '[{"id": "a"}]'),
    ],
)
def test_an_answer_without_a_text_says_why_and_keeps_what_came(cache, message, ended, reason, raw):
    with FakeServer(change=with_choices(message=message, finish_reason=ended)) as server:
        answers = ask(server, cache)
        assert len(server.seen) == 6
    for one in answers:
        assert (one.text, one.status, one.raw) == ("", CompletionStatus.EMPTY, raw)
        assert reason in one.reason


def test_where_reasoning_leaves_no_answer_at_all_the_error_says_what_to_raise(tmp_path):
    many = [Prompt(user, "", f"History {user}.", 1, 0) for user in range(20)]
    with (
        FakeServer(change=with_choices(message={"content": None, "reasoning": "Hm"}, finish_reason="length")) as server,
        CompletionCache(tmp_path / "c.sqlite") as cache,
        pytest.raises(GenerationError, match=r"raise lm.max_tokens"),
    ):
        sample_completions(lm_at(server), many, SAMPLING, cache)


def test_a_server_that_only_streams_is_read(cache):
    def change(seen, value):
        pieces = [
            {"choices": [{"index": one["index"], "delta": {"content": part}} for one in value["choices"]]}
            for part in ("Likes ", "Noir.")
        ]
        ends = {"choices": [{"index": one["index"], "delta": {}, "finish_reason": "stop"} for one in value["choices"]]}
        lines = [*pieces, ends, {"choices": [], "usage": value["usage"]}]
        return b"".join(b"data: %s\n\n" % json.dumps(line).encode() for line in lines) + b"data: [DONE]\n\n"

    with FakeServer(change=change) as server:
        answers = ask(server, cache, server=ServerConfig(stream=True))
        assert server.seen[0].body["stream"] is True
    assert {one.text for one in answers} == {"Likes Noir."}
    assert cache.usage().input_tokens == 600


def test_another_model_is_counted_and_stops_where_weights_matter(cache, tmp_path):
    def change(seen, value):
        return json.dumps(value | {"model": "somebody-else"}).encode()

    with FakeServer(change=change) as server:
        answers = ask(server, cache)
        assert {one.reason for one in answers} == {"answered by somebody-else"}
        assert cache.usage().other_models == 6
        weights = ServerConfig(weights=f"transformers:{tmp_path}")
        with pytest.raises(GenerationError, match=r"must answer as m, .* got an answer of somebody-else; serve"):
            sample_completions(lm_at(server, server=weights), PROMPTS, replace(SAMPLING, seed=6), cache)


@pytest.mark.parametrize(
    "usage",
    [
        {"prompt_tokens": 10, "completion_tokens": 20, "prompt_tokens_details": {"cached_tokens": 10**9}},
        {"prompt_tokens": 10**30, "completion_tokens": 20},
        {"prompt_tokens": 10, "completion_tokens": -(10**6)},
        {"prompt_tokens": 1e400, "completion_tokens": "many"},
        {"prompt_tokens": [], "completion_tokens": {}},
    ],
)
def test_odd_usage_neither_lowers_the_cost_nor_loses_an_answer(cache, usage):
    prices = PriceConfig(input=100.0, cached_input=1.0, output=100.0)

    def change(seen, value):
        return json.dumps(value | {"usage": usage}).encode()

    with FakeServer(change=change) as server:
        answers = ask(server, cache, prices=prices, budget=BudgetConfig(max_cost=1000.0))
        assert len(server.seen) == 6
    assert all(one.status is CompletionStatus.OK for one in answers)
    assert cache.usage().odd_counts == 6
    assert 0 < cache.usage().cost(prices) < 1


def test_odd_usage_does_not_pass_a_cap(cache):
    prices, budget = PriceConfig(input=1e6, output=1e6), BudgetConfig(max_cost=200.0)

    def change(seen, value):
        return json.dumps(value | {"usage": {"prompt_tokens": -1, "completion_tokens": -1}}).encode()

    with FakeServer(change=change) as server, pytest.raises(BudgetError, match="max_cost"):
        ask(server, cache, prices=prices, budget=budget)
    assert cache.usage().cost(prices) <= 200


def test_query_and_headers_are_sent_and_secrets_come_from_the_environment(cache, monkeypatch):
    monkeypatch.setenv("RECLOOP_TEST_KEY", KEY)
    pace = FAST.model_copy(update={"headers": {"api-key": "env:RECLOOP_TEST_KEY", "X-Org": "a team"}})
    with FakeServer() as server:
        ask(server, cache, server=ServerConfig(query={"api-version": "2026-01-01"}), pace=pace)
    seen = server.seen[0]
    assert seen.path == "/v1/chat/completions?api-version=2026-01-01"
    assert (seen.headers["api-key"], seen.headers["x-org"]) == (KEY, "a team")


def test_fields_can_be_left_out(cache):
    with FakeServer() as server:
        ask(server, cache, server=ServerConfig(omit=("temperature", "top_p"), send_seed=False))
    assert set(server.seen[0].body) == {"model", "messages", "max_tokens", "stream", "n"}


def test_new_settings_leave_the_names_of_older_completions_alone():
    with FakeServer() as server:
        plain = lm_at(server).name
        assert lm_at(server, server=ServerConfig(stream=True)).name == plain
        changes = ({"omit": ("top_p",)}, {"query": {"a": "b"}}, {"reasoning_marks": ("<plan>...</plan>",)})
        assert len({plain, *(lm_at(server, server=ServerConfig(**change)).name for change in changes)}) == 4


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"pace": {"api_key_env": KEY}}, "must be the name of an environment variable"),
        ({"pace": {"headers": {"api-key": KEY}}}, "may hold no secret, got one for api-key"),
        ({"pace": {"headers": {"Authorization": f"Bearer {KEY}"}}}, "may hold no secret, got one for Authorization"),
        ({"pace": {"headers": {"X-Org": "a\r\nHost: b"}}}, "plain ASCII on one line"),
        ({"server": {"query": {"key": KEY}}}, "may hold no secret, got one for key"),
        ({"server": {"reasoning_marks": ["<plan>"]}}, "must be BEGIN...END"),
    ],
)
def test_a_secret_in_the_settings_is_refused_and_not_shown(section, message):
    from recloop.settings import validate

    with pytest.raises(SettingError) as caught:
        validate(LmConfig, {"name": "openai:http://127.0.0.1:1/v1#m", **section})
    assert message in str(caught.value)
    assert "secret-0123" not in str(caught.value)


@pytest.mark.parametrize("key", [f"{KEY}\nX: y", f"{KEY}\u00e9", f"{KEY} and more", f"{KEY}\x1b[2J"])
def test_a_key_that_cannot_be_sent_is_refused_and_not_shown(cache, monkeypatch, key):
    monkeypatch.setenv("RECLOOP_TEST_KEY", key)
    with FakeServer() as server, pytest.raises(SettingError) as caught:
        ask(server, cache, pace=FAST.model_copy(update={"api_key_env": "RECLOOP_TEST_KEY"}))
    assert "must be one word of plain ASCII" in str(caught.value)
    assert "secret" not in str(caught.value)
    assert not server.seen


@pytest.mark.parametrize(
    "quoted",
    [
        KEY,
        repr(KEY),
        KEY[:12] + "...",
        "..." + KEY[-8:],
        KEY.replace("-", "%2D"),
        "c2stdmVyeS1zZWNyZXQtMDEyMzQ1Njc4OQ==",  # in base64
        "ZXI6c2stdmVyeS1zZWNyZXQtMDEyMzQ1Njc4OQ",  # in base64, behind "er:"
    ],
)
def test_no_form_of_a_key_is_quoted(quoted):
    told = without_secret(f"no access for {quoted} here", KEY)
    assert told.startswith("no access for")
    assert told.endswith("here")
    pieces = {text[at : at + 7] for text in (KEY, quoted[12:-6]) for at in range(len(text) - 6)}
    assert not any(piece in told for piece in pieces)


def test_what_is_taken_out_of_prompts_is_shown_once(cache, capsys):
    import sys

    prompts = [Prompt(user, "", f"Call +44 20 7946 0958 or ann{user % 2}@example.org", 1, 0) for user in range(4)]
    with FakeServer() as server:
        sample_completions(lm_at(server), prompts, SAMPLING, cache, Progress(sys.stdout))
    said = capsys.readouterr().out
    assert "taken out of prompts before they are sent" in said
    assert said.count("+44 20 7946 0958") == 1
    assert "ann0@example.org" in said
