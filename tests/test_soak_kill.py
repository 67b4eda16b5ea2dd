"""A whole run, killed with SIGKILL inside its steps and resumed, leaves what an uninterrupted one leaves.

One victim run of each method is killed once in every step, resumed each time, and compared at the end: tables as
sorted rows, weights by hash, metrics by value. `RECLOOP_SOAK=short` kills it in two steps only.
"""

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from whole_runs import DEADLINE_S, SETTINGS, finish, manifest_of, result_of, start, whole_run, words_of

# Of each method the steps with work inside that a kill may not lose or do twice, for `short`.
SHORT_STEPS = {"dpo4rec": ("sample", "train"), "rerec": ("train", "sample"), "re2llm": ("explore", "sample")}


def kill_in_step(process: subprocess.Popen[bytes], part: Path, delay_s: float) -> bool:
    """SIGKILL the process and its children `delay_s` after the step's hidden folder appears.

    Returns:
        False when the process ended by itself before that.
    """
    deadline = time.monotonic() + DEADLINE_S
    while not part.exists():
        if process.poll() is not None:
            assert process.returncode == 0
            return False
        assert time.monotonic() < deadline, f"{part} never appeared"
        time.sleep(0.002)
    time.sleep(delay_s)
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
    return process.wait() == -signal.SIGKILL


@pytest.mark.soak
@pytest.mark.parametrize("method", SETTINGS)
def test_a_run_killed_in_its_steps_ends_as_if_nothing_had_happened(method: str, tmp_path: Path) -> None:
    words, whole, victim = words_of(method), whole_run(method), tmp_path / "victim"
    steps = manifest_of(whole)["steps"]

    if os.environ.get("RECLOOP_SOAK", "short") == "full":
        targets = list(steps)
    else:
        firsts = [next(name for name in steps if name.split(".")[0] == verb) for verb in SHORT_STEPS[method]]
        targets = sorted(firsts, key=list(steps).index)  # as they run: one that is done cannot be killed
    num_kills = 0
    for number, name in enumerate(targets):
        command = ("resume", str(victim)) if victim.exists() else ("run", method, *words, "--out", str(victim))
        final = victim / steps[name]["folder"]
        share = (0.5, 0.2, 0.8)[number % 3]  # of the step's time, so that kills fall early, midway and late
        was_killed = kill_in_step(start(*command), final.parent / f".{final.name}.part", share * steps[name]["wall_s"])
        num_kills += was_killed
    finish(start("resume", str(victim)))

    assert num_kills > len(targets) / 2, f"only {num_kills} of {len(targets)} kills met a running step"
    expected, got = result_of(whole), result_of(victim)
    assert expected["tables"], "the run left no table"
    assert expected["weights"] or method == "re2llm", "the run left no weights"
    assert expected["metrics"], "the run left no metrics"
    for what in expected:
        assert got[what] == expected[what], what
