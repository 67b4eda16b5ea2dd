"""A language model behind a server that fails in every way: nothing is lost, nothing is asked for twice."""

import json
import logging
import threading
import time
from dataclasses import replace

import pytest

from fake_server import FakeServer, Seen, text_for
from recloop.errors import BudgetError, GenerationError, SettingError
from recloop.llm.bundled import bundled_lm_folder
from recloop.llm.cache import CompletionCache
from recloop.llm.config import LmConfig
from recloop.llm.language_model import Sampling
from recloop.llm.sampling import sample_completions
from recloop.llm.server.client import ServerLM
from recloop.llm.server.config import PaceConfig, ServerConfig
from recloop.llm.server.cost import BudgetConfig, PriceConfig, Usage
from recloop.llm.server.protocol import completion_seed
from recloop.progress import Step
from recloop.records import CompletionStatus, Prompt
from recloop.testing import check_language_model

pytestmark = pytest.mark.slow

SAMPLING = Sampling(num_completions=4, temperature=1.0, top_p=1.0, max_tokens=32, seed=5)
FAST = PaceConfig(timeout_s=5.0, max_outage_s=5.0)
KEY = "sk-very-secret-0123456789"


def prompts_for(num, first=0):
    return [Prompt(user, "You summarise.", f"History number {user}.", 1, 0) for user in range(first, num)]


def open_lm(at, **changes):
    """A model at the server; `changes` are sections of its settings, or arguments of ServerLM."""
    sections = {name: changes.pop(name) for name in ("server", "pace", "budget", "prices") if name in changes}
    config = LmConfig(**{"name": f"openai:{at.base_url}#m", "pace": FAST} | sections)
    return ServerLM(config, **changes)


@pytest.fixture(autouse=True)
def short_waits(monkeypatch):
    monkeypatch.setattr("recloop.llm.server.rate_limits.BACKOFF_BASE_S", 0.02)


@pytest.fixture
def cache(tmp_path):
    with CompletionCache(tmp_path / "completions.sqlite") as opened:
        yield opened


def outgoing_of(prompt):
    return f"{prompt.system}\n{prompt.text}"


def require_each_completion_once(server, prompts, completions, num_completions=4):
    """Every completion is there, is a text the server wrote for that prompt, and was delivered exactly once."""
    assert [completions_N[0].user for completions_N in completions.completions_UN] == [p.user for p in prompts]
    delivered = server.delivered()
    for prompt, completions_N in zip(prompts, completions.completions_UN, strict=True):
        assert [completion.completion for completion in completions_N] == list(range(num_completions))
        assert delivered[outgoing_of(prompt)] == num_completions
        written = [text for seen in server.seen if seen.prompt == outgoing_of(prompt) for text in seen.delivered]
        if all(completion.status is CompletionStatus.OK and not completion.reason for completion in completions_N):
            assert sorted(completion.text for completion in completions_N) == sorted(written)


def sometimes(fault, every=3):
    """The fault at each prompt's first request, for every third prompt."""
    met = set()
    lock = threading.Lock()

    def choose(seen: Seen):
        with lock:
            is_first = seen.prompt not in met
            met.add(seen.prompt)
        return fault if is_first and len(met) % every == 1 else ""

    return choose


def test_a_request_says_what_is_wanted_and_not_whose_it_is(cache):
    sampling = replace(SAMPLING, temperature=0.7, top_p=0.9)
    with FakeServer() as server:
        completions = sample_completions(open_lm(server), prompts_for(1234, 1233), sampling, cache)
    (seen,) = server.seen
    assert seen.body == {
        "model": "m",
        "messages": [
            {"role": "system", "content": "You summarise."},
            {"role": "user", "content": "History number 1233."},
        ],
        "temperature": 0.7,
        "top_p": 0.9,
        "max_tokens": 32,
        "stream": False,
        "n": 4,
        "seed": completion_seed(5, 0),
    }
    assert "authorization" not in seen.headers
    assert [d.text for d in completions.completions_UN[0]] == [
        text_for(outgoing_of(prompts_for(1234, 1233)[0]), completion_seed(5, 0), index) for index in range(4)
    ]


def test_with_one_completion_a_request_the_contract_of_language_models_holds():
    with FakeServer() as server:
        check_language_model(open_lm(server, server=ServerConfig(completions_per_request=1)))
    assert all("n" not in seen.body for seen in server.seen)


@pytest.mark.parametrize("takes_n", [True, False, None], ids=["n", "n ignored", "n refused"])
def test_a_server_without_n_is_asked_for_each_completion(cache, takes_n):
    prompts = prompts_for(20)
    with FakeServer(takes_n=takes_n) as server:
        completions = sample_completions(open_lm(server), prompts, SAMPLING, cache)
    require_each_completion_once(server, prompts, completions)
    num_honest = sum(1 for seen in server.seen if seen.delivered)
    assert num_honest == (20 if takes_n else 80)
    spent = cache.usage()
    assert (spent.requests, spent.wasted_requests) == (len(server.seen), 0)


PASSING_FAULTS = (
    "429", "429-0.05", "429-Wed, 21 Oct 2015 07:28:00 GMT", "500", "502", "503", "503-0.05", "reset", "cut",
    "truncated", "no-choices", "one", "fewer", "more",
)  # fmt: skip


@pytest.mark.parametrize("fault", PASSING_FAULTS)
def test_a_fault_that_passes_loses_nothing_and_repeats_nothing(cache, fault):
    prompts = prompts_for(30)
    with FakeServer(sometimes(fault)) as server:
        completions = sample_completions(open_lm(server), prompts, SAMPLING, cache, purpose="sample")
        num_asked = len(server.seen)
        again = sample_completions(open_lm(server), prompts, SAMPLING, cache)
    assert len(server.seen) == num_asked
    assert str(again.completions_UN) == str(completions.completions_UN)  # their log-probability is unknown: nan
    require_each_completion_once(server, prompts, completions)
    assert all(d.status is CompletionStatus.OK for completions_N in completions.completions_UN for d in completions_N)
    spent, num_faults = cache.usage("sample"), sum(1 for seen in server.seen if seen.fault)
    assert num_faults >= 10
    assert spent.requests == num_asked
    assert spent.retries == (0 if fault in ("one", "fewer", "more") else num_faults)
    assert spent.throttled == (num_faults if fault.startswith("429") else 0)
    is_cut = fault in ("cut", "truncated", "no-choices", "reset")
    assert spent.wasted_requests == (num_faults if is_cut else 0)
    assert (spent.wasted_tokens > 0) == (is_cut or fault == "more")


@pytest.mark.parametrize("fault", ["hang", "drip"])
def test_an_answer_that_does_not_come_is_asked_for_again(cache, fault):
    prompts, pace = prompts_for(6), FAST.model_copy(update={"timeout_s": 0.5})
    with FakeServer(sometimes(fault)) as server:
        completions = sample_completions(open_lm(server, pace=pace), prompts, SAMPLING, cache)
    require_each_completion_once(server, prompts, completions)
    assert cache.usage().wasted_requests == 2


def test_a_server_that_starts_late_is_waited_for(cache):
    prompts = prompts_for(10)
    with FakeServer() as gone:
        port = gone.port
    server = FakeServer(port=port)
    lm = open_lm(gone)
    threading.Timer(0.5, server.__enter__).start()
    completions = sample_completions(lm, prompts, SAMPLING, cache)
    server.__exit__()
    require_each_completion_once(server, prompts, completions)
    spent = cache.usage()
    assert spent.requests > len(server.seen) == 10
    assert spent.wasted_requests == 0


def test_a_server_that_is_gone_ends_the_work_and_keeps_what_came(cache):
    prompts, pace = prompts_for(40), FAST.model_copy(update={"max_outage_s": 0.4})
    with FakeServer(lambda seen: "503" if seen.number >= 15 else "") as server:
        with pytest.raises(GenerationError, match=r"has not answered for 0.4 s .last: HTTP 503.*go on"):
            sample_completions(open_lm(server, pace=pace), prompts, SAMPLING, cache)
        assert cache.num_completions == 60
        server.fault = lambda seen: ""
        completions = sample_completions(open_lm(server, pace=pace), prompts, SAMPLING, cache)
    require_each_completion_once(server, prompts, completions)


def test_a_wait_longer_than_an_outage_ends_the_work(cache):
    with (
        FakeServer(lambda seen: "429-3600") as server,
        pytest.raises(GenerationError, match="asks to come back in 3,600 s"),
    ):
        sample_completions(open_lm(server), prompts_for(5), SAMPLING, cache)
    assert len(server.seen) <= 5


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("401", "HTTP 401: Incorrect API key provided: .key. .*check the key in RECLOOP_TEST_KEY"),
        ("403", "check the key"),
        ("404", "The model `nobody` does not exist.*check the model name 'm'"),
        ("402", "credit"),
        ("429-insufficient_quota", "credit"),
        ("301", "check the base URL"),
    ],
)
def test_what_no_request_will_get_past_ends_the_work_at_once(cache, monkeypatch, fault, message):
    monkeypatch.setenv("RECLOOP_TEST_KEY", KEY)
    pace = FAST.model_copy(update={"api_key_env": "RECLOOP_TEST_KEY"})
    prompts = prompts_for(200)
    with FakeServer(lambda seen: fault if seen.number >= 50 else "") as server:
        start_s = time.monotonic()
        with pytest.raises(GenerationError, match=message):
            sample_completions(open_lm(server, pace=pace), prompts, SAMPLING, cache)
        assert time.monotonic() - start_s < 10
        assert cache.num_completions == 200  # of the fifty answered
        num_asked = len(server.seen)
        assert num_asked < 200
        server.fault = lambda seen: ""
        completions = sample_completions(open_lm(server, pace=pace), prompts, SAMPLING, cache)
    require_each_completion_once(server, prompts, completions)
    assert all(seen.headers["authorization"] == f"Bearer {KEY}" for seen in server.seen)


def test_a_key_is_in_no_log_and_no_message(cache, monkeypatch, caplog, tmp_path):
    monkeypatch.setenv("RECLOOP_TEST_KEY", KEY)
    pace = FAST.model_copy(update={"api_key_env": "RECLOOP_TEST_KEY"})
    caplog.set_level(logging.DEBUG)
    with FakeServer(lambda seen: "401" if seen.number > 2 else "") as server:
        lm = open_lm(server, pace=pace)
        with pytest.raises(GenerationError) as caught:
            sample_completions(lm, prompts_for(9), SAMPLING, cache)
    said = f"{caught.value}{caught.value.__cause__}{caplog.text}{lm.name}{pace.model_dump_json()}"
    assert "sk-" not in said
    assert KEY.encode() not in (tmp_path / "completions.sqlite").read_bytes()


def test_a_prompt_the_server_refuses_is_put_aside_and_the_others_go_on(cache):
    prompts = prompts_for(30)
    poisoned = {outgoing_of(prompts[3]): "400", outgoing_of(prompts[0]): "400"}
    with FakeServer(lambda seen: poisoned.get(seen.prompt, "")) as server:
        completions = sample_completions(open_lm(server), prompts, SAMPLING, cache)
        num_asked = len(server.seen)
        sample_completions(open_lm(server), prompts, SAMPLING, cache)
        assert len(server.seen) == num_asked
    for prompt, completions_N in zip(prompts, completions.completions_UN, strict=True):
        is_poisoned = outgoing_of(prompt) in poisoned
        statuses = {completion.status for completion in completions_N}
        assert statuses == {CompletionStatus.REJECTED if is_poisoned else CompletionStatus.OK}
        assert all((completion.text == "") == is_poisoned for completion in completions_N)
    assert "this prompt cannot be processed" in completions.completions_UN[3][0].reason


@pytest.mark.parametrize("fault", ["422", "filtered", "half a character"])
@pytest.mark.parametrize("tokenizer", [None, str(bundled_lm_folder())], ids=["estimated", "counted"])
def test_half_a_character_costs_no_answer(cache, fault, tokenizer):
    """A lone surrogate, which JSON can say and UTF-8 cannot: as text, beside a refusal, in an error."""
    prompts = prompts_for(12)
    bad = outgoing_of(prompts[3])
    with FakeServer(lambda seen: fault if seen.prompt == bad else "") as server:
        completions = sample_completions(open_lm(server, tokenizer=tokenizer), prompts, SAMPLING, cache)
        num_asked = len(server.seen)
        sample_completions(open_lm(server, tokenizer=tokenizer), prompts, SAMPLING, cache)
        assert len(server.seen) == num_asked
    odd = completions.completions_UN[3][0]
    match fault:
        case "422":
            assert odd.status is CompletionStatus.REJECTED
            assert odd.reason == "HTTP 422: no model reads \\ud83d 422"
        case "filtered":
            assert odd.status is CompletionStatus.REFUSED
            assert odd.raw.startswith("By genre")
        case _:
            assert odd.status is CompletionStatus.OK
            assert odd.reason == "removed characters that are no text"
    assert (
        sum(d.status is CompletionStatus.OK for completions_N in completions.completions_UN for d in completions_N)
        >= 11 * 4
    )


def test_a_prompt_the_server_always_fails_at_is_put_aside(cache, monkeypatch):
    prompts = prompts_for(40)
    bad = outgoing_of(prompts[7])
    monkeypatch.setattr("recloop.llm.server.scheduler.MAX_ATTEMPTS", 3)
    with FakeServer(lambda seen: "500" if seen.prompt == bad else "", delay_s=0.05) as server:
        completions = sample_completions(open_lm(server), prompts, SAMPLING, cache)
    assert [d.status for d in completions.completions_UN[7]] == [CompletionStatus.FAILED] * 4
    assert (
        sum(d.status is CompletionStatus.OK for completions_N in completions.completions_UN for d in completions_N)
        == 39 * 4
    )


def test_the_last_prompt_a_server_hangs_at_is_put_aside(cache):
    prompts = prompts_for(10)
    bad = outgoing_of(prompts[9])
    pace = FAST.model_copy(update={"timeout_s": 0.2, "max_outage_s": 1.0})
    with FakeServer(lambda seen: "hang" if seen.prompt == bad else "") as server:
        completions = sample_completions(open_lm(server, pace=pace), prompts, SAMPLING, cache)
    assert [d.status for d in completions.completions_UN[9]] == [CompletionStatus.FAILED] * 4
    assert "no whole answer within 0.2 s" in completions.completions_UN[9][0].reason


def test_a_server_that_refuses_everything_is_set_up_wrongly(cache):
    with (
        FakeServer(lambda seen: "400") as server,
        pytest.raises(GenerationError, match=r"refuses every prompt.*this prompt cannot be processed"),
    ):
        sample_completions(open_lm(server), prompts_for(300), SAMPLING, cache)
    assert cache.num_completions == 0
    assert len(server.seen) < 100


@pytest.mark.parametrize(
    ("fault", "status", "reason"),
    [
        ("empty", CompletionStatus.EMPTY, "no text"),
        ("sorry", CompletionStatus.REFUSED, "declined"),
        ("long", CompletionStatus.TOO_LONG, "where 20,000 are allowed"),
        ("latin1", CompletionStatus.OK, "no UTF-8"),
        ("think", CompletionStatus.OK, "removed reasoning, markdown"),
    ],
)
def test_an_odd_answer_is_recorded_and_not_asked_for_again(cache, fault, status, reason):
    prompts = prompts_for(9)
    with FakeServer(sometimes(fault)) as server:
        completions = sample_completions(open_lm(server), prompts, SAMPLING, cache)
    require_each_completion_once(server, prompts, completions)
    assert len(server.seen) == 9
    odd = [
        d
        for completions_N in completions.completions_UN
        for d in completions_N
        if d.status is not CompletionStatus.OK or d.reason
    ]
    assert len(odd) == 3 * 4
    for completion in odd:
        assert completion.status is status
        assert reason in completion.reason
        assert (completion.text == "") == (status is not CompletionStatus.OK)
        assert len(completion.raw) <= 2000
        assert "think" not in completion.text


def test_a_cut_answer_says_that_it_is_not_finished(cache):
    with FakeServer(lambda seen: "length") as server:
        completions = sample_completions(open_lm(server), prompts_for(1), SAMPLING, cache)
    assert all(
        not completion.is_finished and completion.num_tokens == 32 for completion in completions.completions_UN[0]
    )


def test_tokens_read_cached_and_written_are_booked_by_purpose(cache):
    prices = PriceConfig(input=10.0, cached_input=1.0, output=100.0)
    with FakeServer() as server:
        lm = open_lm(server, prices=prices)
        sample_completions(lm, prompts_for(10), SAMPLING, cache, purpose="a")
        sample_completions(lm, prompts_for(15), SAMPLING, cache, purpose="b")
    one, other = cache.usage("a"), cache.usage("b")
    assert (one.requests, one.input_tokens, one.cached_tokens, one.output_tokens) == (10, 1000, 400, 400)
    assert (other.requests, other.input_tokens) == (5, 500)
    assert cache.usage() == one + other
    # 600 fresh x 10 + 400 cached x 1 + 400 written x 100, per million
    assert one.cost(prices) == pytest.approx((6000 + 400 + 40_000) / 1e6)


@pytest.mark.parametrize(
    ("budget", "message"),
    [
        (BudgetConfig(max_requests=12), "lm.budget.max_requests is 12"),
        (BudgetConfig(max_tokens=12 * 140), "lm.budget.max_tokens is 1,680"),
        (BudgetConfig(max_cost=0.05), "lm.budget.max_cost is 0.05 EUR"),
    ],
)
def test_a_cap_stops_cleanly_and_the_work_goes_on_when_it_is_raised(cache, budget, message):
    prompts, prices = prompts_for(40), PriceConfig(input=10.0, output=100.0, currency="EUR")
    with FakeServer(delay_s=0.01) as server:
        with pytest.raises(BudgetError, match=message):
            sample_completions(open_lm(server, budget=budget, prices=prices), prompts, SAMPLING, cache)
        spent = cache.usage()
        assert 6 <= len(server.seen) <= 12
        assert spent.requests == len(server.seen)
        assert spent.tokens <= 12 * 140
        assert spent.cost(prices) <= 0.06
        assert cache.num_completions == 4 * len(server.seen)
        completions = sample_completions(open_lm(server, prices=prices), prompts, SAMPLING, cache)
    require_each_completion_once(server, prompts, completions)


def test_concurrency_is_bounded_and_grows(cache):
    pace = FAST.model_copy(update={"max_concurrency": 12})
    with FakeServer(delay_s=0.02) as server:
        sample_completions(open_lm(server, pace=pace), prompts_for(100), SAMPLING, cache)
    assert 9 <= server.most_open <= 12


def test_no_more_is_sent_than_may_be_lost_while_answers_wait_to_be_saved():
    with FakeServer() as server:
        pace = FAST.model_copy(update={"max_concurrency": 4})
        lm = open_lm(server, pace=pace, server=ServerConfig(completions_per_request=1))
        asks = ((prompt, (0, 1, 2, 3)) for prompt in prompts_for(100))
        num_answers = 0
        for answers in lm.answer(asks, SAMPLING, Usage(), has_answered=False):
            if num_answers < 40:
                time.sleep(0.05)  # a slow disk; the server answers at once
            assert len(server.seen) <= num_answers + 8
            num_answers += sum(len(answer.completions) for answer in answers)
    assert num_answers == len(server.seen) == 400


def test_a_rate_limit_is_kept(cache):
    pace = FAST.model_copy(update={"requests_per_min": 1200.0})  # 20 a second, the first 20 at once
    with FakeServer() as server:
        start_s = time.monotonic()
        sample_completions(open_lm(server, pace=pace), prompts_for(40), SAMPLING, cache)
    assert time.monotonic() - start_s >= 0.9


def test_patterns_are_taken_out_of_what_is_sent_and_a_hook_sees_the_rest(cache):
    prompt = Prompt(0, "You summarise.", "Write to ann@example.org or +49 170 1234567.", 1, 0)
    hooked = []

    def hook(sent):
        hooked.append(sent.text)
        return replace(sent, text=sent.text.upper())

    with FakeServer() as server:
        sample_completions(open_lm(server, hook=hook), [prompt], SAMPLING, cache)
    assert hooked == ["Write to [email] or [phone]."]
    assert server.seen[0].prompt == "You summarise.\nWRITE TO [EMAIL] OR [PHONE]."
    assert cache.usage().redactions == 2


def test_more_completions_ask_for_the_new_ones_only(cache):
    with FakeServer() as server:
        sample_completions(open_lm(server), prompts_for(3), SAMPLING, cache)
        sample_completions(open_lm(server), prompts_for(3), replace(SAMPLING, num_completions=6), cache)
    assert [seen.n for seen in server.seen] == [4, 4, 4, 2, 2, 2]
    assert {seen.body["seed"] for seen in server.seen} == {completion_seed(5, 0), completion_seed(5, 4)}


def test_two_processes_on_one_cache_share_the_work(tmp_path):
    prompts, results = prompts_for(120), []

    def work(server):
        with CompletionCache(tmp_path / "completions.sqlite") as cache:
            results.append(sample_completions(open_lm(server), prompts, SAMPLING, cache).completions_UN)

    with FakeServer(delay_s=0.02) as server:
        threads = [threading.Thread(target=work, args=(server,)) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert str(results[0]) == str(results[1])  # as text, since an unknown log-probability is nan
    assert len(server.seen) == 120
    assert set(server.delivered().values()) == {4}


def test_ctrl_c_leaves_at_once_and_keeps_what_came(cache, monkeypatch):
    prompts = prompts_for(200)

    def stopping(step, amount=1.0):
        step.done += amount
        if step.done >= 80:
            raise KeyboardInterrupt

    monkeypatch.setattr(Step, "__call__", stopping)
    with FakeServer(delay_s=0.01) as server:
        with pytest.raises(KeyboardInterrupt):
            sample_completions(open_lm(server), prompts, SAMPLING, cache)
        assert cache.num_completions >= 80  # and what came in before the clients had stopped
        assert not [t for t in threading.enumerate() if t.name == "recloop-server"]


@pytest.mark.parametrize(
    ("base_url", "pace", "message"),
    [
        ("https://api.example.org/v1", PaceConfig(), "got api.example.org.*allowed_hosts"),
        (
            "http://gpu.example.org/v1",
            PaceConfig(allowed_hosts=("gpu.example.org",), api_key_env="K"),
            "may not travel unencrypted",
        ),
    ],
)
def test_prompts_and_keys_go_only_where_they_may(base_url, pace, message):
    with pytest.raises(SettingError, match=message):
        ServerLM(LmConfig(name=f"openai:{base_url}#m", pace=pace))


def test_an_absent_key_is_named_before_anything_is_sent(cache, monkeypatch):
    monkeypatch.delenv("RECLOOP_TEST_KEY", raising=False)
    pace = FAST.model_copy(update={"api_key_env": "RECLOOP_TEST_KEY"})
    with (
        FakeServer() as server,
        pytest.raises(SettingError, match="RECLOOP_TEST_KEY, got no such environment variable"),
    ):
        sample_completions(open_lm(server, pace=pace), prompts_for(1), SAMPLING, cache)
    assert server.seen == []


def test_what_decides_an_answer_is_in_the_name_and_what_does_not_is_not():
    def name(hook=None, **changes):
        return ServerLM(LmConfig(name="openai:http://127.0.0.1:1/v1#m", **changes), hook=hook).name

    assert name() == name(pace=PaceConfig(timeout_s=3), budget=BudgetConfig(max_requests=1))
    others = [
        name(server=ServerConfig(**one))
        for one in (
            {"revision": "a"},
            {"extra_body": {"top_k": 4}},
            {"redact": ()},
            {"completions_per_request": 1},
            {"send_seed": False},
        )
    ]
    assert len({name(), name(hook=outgoing_of), *others}) == 7
    assert json.dumps(name())
