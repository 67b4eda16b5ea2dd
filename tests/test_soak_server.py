"""Sampling from a model behind a server, killed with SIGKILL at random moments, ends as if nothing had happened."""

import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from fake_server import FakeServer, Seen
from recloop.errors import BudgetError
from recloop.llm.cache import CompletionCache
from recloop.llm.language_model import Sampling
from recloop.llm.load import load_lm
from recloop.llm.sampling import sample_completions
from recloop.llm.server.cost import PriceConfig
from recloop.records import CompletionStatus, Prompt

SAMPLING = Sampling(num_completions=4, temperature=1.0, top_p=1.0, max_tokens=32, seed=5)
NUM_KILLS = {"short": 4, "full": 20}[os.environ.get("RECLOOP_SOAK", "short")]
NUM_PROMPTS = 375 * NUM_KILLS  # there must be something left to kill
VICTIM = """
import sys
from test_soak_server import sample
sample(sys.argv[1], int(sys.argv[2]))
"""


def sample(path: str, port: int):
    prompts = [Prompt(user, "You summarise.", f"History {user}.", 1, 0) for user in range(NUM_PROMPTS)]
    lm = load_lm(
        f"openai:http://127.0.0.1:{port}/v1#m",
        server={"completions_per_request": 1},
        pace={"max_concurrency": 16, "timeout_s": 10},
    )
    with CompletionCache(path) as cache:
        return sample_completions(lm, prompts, SAMPLING, cache)


def rows_of(path: Path) -> list[tuple]:
    """Everything about the completions: the model's name has the port in it, so the texts name the request."""
    connection = sqlite3.connect(path)
    rows = connection.execute(
        "select p.text, d.completion, d.text, d.num_tokens, d.status from completions d "
        "join requests r using (request) join prompts p using (digest) order by p.text, d.completion"
    ).fetchall()
    connection.close()
    return rows


@pytest.mark.soak
def test_killed_at_random_moments_the_cache_ends_as_if_nothing_had_happened(tmp_path: Path) -> None:
    whole, cut = tmp_path / "whole.sqlite", tmp_path / "cut.sqlite"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    rng = random.Random(20)
    num_met, num_kept = 0, 0
    with FakeServer(delay_s=0.002) as server:
        for _ in range(NUM_KILLS):
            victim = subprocess.Popen([sys.executable, "-c", VICTIM, str(cut), str(server.port)], env=environment)
            seen = len(server.seen)
            while len(server.seen) == seen and victim.poll() is None:
                time.sleep(0.01)
            time.sleep(rng.uniform(0, 0.8))
            num_met += victim.poll() is None
            victim.send_signal(signal.SIGKILL)
            victim.wait()
            with CompletionCache(cut) as cache:
                held = cache.num_completions
            assert held >= num_kept  # nothing that was committed is lost
            num_kept = held
        resumed = sample(str(cut), server.port)
        num_delivered = sum(server.delivered().values())
    with FakeServer() as server:
        expected = sample(str(whole), server.port)
    assert num_met > NUM_KILLS / 2, "the kills came too late; raise NUM_PROMPTS"
    assert str(resumed.completions_UN) == str(expected.completions_UN)
    assert rows_of(cut) == rows_of(whole)
    # Only what was on its way, or had just come in, when a kill fell may have been answered again.
    assert num_delivered - 4 * NUM_PROMPTS <= NUM_KILLS * 2 * 16


FAULTS = (
    "429", "429-1", "500", "502", "503", "408", "reset", "cut", "truncated", "no-choices", "broken off", "fewer",
    "more", "one", "latin1", "think", "length", "odd usage", "streamed",
)  # fmt: skip
SHARE_OF_FAULTS = 0.3
READ_PRICE, WRITTEN_PRICE = 1.0, 2.0  # of a token


@pytest.mark.soak
def test_under_faults_and_caps_nothing_is_lost_paid_twice_or_spent_beyond_the_cap(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("recloop.llm.server.rate_limits.BACKOFF_BASE_S", 0.01)
    rng = random.Random(7)
    bills: dict[int, float] = {}

    def change(seen: Seen, value: dict[str, Any]) -> bytes:
        usage = value["usage"]
        bills[seen.number] = usage["prompt_tokens"] * READ_PRICE + usage["completion_tokens"] * WRITTEN_PRICE
        match seen.fault:
            case "broken off":
                value["choices"][0]["finish_reason"] = "error"
            case "odd usage":
                value["usage"] = rng.choice(
                    [{"prompt_tokens": -9}, {"prompt_tokens": 10**30}, {"completion_tokens": []}]
                )
            case "streamed":
                pieces = [
                    {"choices": [{"index": one["index"], "delta": one["message"], "finish_reason": "stop"}]}
                    for one in value["choices"]
                ]
                lines = [*pieces, {"choices": [], "usage": usage}]
                return b"".join(b"data: %s\n\n" % json.dumps(line).encode() for line in lines) + b"data: [DONE]\n\n"
        return json.dumps(value).encode()

    prompts = [Prompt(user, "You summarise.", f"{'History ' * 50}{user}.", 1, 0) for user in range(100 * NUM_KILLS)]
    prices = PriceConfig(input=READ_PRICE * 1e6, output=WRITTEN_PRICE * 1e6)
    cap, num_stops = 20_000.0, 0
    with (
        FakeServer(lambda seen: rng.choice(FAULTS) if rng.random() < SHARE_OF_FAULTS else "", change=change) as server,
        CompletionCache(tmp_path / "completions.sqlite") as cache,
    ):
        while True:
            lm = load_lm(
                f"openai:http://127.0.0.1:{server.port}/v1#m",
                pace={"max_concurrency": 16, "timeout_s": 10},
                prices=prices.model_dump(),
                budget={"max_cost": cap},
            )
            try:
                completions = sample_completions(lm, prompts, SAMPLING, cache)
                break
            except BudgetError:
                num_stops += 1
                assert sum(bills.values()) <= cache.usage().cost(prices) <= cap
                cap *= 1.5
        assert sum(bills.values()) <= cache.usage().cost(prices) <= cap
        delivered = server.delivered()
    faults = Counter(seen.fault for seen in server.seen)
    print(f"{len(server.seen):,} requests, {num_stops} stops at a cap, faults: {dict(sorted(faults.items()))}")
    assert num_stops >= 3
    assert set(faults) == {"", *FAULTS}
    assert faults.total() - faults[""] > 0.2 * faults.total()
    for prompt, completions_N in zip(prompts, completions.completions_UN, strict=True):
        assert [one.completion for one in completions_N] == [0, 1, 2, 3]
        assert delivered[f"{prompt.system}\n{prompt.text}"] == 4
        assert all(one.status is CompletionStatus.OK for one in completions_N)
