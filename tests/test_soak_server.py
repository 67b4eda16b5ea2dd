"""Sampling from a model behind a server, killed with SIGKILL at random moments, ends as if nothing had happened."""

import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fake_server import FakeServer
from recloop.llm.cache import CompletionCache
from recloop.llm.language_model import Sampling
from recloop.llm.load import load_lm
from recloop.llm.sampling import sample_completions
from recloop.records import Prompt

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
