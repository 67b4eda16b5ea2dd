"""Prompts answered by an instant server: by one process, by Ray, and by Ray with kills; what the server counted.

    OMP_NUM_THREADS=1 .venv/bin/python tests/bench_ray.py [PROMPTS] [KILL_EVERY_S] [LINES]

LINES: of each prompt's history, of 83 characters each. With 0 for KILL_EVERY_S all PROMPTS are timed, and there are no
kills.

Wanted: Ray answers at least 0.8 of what one process does per second of processor time, driver and workers together
and the server apart, with the driver below 2 GB. With a worker killed every KILL_EVERY_S and the driver twice, no
completion is lost, and none is paid twice beyond the requests that were open or not yet saved.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from fake_server import FakeServer
from recloop.experiment.peak_memory import peak_memory_bytes
from recloop.experiment.ray_jobs import RayConfig
from recloop.llm.cache import CompletionCache
from recloop.llm.config import LmConfig
from recloop.llm.language_model import Sampling
from recloop.llm.load import lm_from_config
from recloop.llm.ray_lm import RayLM, shards_of
from recloop.llm.sampling import sample_completions
from recloop.llm.server.config import PaceConfig
from recloop.llm.server.scheduler import UNSAVED_PER_OPEN
from recloop.records import Prompt

LINE = '4 stars | "The Glass Harbour" | era 1990s | genre Drama, War | director Ann Vale\n'
LINES = "RECLOOP_BENCH_LINES"  # tells the driver
WORKERS, TICK_S = 2, 0.25
MOST_TIMED = 20_000  # prompts of the comparison without kills
LEAST_BETWEEN = 8_192  # completions between two kills of workers, so that something comes of it
Kill = Callable[[], None]
CLOCK_TICKS = os.sysconf("SC_CLK_TCK")


def drive(engine: str, folder: Path, url: str, num: int) -> None:
    """The driver: all prompts, once, in this process, by Ray started here, or by the cluster at this address."""
    history = LINE * int(os.environ[LINES])
    prompts = [Prompt(user, "You summarise.", f"{history}User {user}.", 20, 0) for user in range(num)]
    config = LmConfig.model_validate({"name": f"openai:{url}#instant"})
    lm = lm_from_config(config)
    if engine != "process":
        cluster = RayConfig(num_workers=WORKERS, address="" if engine == "ray" else engine)
        lm = RayLM(config, Path("server"), cluster, shards_of(folder / "completions.sqlite"))
    with CompletionCache(folder / "completions.sqlite") as cache:
        sample_completions(lm, prompts, Sampling(1, 1.0, 1.0, 64, 0), cache)
        print("held", cache.num_completions, peak_memory_bytes() // 1_000_000)


def workers(state: bytes = b"") -> list[int]:
    """Process ids of Ray's workers; with `.do` those at a job, not those that start."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if path.read_bytes().startswith(b"ray::_JobWorker" + state):
                found.append(int(path.parent.name))
        except OSError:
            continue
    return found


def cpu_s(pids: list[int]) -> float:
    total = 0
    for pid in pids:
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
            total += int(fields[11]) + int(fields[12])
        except OSError:
            continue
    return total / CLOCK_TICKS


def watched(engine: str, folder: Path, server: FakeServer, num: int) -> Iterator[tuple[subprocess.Popen[str], float]]:
    """A driver with the seconds since it began, until it ends."""
    command = [sys.executable, __file__, engine, str(folder), server.base_url, str(num)]
    env = {LINES: "20", **os.environ, "RAY_worker_niceness": "0"}  # else they come to nothing beside other jobs
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True, env=env)
    start_s = time.monotonic()
    while process.poll() is None:
        yield process, time.monotonic() - start_s
        time.sleep(TICK_S)
    output, _ = process.communicate()
    if process.returncode == 0:
        lines = output.splitlines()  # Ray tells of deaths on others
        _, held, peak_mb = next(line.split() for line in lines if line.startswith("held "))
        print(f"  {engine}: {held} completions held, driver {peak_mb} MB at most")


def measure(engine: str, server: FakeServer, num: int) -> float:
    """Completions per second of processor time, between a fifth and four fifths of the work."""
    before, points = len(server.seen), []
    start_s = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        for process, _ in watched(engine, Path(folder), server, num):
            pids = [process.pid, *workers()]
            points.append((len(server.seen) - before, cpu_s(pids), time.monotonic()))
    inside = [point for point in points if 0.2 * num <= point[0] <= 0.8 * num]
    (first, first_cpu_s, first_s), (last, last_cpu_s, last_s) = inside[0], inside[-1]
    per_core = (last - first) / (last_cpu_s - first_cpu_s)
    print(
        f"  {engine}: {per_core:,.0f} completions per second of processor time, "
        f"{(last - first) / (last_s - first_s):,.0f} by the clock; {time.monotonic() - start_s:.0f} s in all"
    )
    return per_core


@dataclass(frozen=True)
class Outcome:
    """What kills left behind. most_twice: requests that may have been open, or answered and not yet saved, at them."""

    lost: int
    twice: int
    most_twice: int
    left: list[str]


def with_kills(
    server: FakeServer, num: int, every_s: float, engine: str = "ray", kill_node: Kill | None = None
) -> Outcome:
    """Workers, twice the driver, and perhaps a machine of the cluster are killed; what is there then."""
    before, num_workers_killed, num_nodes, node = len(server.seen), 0, 0, kill_node
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for number, dies in enumerate((True, True, False), start=1):
            next_s, killed_at = every_s, 0
            for process, elapsed_s in watched(engine, folder, server, num):
                num_done = len(server.seen) - before
                if dies and num_done >= num * number / 3:
                    os.kill(process.pid, signal.SIGKILL)
                elif node is not None and num_done >= num * 0.8:
                    node()
                    node, num_nodes = None, 1
                elif (
                    elapsed_s >= next_s
                    and num_done - killed_at >= min(num / 5, LEAST_BETWEEN)
                    and (alive := workers(b".do"))
                ):
                    os.kill(random.choice(alive), signal.SIGKILL)
                    num_workers_killed, next_s, killed_at = num_workers_killed + 1, elapsed_s + every_s, num_done
        with CompletionCache(folder / "completions.sqlite") as cache:
            held = cache.num_completions
        left = sorted(path.name for path in folder.iterdir())
    delivered: dict[str, int] = {}
    for seen in server.seen[before:]:
        delivered[seen.prompt] = delivered.get(seen.prompt, 0) + len(seen.delivered)
    twice = sum(times - 1 for times in delivered.values() if times > 1)
    each = UNSAVED_PER_OPEN * PaceConfig().max_concurrency // WORKERS
    most_twice = each * (num_workers_killed + 2 * WORKERS + WORKERS * num_nodes)
    print(
        f"  {num_workers_killed} workers, 2 drivers, {num_nodes} machines killed: {num - held} lost, "
        f"{twice} paid twice of at most {most_twice} in flight, {len(server.seen) - before} requests; left: {left}"
    )
    return Outcome(num - held, twice, most_twice, left)


def main() -> None:
    if len(sys.argv) == 5:
        drive(sys.argv[1], Path(sys.argv[2]), sys.argv[3], int(sys.argv[4]))
        return
    num, every_s, lines = (int(word) for word in (*sys.argv[1:], *("20000", "30", "20")[len(sys.argv) - 1 :]))
    os.environ[LINES] = str(lines)
    print(json.dumps({"prompts": num, "workers": WORKERS, "kill_every_s": every_s, "characters": lines * len(LINE)}))
    rates: list[float] = []
    for engine in ("process", "ray"):
        with FakeServer() as server:  # which remembers every request: some 5 kB each
            rates.append(measure(engine, server, min(num, MOST_TIMED) if every_s else num))
    print(f"  ratio {rates[1] / rates[0]:.2f}")
    if not every_s:
        return
    with FakeServer() as server:
        start_s = time.monotonic()
        with_kills(server, num, every_s)
        print(f"  {time.monotonic() - start_s:.0f} s")


if __name__ == "__main__":
    main()
