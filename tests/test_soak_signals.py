"""Runs ended by four signals, at random times and at chosen system calls, end as an uninterrupted one does.

After each signal a copy of the run is resumed to its end and compared with a whole run; the run itself is resumed and
ended again. The system calls are those that make things durable: fsync, rename, replace, unlink, rmdir. The signal
comes before or after the call.
`RECLOOP_SOAK=full` ends runs of each method 100 times, `short` those of one method 4 times.
"""

import json
import os
import random
import shutil
import signal
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from whole_runs import (
    DEADLINE_S,
    SETTINGS,
    files_of,
    forked,
    manifest_of,
    result_of,
    whole_run,
    words_of,
)

IS_FULL = os.environ.get("RECLOOP_SOAK", "short") == "full"
NUM_KILLS = 100 if IS_FULL else 4
MOST_KILLS = 25  # of one run, which may come to its end before
METHODS = tuple(SETTINGS) if IS_FULL else ("re2llm",)
SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
LAST_CALL = {"dpo4rec": 50, "rerec": 100, "re2llm": 100}  # most calls until the signal; a step makes 10 to 140
LAST_STEP = {"dpo4rec": 2, "rerec": 2, "re2llm": 4}  # or the last step in which it comes, from the one that goes on
LAST_DELAY_S = 1.2  # after that step began
SEED = int(os.environ.get("RECLOOP_SOAK_SEED", "0"))


def ended_at_a_call(words: list[str], last: int, chance: random.Random, number: signal.Signals) -> int | None:
    """The exit code of a command that sends itself a signal at a call drawn by chance; of SIGINT two, now and then."""
    times = 2 if number is signal.SIGINT and chance.random() < 0.5 else 1
    process = forked(words, (chance.randint(1, last), chance.choice(("before", "after")), int(number), times))
    process.join(DEADLINE_S)
    return process.exitcode


def ended_at_a_time(
    words: list[str], run: Path, last: int, chance: random.Random, number: signal.Signals
) -> int | None:
    """The exit code of a command that is sent a signal at a time drawn by chance after one of its steps began."""
    begun, process, wanted = time.time(), forked(words), chance.randint(1, last)
    seen: set[str] = set()
    while process.is_alive() and len(seen) < wanted:
        time.sleep(0.005)
        seen |= steps_since(run, begun)
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


def steps_since(run: Path, begun: float) -> set[str]:
    """The folders of steps that go on now and began after this time."""
    found: set[str] = set()
    for part in (*run.glob("*/.*.part"), *run.glob(".*.part")):
        try:
            if part.is_dir() and part.stat().st_mtime > begun:
                found.add(part.name)
        except FileNotFoundError:  # its step has just ended
            continue
    return found


def words_to_go_on(method: str, run: Path) -> list[str]:
    is_begun = (run / "manifest.json").exists()
    return ["resume", str(run)] if is_begun else ["run", method, *words_of(method), "--out", str(run)]


@pytest.mark.soak
@pytest.mark.parametrize("method", METHODS)
def test_a_run_ended_by_any_signal_at_any_moment_ends_as_if_nothing_had_happened(method: str, tmp_path: Path) -> None:
    whole, chance = whole_run(method), random.Random(f"{method} {SEED}")
    expected, files = result_of(whole), files_of(whole)
    counts: Counter[str] = Counter()
    num_kills = num_victims = num_equal = 0
    victim, kills_of_victim = tmp_path / "victim-0", 0
    while num_kills < NUM_KILLS:
        number = SIGNALS[(num_kills + num_victims) % len(SIGNALS)]
        words, is_at_call = words_to_go_on(method, victim), (num_kills + num_kills // len(SIGNALS)) % 2 == 0
        if is_at_call:
            code = ended_at_a_call(words, LAST_CALL[method], chance, number)
        else:
            code = ended_at_a_time(words, victim, LAST_STEP[method], chance, number)
        if code != 0:
            assert code in (-number, 128 + number), f"kill {num_kills} of {victim}: exit code {code}"
            counts[f"{number.name} at a {'call' if is_at_call else 'time'}"] += 1
            num_kills, kills_of_victim = num_kills + 1, kills_of_victim + 1
            steps = manifest_of(victim)["steps"] if (victim / "manifest.json").exists() else {}
            counts["before any step was done"] += not steps
            copy = tmp_path / "copy"
            if victim.exists():
                shutil.copytree(victim, copy, symlinks=True)
            process = forked(words_to_go_on(method, copy))
            process.join(DEADLINE_S)
            assert process.exitcode == 0, f"resumed after kill {num_kills} of {victim}: exit code {process.exitcode}"
            assert_equal_ends(copy, expected, files, f"after kill {num_kills} ({number.name})")
            shutil.rmtree(copy)
            num_equal += 1
            print(method, num_kills, number.name, "call" if is_at_call else "time", code, len(steps), flush=True)
        if code == 0 or kills_of_victim == MOST_KILLS:
            if code == 0:  # it ended before its time came
                assert_equal_ends(victim, expected, files, f"{victim.name}, ended by itself")
                counts["runs that came to their end"] += 1
            shutil.rmtree(victim)
            num_victims += 1
            victim, kills_of_victim = tmp_path / f"victim-{num_victims}", 0
            assert num_victims <= NUM_KILLS, "the signals do not end the runs"
    print(json.dumps({"method": method, "seed": SEED, "kills": num_kills, "equal ends": num_equal, **counts}))


def assert_equal_ends(run: Path, expected: dict[str, Any], files: list[str], when: str) -> None:
    got = result_of(run)
    for what in expected:
        assert got[what] == expected[what], f"{what}, {when}"
    assert files_of(run) == files, f"files, {when}"
