"""A whole run, killed with SIGKILL inside its steps and resumed, leaves what an uninterrupted one leaves.

One victim run of each method is killed once in every step, resumed each time, and compared at the end: tables as
sorted rows, weights by hash, metrics by value. `RECLOOP_SOAK=short` kills it in two steps only.
"""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import polars as pl
import pytest

# As small as a run can be and still have every step. Of each method the steps with work inside that a kill may not lose
# or do twice, for `short`.
SETTINGS: dict[str, dict[str, str]] = {
    "dpo4rec": {
        "data.simulated.num-users": "60",
        "data.simulated.num-items": "60",
        "data.simulated.num-interactions": "12",
        "prompt.max-prompt-tokens": "300",
        "completions.reward": "4",
        "completions.test": "1",
        "dpo.max-pairs": "8",
        "dpo.save-steps": "1",
        "reranker.max-epochs": "2",
    },
    "rerec": {
        "data.simulated.num-users": "24",
        "data.simulated.num-items": "120",
        "data.simulated.num-interactions": "16",
        "requests.per-user": "3",
        "requests.num-candidates": "5",
        "requests.near-misses": "2",
        "lm.max-tokens": "12",
        "sft.max-pairs": "8",
        "sft.epochs": "1",
        "grpo.max-pairs": "4",
        "grpo.batch-size": "1",
        "grpo.gradient-accumulation-steps": "2",
        "grpo.num-generations": "2",
        "grpo.max-reply-tokens": "12",
        "grpo.save-steps": "1",
        "grpo.epochs": "2",
        "retention.tasks": "4",
        "next-item.users": "3",
        "variants": '["grpo_ndcg", "rerec"]',
    },
    "re2llm": {
        "seeds": "[0]",
        "data.simulated-sessions.num-train": "24",
        "data.simulated-sessions.num-test": "12",
        "data.simulated-sessions.num-items": "240",
        "explore.max-mistakes": "12",
        "policy.steps": "64",
        "policy.rollout": "32",
    },
}
SHORT_STEPS = {"dpo4rec": ("sample", "train"), "rerec": ("train", "sample"), "re2llm": ("explore", "sample")}
PASSING = ("wall_s", "peak_memory_bytes")
DEADLINE_S = 900


def start(*words: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-c", "import sys; from recloop.cli import main; sys.exit(main())", *words]
    return subprocess.Popen(command, start_new_session=True, stdout=subprocess.DEVNULL)


def finish(process: subprocess.Popen[bytes]) -> None:
    assert process.wait(timeout=DEADLINE_S) == 0


def manifest_of(run: Path) -> dict[str, Any]:
    return json.loads((run / "manifest.json").read_text())


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


def sorted_rows(file: Path) -> list[dict[str, Any]]:
    table = pl.read_parquet(file)
    return table.sort(table.columns).to_dicts()


def without_times(value: Any) -> Any:
    """The value without what a clock or the machine's memory decides."""
    if isinstance(value, dict):
        return {k: without_times(v) for k, v in value.items() if not k.endswith("_s") and k not in PASSING}
    return [without_times(v) for v in value] if isinstance(value, list) else value


def as_text(line: str) -> str:
    return json.dumps(without_times(json.loads(line)), sort_keys=True)


def result_of(run: Path) -> dict[str, Any]:
    """What a run found out, in a form that does not depend on when it found it."""
    steps = manifest_of(run)["steps"]
    results = json.loads((run / "results.json").read_text())
    return {
        "steps": sorted(steps),
        "results": without_times(results),
        "tables": {file.name: sorted_rows(file) for file in sorted(run.glob("*.parquet"))},
        "weights": {
            f"{name}/{output}": facts["sha256"]
            for name, entry in steps.items()
            for output, facts in entry["outputs"].items()
            if output.endswith(".safetensors")
        },
        "metrics": sorted(map(as_text, (run / "metrics.jsonl").read_text().splitlines())),
        "rankings": {file.name: file.read_text() for file in sorted((run / "runs").glob("*.trec"))},
    }


@pytest.mark.soak
@pytest.mark.parametrize("method", SETTINGS)
def test_a_run_killed_in_its_steps_ends_as_if_nothing_had_happened(method: str, tmp_path: Path) -> None:
    words = [word for key, value in SETTINGS[method].items() for word in (f"--{key}", value)] + ["--preflight", "off"]
    whole, victim = tmp_path / "whole", tmp_path / "victim"
    finish(start("run", method, *words, "--out", str(whole)))
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
