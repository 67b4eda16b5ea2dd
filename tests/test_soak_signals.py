"""Runs ended by four signals, at random times and at chosen system calls, end as an uninterrupted one does.

A victim run is ended again and again and resumed each time; then it is compared with a whole run. The system calls are
those that make things durable: fsync, rename, replace, unlink, rmdir. The signal comes before or after the call.
`RECLOOP_SOAK=full` ends runs of each method 100 times, `short` those of one method 4 times.
"""

import json
import os
import random
import signal
import time
from collections import Counter
from pathlib import Path

import pytest

from whole_runs import (
    DEADLINE_S,
    SETTINGS,
    files_of,
    finish,
    forked,
    manifest_of,
    result_of,
    start,
    whole_run,
    words_of,
)

IS_FULL = os.environ.get("RECLOOP_SOAK", "short") == "full"
NUM_KILLS = 100 if IS_FULL else 4
KILLS_PER_VICTIM = 25  # then it may end
METHODS = tuple(SETTINGS) if IS_FULL else ("re2llm",)
SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
LAST_CALL, LAST_DELAY_S = 50, 1.2  # a step makes 10 to 60 of the calls
SEED = int(os.environ.get("RECLOOP_SOAK_SEED", "0"))


def ended_at_a_call(words: list[str], chance: random.Random, number: signal.Signals) -> int | None:
    """The exit code of a command that sends itself a signal at a call drawn by chance; of SIGINT two, now and then."""
    times = 2 if number is signal.SIGINT and chance.random() < 0.5 else 1
    process = forked(words, (chance.randint(1, LAST_CALL), chance.choice(("before", "after")), int(number), times))
    process.join(DEADLINE_S)
    return process.exitcode


def ended_at_a_time(words: list[str], run: Path, chance: random.Random, number: signal.Signals) -> int | None:
    """The exit code of a command that is sent a signal at a time drawn by chance after a step of it began."""
    begun, process = time.time(), forked(words)
    while process.is_alive() and not has_step_since(run, begun):
        time.sleep(0.005)
    time.sleep(chance.uniform(0, LAST_DELAY_S))
    if process.is_alive():
        assert process.pid is not None
        os.kill(process.pid, number)
        if number is signal.SIGINT and chance.random() < 0.5:
            time.sleep(chance.uniform(0, 0.05))
            if process.is_alive():
                os.kill(process.pid, number)
    process.join(DEADLINE_S)
    return process.exitcode


def has_step_since(run: Path, begun: float) -> bool:
    """Whether a step of the run began after this time."""
    for part in (*run.glob("*/.*.part"), *run.glob(".*.part")):
        try:
            if part.is_dir() and part.stat().st_mtime > begun:
                return True
        except FileNotFoundError:  # its step has just ended
            continue
    return False


@pytest.mark.soak
@pytest.mark.parametrize("method", METHODS)
def test_a_run_ended_by_any_signal_at_any_moment_ends_as_if_nothing_had_happened(method: str, tmp_path: Path) -> None:
    whole, chance = whole_run(method), random.Random(f"{method} {SEED}")
    expected, files = result_of(whole), files_of(whole)
    counts: Counter[str] = Counter()
    num_kills = num_victims = 0
    while num_kills < NUM_KILLS:
        victim = tmp_path / f"victim-{num_victims}"
        for _ in range(min(KILLS_PER_VICTIM, NUM_KILLS - num_kills)):
            number = SIGNALS[(num_kills + num_victims) % len(SIGNALS)]
            is_begun = (victim / "manifest.json").exists()
            words = ["resume", str(victim)] if is_begun else ["run", method, *words_of(method), "--out", str(victim)]
            is_at_call = (num_kills + num_kills // len(SIGNALS)) % 2 == 0
            if is_at_call:
                code = ended_at_a_call(words, chance, number)
            else:
                code = ended_at_a_time(words, victim, chance, number)
            if code == 0:  # it ended before its time came
                break
            assert code in (-number, 128 + number), f"kill {num_kills} of {victim}: exit code {code}"
            counts[f"{number.name} at a {'call' if is_at_call else 'time'}"] += 1
            num_kills += 1
            steps = manifest_of(victim)["steps"] if (victim / "manifest.json").exists() else {}
            counts["before any step was done"] += not steps
            print(method, num_kills, number.name, "call" if is_at_call else "time", code, len(steps), flush=True)
        finish(start("resume", str(victim)))
        num_victims += 1
        assert num_victims <= NUM_KILLS, "the signals do not end the runs"
        got = result_of(victim)
        for what in expected:
            assert got[what] == expected[what], f"{what} of {victim}, {num_kills} kills"
        assert files_of(victim) == files, f"files of {victim}"
    print(json.dumps({"method": method, "seed": SEED, "kills": num_kills, "equal ends": num_victims, **counts}))
