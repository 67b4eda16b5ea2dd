"""Completions per second from a server that answers at once into the cache: client and server, two processes.

    OMP_NUM_THREADS=1 .venv/bin/python tests/bench_server.py [PROMPTS] [COMPLETIONS]

Wanted: at least 800 completions/s on two cores, client and server together, with the client below 500 MB.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from recloop.llm.cache import CompletionCache
from recloop.llm.language_model import Sampling
from recloop.llm.load import load_lm
from recloop.llm.sampling import sample_completions
from recloop.records import Prompt

HISTORY = '4 stars | "The Glass Harbour" | era 1990s | genre Drama, War | director Ann Vale\n' * 20


def main() -> None:
    num_prompts, num_completions = (int(word) for word in (*sys.argv[1:], *("10000", "4")[len(sys.argv) - 1 :]))
    prompts = [
        Prompt(user, "You summarise a user's preferences.", f"{HISTORY}User {user}.", 20, 0)
        for user in range(num_prompts)
    ]
    process = subprocess.Popen(
        [sys.executable, str(Path(__file__).with_name("fake_server.py")), "0"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    port = int(process.stdout.readline())
    lm = load_lm(f"openai:http://127.0.0.1:{port}/v1#instant", pace={"max_concurrency": 64})
    with tempfile.TemporaryDirectory() as folder, CompletionCache(Path(folder) / "completions.sqlite") as cache:
        start_s, start_cpu_s = time.monotonic(), time.process_time()
        sample_completions(lm, prompts, Sampling(num_completions, 1.0, 1.0, 64, 0), cache)
        wall_s, cpu_s = time.monotonic() - start_s, time.process_time() - start_cpu_s
        held = cache.num_completions
    server, _ = process.communicate("")
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(
        f"{held:,} completions in {wall_s:.1f} s: {held / wall_s:,.0f} completions/s; client {cpu_s:.1f} s of CPU, "
        f"{peak_mb:.0f} MB at most; server {json.loads(server)}"
    )


if __name__ == "__main__":
    main()
